"""From a pilot to a plan to a run of it, against the package's own server; and the report on what came out."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

from _think_served import tiny_model, write_problems

import isoflop
from isoflop.levers.think import Think
from isoflop.levers.think._follow import read_plan
from isoflop.levers.think._model_files import find_model
from isoflop.levers.think._replay import replay
from isoflop.levers.think._samples import read_samples
from isoflop.levers.think._server import serving
from isoflop.levers.think._task_model import problem_rows
from isoflop.levers.think._think_report import think_report


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plan_file(path, *bins, signal="none", probe=0, cost="gen_tokens", spent=24.0):
    """A plan; a bin is (low, high, [(strategy, k, share), ...])."""
    made = [
        {"low": low, "high": high, "problems": 1,
         "settings": [dict(zip(("strategy", "k", "share"), s, strict=True)) for s in settings]}
        for low, high, settings in bins
    ]  # fmt: skip
    accuracy = {"best": 0.5, "median": 0.5, "interval": [0.4, 0.6]}
    made = {"version": 1, "signal": signal, "probe": probe, "cost": cost, "bins": made, "accuracy": accuracy}
    path.write_text(json.dumps(made | {"spent": {"best": spent}}))
    return path


def notes_of(folder):
    """Problem: what its answer's info says, with its costs; of the runs of a plan."""
    rows = isoflop.read(folder / "answers", where="strategy == 'plan'").to_dict("records")
    return {row["problem"]: json.loads(row["info"]) | {"gen_tokens": row["gen_tokens"]} for row in rows}


# -- the whole way ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """Problems, the first of them for a pilot, and the recorded model to answer them."""
    folder = tmp_path_factory.mktemp("loop")
    rows = problem_rows(44, seed=7)
    pilot, problems = write(folder / "pilot.jsonl", rows[:24]), write(folder / "problems.jsonl", rows)
    with serving(find_model("arithmetic_lm"), name="arithmetic_lm") as (url, service):
        yield folder, pilot, problems, url, service


def test_pilot_plan_run_and_report(loop, run):
    folder, pilot, problems, url, service = loop
    fixed = ("--server", url, "--model", "arithmetic_lm", "--protocol", "completions")
    how = ("--max-tokens", 90, "--set", "temperature=1.0")
    run("think", "run", pilot, *fixed, *how, "--n", 8, "--out", folder / "first")
    seen = run.json("think", "replay", folder / "first", "--strategy", "majority", "--budgets", "1,8")
    assert seen["problems"] == 24
    assert "score" not in seen["rows"][0]
    made = run.json(
        "think", "plan", folder / "first", "--budget-tokens", "12k", "--problems", 44, "--out", folder / "plan.json"
    )
    assert made["sampling"] == {"temperature": 1.0, "max_tokens": 90, "stop": []}
    told = run("think", "run", problems, *fixed, "--plan", folder / "plan.json", "--out", folder / "planned")
    assert "as planned" in told.stdout
    (row,) = isoflop.read(folder / "planned" / "runs.jsonl").to_dict("records")
    assert (row["strategy"], row["unreached"], row["problems"]) == ("plan", 0, 44)
    assert row["planned_accuracy"] == pytest.approx(made["accuracy"]["best"])
    spent = row["prompt_tokens"] + row["gen_tokens"]
    assert 0.8 * made["spent"]["best"] < spent <= made["spent"]["best"] + 120 / 44  # at most the last call beyond
    drawn = isoflop.read(folder / "planned" / "samples", where="role == 'model'")
    assert {(s["temperature"], s["max_tokens"]) for s in drawn["settings"].map(as_mapping)} == {(1.0, 90)}
    notes = notes_of(folder / "planned")
    sure = [n["drawn"] for n in notes.values() if len(n["votes"]) == 1]
    split = [n["drawn"] for n in notes.values() if len(n["votes"]) > 1]
    assert np.mean(split) > np.mean(sure)
    asked = len(service.requests)
    (folder / "planned" / "runs.jsonl").unlink()  # as if it had been killed before the row was written
    (folder / "planned" / "lever.json").unlink()
    again = run.json("think", "run", problems, *fixed, "--plan", folder / "plan.json", "--out", folder / "planned")
    assert len(service.requests) == asked
    assert again["rows"][0]["accuracy"] == row["accuracy"]
    assert again["rows"][0]["gen_tokens"] == row["gen_tokens"]


