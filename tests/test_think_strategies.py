"""Sampling strategies: every one keeps the contract, and is as right as theory says where theory says."""

import asyncio
import inspect
import math
import re
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from _think_fakes import WRONG, FakeCoder, FakeModel, FakeScore, problem
from hypothesis import given
from hypothesis import strategies as st

from isoflop.levers.think import _sandbox
from isoflop.levers.think._answers import vote
from isoflop.levers.think._ask import Ask, derive
from isoflop.levers.think._strategy import get_strategy, settings, strategy_names
from isoflop.levers.think._types import ModelError, Problem, Sample, ScoreError
from isoflop.levers.think.adaptive import _below_half, not_last, overtaken, stops
from isoflop.levers.think.confident import lowest_window
from isoflop.levers.think.memory import Lesson, recall
from isoflop.levers.think.self_refine import TONES
from isoflop.levers.think.verify_k import solve_or_verify

NAMES = strategy_names()
CODE = ("code_tests", "hybrid_verify")


def answer(name, model, score=None, number=0, **own):
    return asyncio.run(get_strategy(name)(problem(number), model, score, **own))


def accuracy(name, n=400, score=True, model=FakeModel, rate=0.5, **own):
    """The share of n problems that a strategy gets right with fakes."""
    fakes = {k: own.pop(k) for k in ("judge", "steps", "wrong") if k in own}

    async def all_of_them():
        ask = get_strategy(name)
        return [await ask(problem(i), model(rate, **fakes), FakeScore() if score else None, **own) for i in range(n)]

    return np.mean([a.key == str(100 + i) for i, a in enumerate(asyncio.run(all_of_them()))])


def near(share, expected, n=400):
    return abs(share - expected) < 4 * math.sqrt(max(expected * (1 - expected), 0.02) / n)


# -- the contract ---------------------------------------------------------------------------------------------------


def can_run(name):
    if name in CODE and asyncio.run(_sandbox.isolation()) != _sandbox.NAMESPACES:
        pytest.skip("no user namespaces to shut programs in")
    if name == "ets":
        pytest.importorskip("scipy", reason="it solves an integer program: pip install 'isoflop[think]'")
    return FakeCoder if name in CODE else FakeModel


def same(a, b):
    return (a.text, a.key, a.samples, dict(a.info)) == (b.text, b.key, b.samples, dict(b.info))


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_repeats_under_a_seed(name):
    kind = can_run(name)
    own = {"n": 3, "tests": 1} if name in CODE else {}
    first, again, other = (answer(name, kind(0.6), FakeScore(), number=7, seed=s, **own) for s in (3, 3, 4))
    assert first.text
    assert first.key is not None
    assert same(first, again)
    assert other.samples != first.samples or name == "budget_forcing"
    assert "stopped" not in first.info


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [0, 1, 30, 150])
def test_answers_with_what_it_has_when_the_budget_is_spent(name, budget):
    model = can_run(name)(0.6, budget=budget)
    found = answer(name, model, FakeScore())
    assert found.info.get("stopped") == "budget" or model.tokens < budget or len(found.samples) > 0
    if budget == 0:
        assert (found.text, found.key, found.info["stopped"]) == ("", None, "budget")
    if found.samples and name not in CODE:
        assert found.text


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_call_never_becomes_an_answer(name):
    with pytest.raises(ModelError, match="gave nothing"):
        answer(name, can_run(name)(0.6, fails=["all"]), FakeScore())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in CODE])
def test_a_spent_score_leaves_an_answer(name):
    for budget in (0, 1):
        assert answer(name, can_run(name)(0.6), FakeScore(budget=budget)).text


@pytest.mark.parametrize("name", NAMES)
def test_every_call_has_a_seed_of_its_own(name):
    model = can_run(name)(0.6)
    answer(name, model, FakeScore(), number=7)
    assert len(set(model.seeds)) == len(model.seeds)


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_is_from_and_takes_few_settings(name):
    strategy = get_strategy(name)
    assert "Source" in strategy.__doc__ or "arXiv" in strategy.__doc__
    parameters = inspect.signature(strategy).parameters
    assert list(parameters)[:3] == ["problem", "model", "score"]
    assert len(parameters) <= 8
    assert "seed" in settings(name)


