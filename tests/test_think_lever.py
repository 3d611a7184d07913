"""The think lever end to end: problem files, rows, sweeps, verifiers, the command line, and the recorded model."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

import _think_served
from _think_served import write_problems
from hypothesis import given
from hypothesis import strategies as st

import isoflop
from isoflop._lever import RunFailed, check_lever
from isoflop.levers.think import Think, _client
from isoflop.levers.think._faults import Faults, parse_faults
from isoflop.levers.think._model_files import find_model, load_model, read_tensors
from isoflop.levers.think._problems import read_problems
from isoflop.levers.think._server import serving
from isoflop.levers.think._task_model import Sum, draw_sum, problem_rows, step_is_right

model, server = _think_served.model, _think_served.server


@pytest.fixture
def lever(server, tmp_path):
    def make(**fields):
        problems = write_problems(tmp_path / "problems.jsonl", fields.pop("count", 6))
        fixed = {"server": server[0], "protocol": "completions", "max_tokens": 6, "rule": "text"}
        return Think("model", str(problems), **{**fixed, **fields})

    return make


# -- problem files ----------------------------------------------------------------------------------------------------


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_by_their_usual_names_and_the_rest_is_extra(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "1+1", "target": 2, "level": 3}, {"question": "2+2", "target": 4})
    found = read_problems(path, template="Sum: {prompt}")
    assert [p.prompt for p in found.problems] == ["Sum: 1+1", "Sum: 2+2"]
    assert [p.id for p in found.problems] == ["1", "2"]
    assert found.problems[0].extra == {"level": 3}
    assert found.answers == {"1": "2", "2": "4"}


def test_every_kind_of_file_gives_the_same_problems(tmp_path):
    rows = [{"id": f"a{i}", "prompt": f"say {i}", "answer": f"0{i}"} for i in range(3)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    lines = ["id,prompt,answer", *(f"{r['id']},{r['prompt']},{r['answer']}" for r in rows)]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    write(tmp_path / "p.jsonl", *rows)
    assert len({read_problems(tmp_path / name).sha256 for name in ("p.json", "p.csv", "p.jsonl")}) == 1
    pytest.importorskip("pyarrow")
    import pandas as pd

    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    assert read_problems(tmp_path / "p.parquet") == read_problems(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "a", "prompt": "x", "answer": ""}, {"id": "b", "prompt": "y"}], "2 of 2 problems have no answer"),
        ([{"id": "a", "prompt": "x", "answer": 1}] * 2, r"problems 1 and 2 have the same id 'a'"),
        ([{"prompt": "x", "answer": 1}] * 2, r"problems 1 and 2 have the same prompt 'x'"),
        ([{"prompt": " ", "answer": 1}], "1 of 1 problems have no prompt"),
        ([{"text": "x", "answer": 1}], r"has no prompt \(looked for prompt, question, .*\); there are text, answer"),
        ([], "holds no problems"),
        (["x"], "item 1 is no object"),
    ],
)
def test_what_is_wrong_with_problems_is_said(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        read_problems(write(tmp_path / "p.jsonl", *rows))


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*nowhere\.jsonl of problems"):
        read_problems(tmp_path / "nowhere.jsonl")
    (tmp_path / "cut.jsonl").write_text('{"prompt": "x", "answer": 1}\n{"prompt": "y", ')
    with pytest.raises(ValueError, match=r"line 2 is not JSON .* is it cut off"):
        read_problems(tmp_path / "cut.jsonl")
    with pytest.raises(ValueError, match=r"has no \{prompt\} in it"):
        read_problems(tmp_path / "cut.jsonl", template="x")


# -- the lever --------------------------------------------------------------------------------------------------------


def test_a_sweep_goes_up_the_samples_and_pays_for_each_once(lever, server, tmp_path):
    begun = len(server[1].requests)
    made = lever(over={"n": (1, 3, 8)}, prices={"gen": 1.0})
    rows = isoflop.sweep(made, out=tmp_path / "out", progress=False)
    assert rows["status"].tolist() == ["ok"] * 3
    assert rows["samples"].tolist() == [1, 3, 8]
    assert rows["gen_tokens"].tolist() == [6, 18, 48]
    assert rows["usd"].tolist() == pytest.approx([6e-6, 18e-6, 48e-6])
    assert rows["prompt_tokens"].nunique() == 1
    assert (rows["flops"].diff().dropna() > 0).all()
    asked = [r for r in server[1].requests[begun:] if r["prompt"].startswith("say ")]
    assert sum(r["n"] for r in asked) == 6 * 8
    samples = isoflop.read(tmp_path / "out" / "samples", where="role == 'model'")
    assert len(samples) == 48
    assert samples["correct"].notna().all()
    answers = isoflop.read(tmp_path / "out" / "answers")
    assert len(answers) == 18
    assert isoflop.read(tmp_path / "out").equals(isoflop.read(tmp_path / "out"))
    again = isoflop.sweep(made, out=tmp_path / "out", progress=False)
    assert again["accuracy"].tolist() == rows["accuracy"].tolist()


def test_other_strategies_share_the_folder(lever, tmp_path):
    for name in ("majority", "best_of_n"):
        score = {"score": str(tmp_path / "mine.py") + ":length"}
        (tmp_path / "mine.py").write_text("def length(problem, text):\n    return len(text)\n")
        rows = isoflop.sweep(lever(strategy=name, over={"n": (2,)}, **score), out=tmp_path / "out", progress=False)
    assert rows["strategy"].tolist() == ["majority", "best_of_n"]
    with pytest.raises(ValueError, match="max_tokens=6, and this one has 7"):
        isoflop.sweep(lever(max_tokens=7, **score), out=tmp_path / "out", progress=False)


def test_the_lever_keeps_the_contract(lever, tmp_path):
    found = check_lever(lever(over={"n": (1, 4)}, store=str(tmp_path / "samples.jsonl")))
    assert found.ok, str(found)
    assert found.costs["gen_tokens"] == (6, 24)


def test_a_budget_per_problem_can_be_the_axis(lever, tmp_path):
    made = lever(settings={"n": 20}, over={"problem_tokens": [20, 60]}, use_n=False, max_tokens=2)
    assert made.axis == "problem_tokens"
    rows = isoflop.sweep(made, out=tmp_path, progress=False)
    spent = rows["gen_tokens"] + rows["prompt_tokens"]
    assert rows["problem_tokens"].tolist() == [20, 60]
    assert spent.between([20, 60], [30, 70]).all()
    assert rows["unreached"].tolist() == [0, 0]


def test_a_budget_of_the_whole_run_leaves_problems_unreached(lever):
    made = lever(budget={"tokens": 40}, settings={"n": 1}, calls=1)
    row = made.run(made.ladder()[0], seed=0)
    assert row["unreached"] == 2  # 13 tokens each
    assert row["accuracy"] == 0


def test_a_strategy_of_your_own_sees_no_answer(lever, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from isoflop.levers.think._types import Answer\n"
        "async def told(problem, model, score, *, seed=0):\n"
        "    assert not hasattr(problem, 'answer') and 'answer' not in problem.extra and score is None\n"
        "    await model.sample(problem.prompt, seed=seed)\n"
        "    return Answer(problem.prompt[4:-1], info={'said': True})\n"
    )
    made = lever(strategy=f"{tmp_path / 'mine.py'}:told")
    row = made.run(made.ladder()[0], seed=0)
    assert (row["accuracy"], row["samples"]) == (1.0, 1.0)
    assert row["accuracy_se"] == 0.0


def test_failed_problems_stay_as_rows_and_only_they_are_asked_again(model, lever, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.001)
    with serving(model, faults=Faults(broken=0.5, seed=3)) as (url, service):
        made = lever(server=url, over={"n": (1,)}, tries=2, count=8)
        for _ in range(40):  # the probe and the list of models may fail too
            rows = isoflop.sweep(made, out=tmp_path / "out", progress=False, retry_failed=True)
            if rows["status"].iloc[-1] == "ok":
                break
    failed = rows[rows["status"] == "failed"]
    assert len(failed) > 0
    assert failed["error"].str.contains("status 500").all()
    assert failed["accuracy"].isna().all() if "accuracy" in failed else True
    assert rows["status"].iloc[-1] == "ok"
    assert rows["gen_tokens"].iloc[-1] == 6
    right = [r for r in service.requests if r["prompt"].startswith("say ") and not r["fault"]]
    assert len(right) == 8


def test_some_failures_may_be_borne_and_count_as_wrong(lever, server):
    made = lever(template="{prompt}" + " long" * 20)
    with pytest.raises(RunFailed, match=r"6 of 6 problems failed, the first p0: the prompt is too long"):
        made.run({"strategy": "majority", "n": 1}, seed=0)
    row = lever(template="{prompt}" + " long" * 20, tolerate=1.0).run({"strategy": "majority", "n": 1}, seed=0)
    assert (row["accuracy"], row["failed"]) == (0.0, 6)


def test_a_judge_is_paid_for_too(lever, tmp_path):
    made = lever(strategy="best_of_n", score="judge", score_settings={"k": 2, "template": "{solution}"}, tolerate=1.0)
    row = made.run({"strategy": "best_of_n", "n": 2}, seed=0)
    assert row["score_gen_tokens"] > 0
    assert row["gen_tokens"] == 12 + row["score_gen_tokens"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"strategy": "majorty"}, "no levers/think named 'majorty'; did you mean majority"),
        ({"settings": {"m": 3}}, "unknown setting of majority 'm'"),
        ({"over": {"n": [1], "temperature": [1]}}, "one setting at a time"),
        ({"protocol": "grpc"}, "protocol is 'grpc', and should be 'chat' or 'completions'"),
        ({"tolerate": 2.0}, "share from 0 to 1"),
    ],
)
def test_a_field_that_cannot_be_is_said_before_anything_is_spent(lever, fields, says):
    with pytest.raises((ValueError, LookupError), match=says):
        lever(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"score": "exact"}, "needs the reference answers, which no strategy may see"),
        ({"score": "regex", "score_settings": {"patern": "x"}}, "unknown setting of regex 'patern'"),
        ({"score": "nothing"}, "no levers/think/verifiers? named 'nothing'"),
        ({"budget": {"tokens": -1}}, "buys nothing"),
    ],
)
def test_a_verifier_or_budget_that_cannot_be_is_said(lever, fields, says):
    made = lever(**fields)
    with pytest.raises((ValueError, LookupError), match=says):
        made.run(made.ladder()[0], seed=0)


def test_a_file_of_fields(tmp_path, server):
    write_problems(tmp_path / "p.jsonl", 2)
    path = tmp_path / "think.toml"
    path.write_text(f'model = "model"\nproblems = "{tmp_path / "p.jsonl"}"\n[over]\nn = [1, 2]\n')
    assert [s["n"] for s in Think.from_toml(path).ladder()] == [1, 2]
    path.write_text('model = "model"\nproblem = "p.jsonl"\n')
    with pytest.raises(ValueError, match=r"think.toml: unknown key 'problem'; did you mean 'problems'"):
        Think.from_toml(path)


def test_it_runs_where_a_loop_runs_already(lever):
    async def notebook():
        return lever(settings={"n": 2}).run({"strategy": "majority", "n": 2}, seed=0)

    assert asyncio.run(notebook())["samples"] == 2


# -- the command line -------------------------------------------------------------------------------------------------


def test_think_run_and_its_refusals(run, server, tmp_path, monkeypatch):
    problems = write_problems(tmp_path / "problems.jsonl", 4)
    fixed = ("--model", "model", "--out", tmp_path / "out", "--max-tokens", 4, "--protocol", "completions")
    done = run.json("think", "run", problems, "--server", server[0], "--n", "1,2", *fixed)
    assert [row["samples"] for row in done["rows"]] == [1, 2]
    gone = run("think", "run", problems, "--server", "http://127.0.0.1:9/v1", *fixed, code=2)
    assert "no server answers at http://127.0.0.1:9/v1" in gone.stderr
    found = run.json("think", "probe", "--server", server[0], "--model", "model")
    assert found["n"] is found["seed"] is True


def test_a_fault_that_is_not_known():
    assert parse_faults(["busy=0.1", "no_n", "die_after=3"]) == Faults(busy=0.1, no_n=True, die_after=3)
    with pytest.raises(ValueError, match="no fault 'bsy'"):
        parse_faults(["bsy=1"])
    with pytest.raises(ValueError, match="write busy=NUMBER"):
        parse_faults(["busy=often"])


# -- the recorded model -----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
def test_sums_are_right_and_their_steps_can_be_checked(seed):
    one = draw_sum(random.Random(seed))
    assert 2 <= len(one.terms) <= 6
    assert eval(one.prompt.removesuffix("=?\n")) == one.answer
    assert all(map(step_is_right, one.steps))
    assert not any(step_is_right(line + "1") for line in one.steps)
    assert one.text.endswith(f"#### {one.answer}\n\0")


def test_problems_are_distinct_and_the_same_for_a_seed():
    rows = problem_rows(50, seed=3)
    assert rows == problem_rows(50, seed=3)
    assert len({row["prompt"] for row in rows}) == 50
    assert Sum((37, 58, -12)).text == "37+58-12=?\n37+58=95\n95-12=83\n#### 83\n\0"
    assert not step_is_right("95-12")


def test_a_broken_model_file_is_said(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_tensors(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds no config.json"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"no folder nothing with a model, and none recorded .* arithmetic_lm"):
        find_model("nothing")


def test_the_recorded_model_is_right_now_and_then(tmp_path):
    """pass@1 lies between 10 and 60 %, it falls with the number of terms, and eight votes beat one sample."""
    problems = write(tmp_path / "p.jsonl", *problem_rows(60, seed=7))
    with serving(find_model("arithmetic_lm"), name="arithmetic_lm") as (url, _):
        made = Think(
            "arithmetic_lm", str(problems), server=url, protocol="completions", max_tokens=90,
            settings={"temperature": 1.0}, over={"n": (1, 8)},
        )  # fmt: skip
        rows = isoflop.sweep(made, out=tmp_path / "out", progress=False)
    samples = isoflop.read(tmp_path / "out" / "samples", where="role == 'model'")
    assert 0.1 < samples["correct"].mean() < 0.6
    assert rows["accuracy"].iloc[1] > rows["accuracy"].iloc[0]
    operands = {row["id"]: row["operands"] for row in problem_rows(60, seed=7)}
    by = samples.groupby(samples["problem"].map(operands))["correct"].mean()
    assert by.loc[5] > by.loc[6]