def test_a_plan_in_usd_brings_its_prices_and_no_strategy_goes_with_a_plan(loop, run):
    folder, pilot, problems, url, _ = loop
    fixed = ("--server", url, "--model", "arithmetic_lm", "--protocol", "completions")
    how = ("--max-tokens", 90, "--set", "temperature=1.0")
    run("think", "run", pilot, *fixed, *how, "--n", 4, "--out", folder / "cheap")
    made = run.json("think", "plan", folder / "cheap", "--budget-usd", "0.01", "--problems", 44, "--price", "gen=1",
                    "--out", folder / "usd.json")  # fmt: skip
    assert made["prices"] == {"gen": 1.0}
    out = run.json("think", "run", problems, *fixed, "--plan", folder / "usd.json", "--out", folder / "paid")
    assert out["rows"][0]["usd"] == pytest.approx(out["rows"][0]["gen_tokens"] / 1e6)
    assert out["rows"][0]["planned_usd"] == pytest.approx(made["spent"]["best"])
    both = ("--plan", folder / "usd.json", "--strategy", "best_of_n", "--out", folder / "both")
    assert "leave out --strategy" in run("think", "run", problems, *fixed, *both, code=2).stderr


def as_mapping(cell):
    return json.loads(cell) if isinstance(cell, str) else cell


def test_scores_of_a_verifier_are_kept_and_weighed(loop, run):
    """best_of_n is replayed and planned from our own store, and comes out as it was run."""
    folder, pilot, _, url, _ = loop
    (folder / "mine.py").write_text(
        "import zlib\n\ndef any_order(problem, text):\n    return zlib.crc32(text.encode())\n"
    )
    lever = Think(
        "arithmetic_lm", str(pilot), server=url, protocol="completions", max_tokens=90, strategy="best_of_n",
        score=f"{folder / 'mine.py'}:any_order", over={"n": [4, 8]}, settings={"temperature": 1.0},
    )  # fmt: skip
    rows = isoflop.sweep(lever, out=folder / "scored", progress=False)
    samples = read_samples(folder / "scored")
    curves = replay(samples, strategies=["best_of_n"], budgets=[4, 8])
    ran = rows.set_index("samples")["accuracy"]
    assert curves["best_of_n"].accuracy[1] == pytest.approx(ran[8])
    kept = isoflop.read(folder / "scored" / "samples", where="role == 'score'")
    assert len(kept) == kept["sample"].nunique() == samples.n.sum() == 24 * 8  # a score each, however often it was used
    made = run.json("think", "plan", folder / "scored", "--budget-tokens", "12k", "--problems", 44)
    assert made["baseline"] == "best_of_n"
    isoflop.sweep(
        Think("arithmetic_lm", str(pilot), server=url, protocol="completions", max_tokens=90, over={"n": [9]},
              settings={"temperature": 1.0}), out=folder / "scored2", progress=False,
    )  # fmt: skip
    with (folder / "scored" / "samples" / "samples.jsonl").open("ab") as file:
        file.write((folder / "scored2" / "samples" / "samples.jsonl").read_bytes())
    more = read_samples(folder / "scored", only={"strategy": "best_of_n"})
    assert "score" in more.columns
    assert any("samples have no score" in w for w in read_samples(folder / "scored").warnings)


# -- bins, shares, budgets --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tiny_model(tmp_path_factory.mktemp("model"))) as (url, service):
        yield url, service