@pytest.mark.parametrize(
    "name", ["best_of_n", "weighted_vote", "evolve", "beam", "dvts", "rebase", "ets", "mcts", "forest"]
)
def test_who_chooses_by_a_score_needs_one(name):
    with pytest.raises(ValueError, match=f"{name} chooses by a score"):
        answer(name, FakeModel())


def test_a_wrong_strategy_is_told_so(tmp_path):
    (tmp_path / "mine.py").write_text("def plain(problem, model, score):\n    pass\n")
    with pytest.raises(LookupError, match="is not a strategy: write async def"):
        get_strategy(f"{tmp_path / 'mine.py'}:plain")
    with pytest.raises(LookupError, match="did you mean majority"):
        get_strategy("majorty")
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        answer("majority", FakeModel(), n=0)


def test_a_score_that_is_not_a_number_is_refused():
    class Odd(FakeScore):
        def _one(self, text):
            return float("nan")

    with pytest.raises(ScoreError, match="not a finite number"):
        answer("best_of_n", FakeModel(), Odd())


# -- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (4, 0.3), (16, 0.1)])
def test_best_of_n_with_a_perfect_score_is_coverage(n, p):
    assert near(_with_n("best_of_n", n, p), 1 - (1 - p) ** n)


def _with_n(name, n, p, problems=400, score=True, **own):
    async def go():
        ask = get_strategy(name)
        return [
            await ask(problem(i), FakeModel(p), FakeScore() if score else None, n=n, **own) for i in range(problems)
        ]

    return np.mean([a.key == str(100 + i) for i, a in enumerate(asyncio.run(go()))])


def plurality(n, p, others):
    """P(the right one of 1 + others answers wins a vote of n, ties to the first seen), by counting all outcomes."""
    total = 0.0
    for outcome in product(range(others + 1), repeat=n):
        counts = [outcome.count(a) for a in range(others + 1)]
        first = {a: outcome.index(a) for a in set(outcome)}
        won = max(first, key=lambda a: (counts[a], -first[a]))
        total += (won == 0) * p ** counts[0] * ((1 - p) / others) ** (n - counts[0])
    return total


@pytest.mark.parametrize(("n", "p"), [(3, 0.4), (5, 0.4), (6, 0.25)])
def test_majority_is_the_plurality_of_the_multinomial(n, p):
    assert near(_with_n("majority", n, p, problems=800, score=False), plurality(n, p, len(WRONG)), n=800)


def test_weighted_vote_with_a_perfect_score_is_coverage():
    assert near(_with_n("weighted_vote", 4, 0.3), 1 - 0.7**4)


def test_a_knockout_with_a_perfect_judge_is_coverage():
    assert near(accuracy("tournament", rate=0.2, judge=1.0), 1 - 0.8**8)


def test_verification_by_enumeration():
    """n = 2, k = 1: a judge right with probability j picks among verdicts; equal ones go to the first."""
    p, j = 0.4, 0.8
    mixed = j * j + j * (
        1 - j
    )  # right one passes alone, or both verdicts are equal and it came first (half of it twice)
    expected = p * p + 2 * p * (1 - p) * mixed
    assert near(_with_n("verify_k", 2, p, problems=800, score=False, k=1), expected, n=800)


@pytest.mark.parametrize("name", ["judge_pick", "fusion", "verify_k", "revise", "parallel_summary", "three_axes"])
def test_more_compute_does_not_hurt(name):
    assert accuracy(name, n=150, score=False, rate=0.4) > 0.4 - 0.1


def test_different_temperatures_solve_different_problems():
    model = FakeModel(lambda t: 0.95 if t == 1.0 else 0.05)
    cold = answer("multi_temperature", model, temperatures=(0.2,), n=16, rounds=1)
    hot = answer("multi_temperature", model, temperatures=(0.2, 1.0), n=16, rounds=1)
    assert (cold.key, hot.key) == (cold.info["winners"]["0.2"], hot.info["winners"]["1.0"])
    assert hot.key == "100"


def test_an_easy_problem_leaves_early():
    easy = answer("multi_temperature", FakeModel(1.0))
    assert (easy.info["rounds"], len(easy.samples)) == (1, 12)
    assert answer("multi_temperature", FakeModel(0.3)).info["rounds"] > 1


def test_a_calibrated_split_of_solving_and_checking():
    for budget in (1, 2, 8, 64, 1000):
        split = solve_or_verify(budget, check_cost=0.5)
        assert split["n"] * (1 + 0.5 * split["k"]) <= budget
    small, large = (solve_or_verify(b) for b in (100, 10000))
    growth = math.log(large["n"] / small["n"]) / math.log(large["k"] / small["k"])
    assert growth == pytest.approx(0.57 / 0.39, rel=0.15)
    with pytest.raises(ValueError, match="at least 1"):
        solve_or_verify(0.5)


# -- each one's own way ---------------------------------------------------------------------------------------------


def test_confidence_finds_the_good_ones_and_cuts_the_others_short():
    many = [answer("confident", FakeModel(0.35), number=i, n=24, warmup=8, keep=0.3, window=4) for i in range(60)]
    assert np.mean([a.key == str(100 + i) for i, a in enumerate(many)]) > 0.9
    assert sum(a.info["cut"] for a in many) > 60
    plain = sum(s.gen_tokens for i in range(60) for s in answer("majority", FakeModel(0.35), number=i, n=24).samples)
    assert sum(s.gen_tokens for a in many for s in a.samples) < plain


def test_no_log_probabilities_is_a_clear_error():
    class Mute(FakeModel):
        def _sample(self, words, logs, finish, prompt, logprobs):
            return super()._sample(words, logs, finish, prompt, False)

    for name in ("confident", "conformal"):
        with pytest.raises(ModelError, match="needs log-probabilities"):
            answer(name, Mute())


@given(st.lists(st.floats(-5, 0), min_size=1, max_size=30), st.integers(1, 35))
def test_lowest_window_is_the_lowest_of_all_windows(logs, window):
    got = lowest_window(Sample("", "stop", 0, 0, spread=tuple(logs)), window)
    windows = [logs[i : i + window] for i in range(max(1, len(logs) - window + 1))]
    assert got == pytest.approx(min(np.mean(w) for w in windows), abs=1e-9)


def test_refinement_stops_when_satisfied_and_takes_tones():
    calm = answer("self_refine", FakeModel(1.0, judge=1.0))
    assert (calm.info["ended"], calm.info["versions"]) == ("satisfied", 1)
    model = FakeModel(0.0, judge=1.0)
    tones = answer("self_refine", model, turns=6, phrases="tones")
    assert tones.info["versions"] == 7
    asked = {p.rsplit("\n", 2)[-2] for p in model.prompts if p.endswith('"Verdict: no".')}
    assert asked == set(TONES)
    assert answer("self_refine", FakeModel(0.3), FakeScore(), turns=8).info["ended"] in ("score", "satisfied", "turns")


def test_forced_thinking_is_cut_and_extended():
    waited = answer("budget_forcing", FakeModel(1.0), waits=2)
    assert waited.text.count("Wait") == 2
    assert waited.key == "100"
    cut = answer("budget_forcing", FakeModel(1.0, steps=50), thinking=20)
    assert cut.info["cut"]
    assert cut.info["thinking"] == 20
    assert "Final answer:" in cut.text
    assert "bad" not in cut.text


def test_depths_of_the_triggers_grow():
    found = answer("iterative_deepening", FakeModel(1.0, steps=20), n=1, first=8, growth=2.0)
    at = [len(part.split()) for part in found.text.split("Wait!")]
    assert found.info["triggers"] == [len(at) - 1]
    assert all(later > earlier for earlier, later in pairwise(at[:-1]))


def test_revision_reads_what_went_before():
    model = FakeModel(0.0)
    answer("revise", model, chains=2, turns=3)
    assert sum("### Attempt 1" in p for p in model.prompts) == 4
    assert sum("### Attempt 2" in p for p in model.prompts) == 2


def test_evolution_stops_at_a_perfect_score_and_never_loses_it():
    found = answer("evolve", FakeModel(1.0), FakeScore())
    assert len(found.samples) == 4
    assert near(accuracy("evolve", rate=0.2), 1 - 0.8**12)