@pytest.fixture
def follow(server, tmp_path):
    def go(plan, *, count=10, **fields):
        problems = write_problems(tmp_path / "problems.jsonl", count)
        fixed = {"server": server[0], "protocol": "completions", "max_tokens": 6, "rule": "text", "plan": str(plan)}
        rows = isoflop.sweep(Think("model", str(problems), **{**fixed, **fields}), out=tmp_path / "out", progress=False)
        assert rows["status"].tolist() == ["ok"], rows["error"].tolist()
        return rows.iloc[0], notes_of(tmp_path / "out")

    return go


SCORE = "def first(problem, text):\n    return float(text[:1] >= '@')\n"  # about half of the random texts


def score_file(tmp_path):
    (tmp_path / "mine.py").write_text(SCORE)
    return f"{tmp_path / 'mine.py'}:first"


def test_shares_split_a_bin_and_stay_where_they_are(follow, tmp_path):
    plan = plan_file(tmp_path / "p.json", (None, None, [("best_of_n", 1, 0.7), ("best_of_n", 4, 0.3)]), spent=60.0)
    row, notes = follow(plan, score=score_file(tmp_path))
    assert sorted(n["drawn"] for n in notes.values()) == [1] * 7 + [4] * 3
    assert row["samples"] == pytest.approx(1.9)
    (tmp_path / "out" / "runs.jsonl").unlink()
    (tmp_path / "out" / "lever.json").unlink()
    assert {k: n["planned"] for k, n in follow(plan, score=score_file(tmp_path))[1].items()} == {
        k: n["planned"] for k, n in notes.items()
    }


def test_bins_are_half_open(follow, tmp_path):
    """After two samples the mean score is 0, 1/2 or 1: one half belongs to the bin that begins there."""
    bins = (
        (None, 0.5, [("best_of_n", 2, 1.0)]),
        (0.5, 1.0, [("best_of_n", 3, 1.0)]),
        (1.0, None, [("best_of_n", 4, 1.0)]),
    )
    plan = plan_file(tmp_path / "p.json", *bins, signal="score", probe=2, spent=100.0)
    _, notes = follow(plan, score=score_file(tmp_path), count=30)
    assert {(n["signal"], n["bin"], n["drawn"]) for n in notes.values()} == {(0.0, 0, 2), (0.5, 1, 3), (1.0, 2, 4)}


@pytest.mark.parametrize("name", ["best_of_n", "coverage"])
def test_what_passes_is_done_and_the_others_get_the_rest(follow, tmp_path, name):
    plan = plan_file(tmp_path / "p.json", (None, None, [(name, 4, 1.0)]), spent=24.0)
    row, notes = follow(plan, score=score_file(tmp_path), settings={"pass_score": 1.0}, count=20)
    passed = [n for n in notes.values() if max(n["scores"]) == 1.0]
    at_once = [n["drawn"] for n in passed if 1.0 in n["scores"][:2]]
    assert at_once
    assert set(at_once) == {2}
    assert row["gen_tokens"] <= 24.0
    assert len(passed) > 16  # of 20, at one half each, fewer would pass with the look alone


def test_a_budget_too_small_for_the_plan_still_looks_at_every_problem(follow, tmp_path):
    plan = plan_file(tmp_path / "p.json", (None, None, [("majority", 8, 1.0)]), spent=48.0)
    row, notes = follow(plan, budget={"gen_tokens": 150})
    assert row["unreached"] == 0
    assert row["gen_tokens"] * 10 <= 150 + 6
    assert {n["planned"] for n in notes.values()} == {8}


def test_no_problem_gets_more_than_four_times_the_most_of_the_plan(follow, tmp_path):
    plan = plan_file(tmp_path / "p.json", (None, None, [("majority", 2, 1.0)]), spent=1e4, cost="samples")
    _, notes = follow(plan, count=4)
    assert max(n["drawn"] for n in notes.values()) <= 8