def test_three_axes_multiply():
    assert len(answer("three_axes", FakeModel(0.5), batch=3, turns=4).samples) == 12
    assert near(accuracy("three_axes", rate=0.3, batch=2, turns=2), 1 - 0.7**4)


def test_code_is_chosen_by_its_tests():
    can_run("code_tests")
    found = answer("code_tests", FakeCoder(0.4), n=4, tests=1, seed=1)
    assert found.key == "right"
    hybrid = answer("hybrid_verify", FakeCoder(0.4), FakeScore(), n=4, tests=1, seed=1)
    assert hybrid.key == "right"
    assert max(hybrid.info["passed"]) == hybrid.info["tests"]


def test_public_tests_count_first():
    can_run("code_tests")
    own = Problem("p", problem(0).prompt, {"tests": ["assert add(2, 5) == 7"]})
    found = asyncio.run(get_strategy("code_tests")(own, FakeCoder(0.4), None, n=4, tests=0, seed=1))
    assert found.key == "right"
    assert found.info["passed"][0] == (1, 0)


def test_memory_wraps_any_strategy_and_hands_back_what_it_learnt():
    first = asyncio.run(get_strategy("memory")(problem(1), FakeModel(0.9), FakeScore(), strategy="best_of_n"))
    assert [m["title"] for m in first.info["learnt"]] == ["Add"]
    assert first.info["learnt"][0]["success"]
    model = FakeModel(0.9)
    second = asyncio.run(get_strategy("memory")(problem(2), model, None, lessons=first.info["learnt"]))
    assert second.info["recalled"] == ["Add"]
    assert "Add the two numbers." in model.prompts[0]


def test_the_most_related_lesson_is_recalled():
    lessons = [Lesson(t, "", "", True, about=t) for t in ("sum of two primes", "area of a circle", "sum of a series")]
    assert recall(lessons, "find the area of this circle", top=2)[0].title == "area of a circle"
    assert recall(lessons, "zebra", top=3) == []
    assert recall([], "zebra") == []


# -- adaptive -------------------------------------------------------------------------------------------------------


def test_a_lead_that_cannot_be_made_up_stops():
    assert stops(["a"] * 8, 16, risk=0.0)  # a tie at the end goes to the one seen first
    assert not stops(["a"] * 7, 16, risk=0.0)
    assert not stops(["b", *["a"] * 8], 16, risk=0.0)
    assert stops(["b", *["a"] * 9], 16, risk=0.0)
    assert stops([None] * 16, 16)
    assert not stops([], 16)


def test_the_chance_of_being_overtaken_is_that_of_an_urn():
    """Dirichlet(1 + counts) draws are a Polya urn: play it."""
    rng = np.random.default_rng(0)
    for lead, second, rest, left, ahead in ((2, 0, 0, 6, True), (3, 2, 1, 5, True), (3, 2, 0, 5, False)):
        c = np.tile([lead + 1.0, second + 1.0, rest + 1.0], (4000, 1))
        for _ in range(left):
            drawn = (rng.random(4000)[:, None] * c.sum(1, keepdims=True) > c.cumsum(1)).sum(1)
            c[np.arange(4000), drawn] += 1
        lost = (c[:, 1] > c[:, 0]) | ((c[:, 1] == c[:, 0]) & (not ahead))
        assert near(lost.mean(), overtaken(lead, second, rest, left=left, ahead_in_tie=ahead), n=4000)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 5), st.integers(0, 12))
def test_being_overtaken_is_a_probability_that_grows_with_the_rival(lead, second, rest, left):
    second = min(second, lead)
    chance = overtaken(lead, second, rest, left=left)
    assert -1e-12 <= chance <= 1 + 1e-12
    assert chance >= overtaken(lead + 1, second, rest, left=left) - 1e-12
    assert chance <= overtaken(lead, second, rest, left=left, ahead_in_tie=False) + 1e-12