def test_failed_problems_fail_alone(follow, tmp_path, server):
    plan = plan_file(tmp_path / "p.json", (None, None, [("majority", 2, 1.0)]))
    problems = [{"id": "long", "prompt": "say " * 40, "answer": "x"}, {"id": "fine", "prompt": "say 1:", "answer": "1"}]
    path = write(tmp_path / "mixed.jsonl", problems)
    lever = Think(
        "model", str(path), server=server[0], protocol="completions", max_tokens=6, plan=str(plan), tolerate=0.5
    )
    row = lever.run(lever.ladder()[0], seed=0)
    assert (row["failed"], row["unreached"]) == (1, 0)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"bins": [(None, None, [("beam", 4, 1.0)])]}, "asks for 'beam', which no run can follow"),
        (
            {"bins": [(None, None, [("majority", 4, 1.0)])], "signal": "labels"},
            "by 'labels', which a run does not have",
        ),
        ({"bins": [(None, 0.5, [("majority", 4, 1.0)]), (0.6, None, [("majority", 2, 1.0)])]}, "its bins leave gaps"),
        ({"bins": [(None, None, [("majority", 4, 0.5)])]}, "the shares of a bin must add up to 1"),
        ({"bins": [(None, None, [("majority", 0, 1.0)])]}, "and each k be 1 or more"),
        ({"bins": []}, "its bins leave gaps"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_said(tmp_path, plan, says):
    path = plan_file(tmp_path / "p.json", *plan.pop("bins"), **plan)
    with pytest.raises(ValueError, match=says):
        read_plan(path)


def test_what_is_no_plan_and_what_a_plan_leaves_no_room_for(tmp_path, follow):
    (tmp_path / "p.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="is no plan of `isoflop think plan --out`: KeyError 'bins'"):
        read_plan(tmp_path / "p.json")
    with pytest.raises(ValueError, match="cannot read the plan"):
        read_plan(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="leave out over"):
        Think("model", "p.jsonl", plan="p.json", over={"n": [1]})
    with pytest.raises(ValueError, match="unknown setting of a plan 'n'"):
        Think("model", "p.jsonl", plan="p.json", settings={"n": 1})
    scored = plan_file(tmp_path / "s.json", (None, None, [("best_of_n", 2, 1.0)]))
    with pytest.raises(AssertionError, match="the plan chooses by a score: give the verifier"):
        follow(scored)


def test_a_cost_that_no_run_has_is_said(follow, tmp_path):
    one = (None, None, [("majority", 2, 1.0)])
    with pytest.raises(AssertionError, match="the plan counts kinetics_flops, and a run cannot"):
        follow(plan_file(tmp_path / "p.json", one, cost="kinetics_flops"))


# -- the store as a pilot ---------------------------------------------------------------------------------------------


def test_a_store_replays_with_the_prompt_read_once_a_call(server, tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 6)
    fixed = {"server": server[0], "protocol": "completions", "max_tokens": 6, "rule": "text"}
    for name, more in (("together", {}), ("alone", {"use_n": False})):
        lever = Think("model", str(problems), settings={"n": 4}, **fixed, **more)
        row = isoflop.sweep(lever, out=tmp_path / name, progress=False).iloc[0]
        curve = replay(tmp_path / name, strategies=["majority"], budgets=[1, 4])["majority"]
        assert curve.mean_cost("prompt_tokens")[1] == pytest.approx(row["prompt_tokens"])
        assert curve.mean_cost("gen_tokens")[1] == pytest.approx(row["gen_tokens"])
        assert curve.accuracy[1] == pytest.approx(row["accuracy"], abs=1e-9)
    assert curve.mean_cost("prompt_tokens")[0] == pytest.approx(curve.mean_cost("prompt_tokens")[1] / 4)


def test_an_ungraded_store_says_so(server, tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 3)
    lever = Think(
        "model", str(problems), server=server[0], protocol="completions", max_tokens=4, grade_samples=False,
        settings={"n": 2},
    )  # fmt: skip
    isoflop.sweep(lever, out=tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=r"no samples to use: 6 samples without a grade"):
        read_samples(tmp_path / "out")


# -- the report -------------------------------------------------------------------------------------------------------


def row_of(run, n, seed=0, **more):
    return {"run": run, "strategy": more.pop("strategy", "majority"), **({"n": n} if n else more), "seed": seed,
            "status": "ok"}  # fmt: skip


def planted_folder(folder, runs):
    """A folder of runs: name, row, right by problem, tokens by problem."""
    (folder / "answers").mkdir(parents=True)
    write(folder / "runs.jsonl", [row for row, _, _ in runs])
    for row, right, tokens in runs:
        answers = [
            {"run": row["run"], "problem": f"p{i}", "correct": int(c), "prompt_tokens": 0, "gen_tokens": t}
            for i, (c, t) in enumerate(zip(right, tokens, strict=True))
        ]
        write(folder / "answers" / f"{row['run']}.jsonl", answers)
    return folder


@pytest.fixture
def planted(tmp_path):
    """90 problems: n=1 solves 30, n=4 and n=8 solve 60, and the plan as many at half the cost of n=4."""
    hard = np.arange(90)
    runs = [
        (row_of("a", 1), hard < 30, [10] * 90),
        (row_of("b", 4), hard < 60, [40] * 90),
        (row_of("c", 8), (hard < 61) & (hard > 0), [80] * 90),
        (row_of("d", 0, strategy="plan", plan="0123456789abcdef"), hard < 60, [20] * 90),
    ]
    return planted_folder(tmp_path / "planted", runs)


def test_the_frontier_and_the_saving_are_those_planted(planted):
    made = think_report([planted], draws=400)
    found = made.to_dict()
    assert [row["accuracy"] for row in found["rows"]] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert [edge["setting"] for edge in found["frontier"]] == ["majority n=1", "plan 01234567"]
    assert all(row["low"] < row["accuracy"] < row["high"] for row in found["rows"])
    assert found["frontier"][1]["undecided"] == []
    assert found["saving"]["against"] == "majority"
    assert found["saving"]["best"] == pytest.approx(0.5)
    assert "50% of the tokens of majority are saved by the plan" in str(made)
    thirds = found["rows"][1]
    assert thirds["hard third"] <= thirds["middle third"] <= thirds["easy third"]


def test_seeds_are_one_point_and_noise_is_undecided(tmp_path):
    rng = np.random.default_rng(0)
    runs = [(row_of(f"{n}-{s}", n, s), rng.random(60) < 0.5 + 0.01 * n, [10 * n] * 60) for n in (1, 2) for s in (0, 1)]
    found = think_report([planted_folder(tmp_path / "noise", runs)], draws=400)
    assert [p.seeds for p in found.points] == [2, 2]
    assert all(set(rest) <= {"majority n=1"} for _, rest in found.frontier())
    assert found.saving() is None
    if len(found.frontier()) == 2:
        assert found.frontier()[1][1] == ["majority n=1"]


def test_reports_of_other_problems_or_of_none_are_refused(planted, tmp_path):
    other = planted_folder(tmp_path / "other", [(row_of("a", 1), [1, 0], [1, 1])])
    with pytest.raises(ValueError, match="has runs on 2 problems that are not those of the runs before"):
        think_report([planted, other])
    with pytest.raises(ValueError, match="holds no finished runs"):
        think_report([tmp_path])
    with pytest.raises(ValueError, match="there is no cost 'joules'"):
        think_report([planted], cost="joules")


def test_report_command(planted, run, tmp_path):
    pytest.importorskip("matplotlib")
    found = run.json("think", "report", planted, "--cost", "gen_tokens", "--out", tmp_path / "r.html")
    assert found["rows"][0]["gen_tokens"] == 10
    page = (tmp_path / "r.html").read_text()
    assert "data:image/png;base64" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    run("think", "report", planted, "--out", tmp_path / "r.svg")
    assert (tmp_path / "r.svg").stat().st_size > 1000