def test_the_chance_to_lose_the_lead_is_that_of_two_kinds_of_problems():
    """Problems are drawn of either kind, and voted on until the votes stand as said; who wins then is counted."""
    rng, left, seen, lost = np.random.default_rng(0), 5, 0, 0
    for _ in range(40_000):
        theta = 0.3 if rng.random() < 0.8 else 5.0
        votes, state = [], None
        for drawn in range(9):
            new = rng.random() < theta / (drawn + theta)
            place = len(votes) if new else int(np.searchsorted(np.cumsum(votes), rng.random() * drawn, side="right"))
            votes = [*votes, 1] if new else [v + (i == place) for i, v in enumerate(votes)]
            if drawn == 3:
                state = list(votes)
        if sorted(state, reverse=True) == [3, 1]:
            seen += 1
            first = [i for i, v in enumerate(votes) if v == max(votes)]
            lost += 1 - (state.index(3) in first) / len(first)
    assert near(lost / seen, not_last((3, 1), left=left), n=seen)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 6))
def test_a_larger_lead_is_safer(votes, left):
    votes = tuple(sorted(votes, reverse=True))
    chance = not_last(votes, left=left)
    assert 0 <= chance <= 1
    assert not_last((votes[0] + left + 1, *votes[1:]), left=left) == 0


def test_the_beta_rule_is_a_binomial_tail():
    assert _below_half(3, 0) == pytest.approx(0.0625)
    assert _below_half(2, 2) == pytest.approx(0.5)


def test_adaptive_answers_as_the_majority_with_fewer_samples():
    plain = [answer("majority", FakeModel(0.6), number=i, n=16) for i in range(150)]
    few = [answer("adaptive", FakeModel(0.6), number=i, n=16) for i in range(150)]
    assert sum(len(a.samples) for a in few) < 0.6 * sum(len(a.samples) for a in plain)
    assert (
        sum(a.key == str(100 + i) for i, a in enumerate(few))
        >= sum(a.key == str(100 + i) for i, a in enumerate(plain)) - 6
    )


def test_adaptive_on_recorded_samples_beats_the_beta_rule(data):
    """Nine settings x 100 problems x 16 samples in 20 random orders: samples used, and accuracy against majority@16."""
    table = pytest.importorskip("pyarrow.parquet").read_table(data / "async-sampling-math" / "samples.parquet")
    groups = {}
    for row in table.select(["config", "problem", "answer", "correct"]).to_pylist():
        groups.setdefault((row["config"], row["problem"]), []).append(row)
    used, off = _replay(groups, risk=settings("adaptive")["risk"])
    beta_used, _ = _replay(groups, rule="beta", risk=0.1)
    assert used < 6.0 < beta_used < 6.3
    assert abs(np.mean(off)) < 0.1
    assert min(off) > -0.5
    used, off = _replay(groups, risk=0.02)
    assert used < 6.3
    assert abs(np.mean(off)) < 0.1
    assert min(off) > -0.3


def _replay(groups, **rule):
    """Mean samples used, and the points gained in each setting."""
    used, gained = [], {}
    for (config, number), rows in groups.items():
        keys = [None if r["answer"] == "invalid" else r["answer"] for r in rows]
        correct = {k: r["correct"] for k, r in zip(keys, rows, strict=True)} | {None: 0}
        for order in range(20):
            shuffled = [keys[i] for i in np.random.default_rng(1000 * order + number).permutation(len(keys))]
            n = next((i for i in range(1, 16) if stops(shuffled[:i], 16, **rule)), 16)
            used.append(n)
            gained.setdefault(config, []).append(correct[vote(shuffled[:n]).key] - correct[vote(shuffled).key])
    return np.mean(used), [100 * np.mean(g) for g in gained.values()]


def test_what_the_page_shows_runs():
    page = (Path(__file__).parent.parent / "docs" / "strategies.md").read_text()
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, scope)
    for name in NAMES:
        assert f"`{name}`" in page, name


def test_the_first_call_keeps_the_seed_and_branches_do_not_meet():
    ask = Ask(problem(), FakeModel(), seed=5)
    assert derive(5, ask.path, 0) == 5
    seeds = {derive(5, a.path, i) for a in (ask, ask.branch("a"), ask.branch("b")) for i in range(50)}
    assert len(seeds) == 150
