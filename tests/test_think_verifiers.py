"""Answers and their equality, votes and ties; verifiers, and their errors carried into a forecast."""

import asyncio
import inspect
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from _think_fakes import FakeModel, problem
from hypothesis import given
from hypothesis import strategies as st

from isoflop import _find
from isoflop.levers.think import _sandbox
from isoflop.levers.think._answers import TIES, canonical, extract, key_of, merge, vote
from isoflop.levers.think._ask import filled, picked, said_yes
from isoflop.levers.think._templates import choice_of, template_of, verdict_of
from isoflop.levers.think._types import BudgetSpent, Problem, ScoreError
from isoflop.levers.think.verifiers._measure import limit, measure, wilson
from isoflop.levers.think.verifiers.exact import Exact
from isoflop.levers.think.verifiers.function import Function
from isoflop.levers.think.verifiers.http_reward import HttpReward
from isoflop.levers.think.verifiers.json_schema import JsonSchema
from isoflop.levers.think.verifiers.judge import Judge
from isoflop.levers.think.verifiers.maths import Maths, close
from isoflop.levers.think.verifiers.regex import Regex
from isoflop.levers.think.verifiers.steps import Steps, prefixes
from isoflop.levers.think.verifiers.unit_tests import UnitTests

KIND = "levers/think/verifiers"
P = Problem("p", "What is half of one?")


def scores(verifier, texts, on=P):
    return asyncio.run(verifier(on, texts))


@pytest.mark.parametrize("name", _find.names(KIND))
def test_a_verifier_is_a_file_and_keeps_the_contract(name):
    kind = _find.get(KIND, name)
    assert kind.__dataclass_params__.frozen
    assert kind.__doc__
    assert inspect.iscoroutinefunction(kind.__call__)
    assert list(inspect.signature(kind.__call__).parameters) == ["self", "problem", "texts"]
    assert inspect.iscoroutinefunction(kind.steps)


# -- one by one -----------------------------------------------------------------------------------------------------


def test_exact():
    verifier = Exact({"p": "0.5"})
    assert scores(verifier, [r"\boxed{\frac12}", "so 1/2", "2", ""]) == [1, 1, 0, 0]
    with pytest.raises(ScoreError, match="no reference answer for problem 'q'"):
        scores(verifier, ["1"], on=Problem("q", ""))
    with pytest.raises(ScoreError, match="Exact scores whole texts"):
        asyncio.run(verifier.steps(P, ["1"]))


def test_maths_is_symbolic():
    pytest.importorskip("math_verify", reason="pip install 'isoflop[think]'")
    try:
        verifier = Maths({"p": r"\frac{\sqrt{2}}{2}"}, rule="boxed")
        right, wrong = r"\boxed{\frac{1}{\sqrt{2}}}", r"\boxed{\sqrt{2}}"
        assert scores(verifier, [right, wrong, "none", right]) == [1, 0, 0, 1]
        with ThreadPoolExecutor(1) as pool:  # the library's own time-outs work in a main thread only
            assert pool.submit(scores, verifier, [right, wrong]).result() == [1, 0]
        assert scores(Maths({"p": "2X"}, rule="boxed"), [r"\boxed{X + X}"]) == [1]
        assert scores(Maths({"p": "(1,2)"}, rule="boxed"), [r"\boxed{(2,1)}", r"\boxed{(1, 2)}"]) == [0, 1]
    finally:
        close()


def test_regex():
    assert scores(Regex(r"x = \d+"), ["so x = 12", "x = y"]) == [1, 0]
    assert scores(Regex(r"\d+", whole=True), [" 12 ", "12 a"]) == [1, 0]
    assert scores(Regex("^{id}$"), ["p", "q"]) == [1, 0]
    with pytest.raises(ValueError, match="not a regular expression"):
        Regex("(")


def test_json_schema():
    pytest.importorskip("jsonschema", reason="pip install 'isoflop[think]'")
    schema = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
    texts = ['{"x": 1}', 'Here:\n```json\n{"x": 2}\n```', '{"x": "1"}', "no json", ""]
    assert scores(JsonSchema(schema), texts) == [1, 1, 0, 0, 0]
    assert scores(JsonSchema(), ['{"x": 1}'], on=Problem("p", "", {"schema": schema})) == [1]
    with pytest.raises(ScoreError, match="has no schema"):
        scores(JsonSchema(), ["{}"])
    with pytest.raises(ScoreError, match="schema is not one"):
        scores(JsonSchema({"type": "nothing"}), ["{}"])


def test_unit_tests():
    if asyncio.run(_sandbox.isolation()) != _sandbox.NAMESPACES:
        pytest.skip("no user namespaces to shut programs in")
    tests = ["assert f(1) == 2", "assert f(2) == 4"]
    texts = ["```python\ndef f(x): return 2 * x\n```", "```python\ndef f(x): return x + 1\n```", "no code at all"]
    limits = {"seconds": 20}
    assert scores(UnitTests(tests, limits=limits), texts) == [1, 0.5, 0]
    own = Problem("p", "", {"tests": tests})
    assert scores(UnitTests(every=True, limits=limits), texts[:2], on=own) == [1, 0]
    with pytest.raises(ScoreError, match="has no tests"):
        scores(UnitTests(), texts)


def test_a_judge_votes_k_times():
    model = FakeModel(judge=0.9)
    right, wrong = r"\boxed{100}", r"\boxed{11}"
    got = scores(Judge(model, k=60), [right, wrong, right], on=problem())
    assert got[0] == got[2]
    assert abs(got[0] - 0.9) < 4 * math.sqrt(0.09 / 60)
    assert abs(got[1] - 0.1) < 4 * math.sqrt(0.09 / 60)
    assert model.calls == 2
    with pytest.raises(BudgetSpent):
        scores(Judge(FakeModel(budget=0)), [right], on=problem())
    with pytest.raises(ScoreError, match="none of 4 readings"):
        scores(Judge(FakeModel(), template="{problem} what is 100 + 1? {solution}"), [right])


def test_steps_score_every_beginning():
    verifier = Steps(lambda problem, text: 1 / (1 + text.count("bad")), {"aggregate": "min"})
    text = "good\n\nbad\n\n\n\nbad"
    assert asyncio.run(verifier.steps(P, [text])) == [[1, 0.5, pytest.approx(1 / 3)]]
    assert scores(verifier, [text, ""]) == [pytest.approx(1 / 3), 0]
    assert asyncio.run(Steps(Exact({"p": "2"})).steps(P, ["1\n\n2"])) == [[0, 1]]


@given(st.lists(st.text("ab\n ", max_size=6), max_size=6))
def test_beginnings_are_beginnings(parts):
    text = "\n\n".join(parts)
    found = prefixes(text, "\n\n")
    assert all(text.startswith(p) for p in found)
    assert len(found) == sum(bool(part.strip()) for part in text.split("\n\n"))


def test_any_function():
    async def later(problem, text):
        return len(text)

    assert scores(Function(lambda p, t: t == p.id), ["p", "q"]) == [1, 0]
    assert scores(Function(later), ["abc"]) == [3]
    with pytest.raises(ScoreError, match="gave str, not a number, for 'p'"):
        scores(Function(lambda p, t: t), ["a"])


@pytest.fixture
def serve():
    """Run a handler on a local port and a coroutine against it."""
    web = pytest.importorskip("aiohttp.web", reason="pip install 'isoflop[think]'")

    def go(handler, use):
        async def both():
            app = web.Application()
            app.router.add_post("/", handler)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = site._server.sockets[0].getsockname()[1]
            try:
                return await use(f"http://127.0.0.1:{port}/")
            finally:
                await runner.cleanup()

        return asyncio.run(both()), web

    return go


def test_a_reward_server(serve, monkeypatch):
    from aiohttp import web

    monkeypatch.setenv("MY_REWARD_KEY", "hidden")
    asked = []

    async def handler(request):
        body = await request.json()
        asked.append((body, request.headers.get("Authorization")))
        if len(asked) == 1:
            return web.Response(status=503)
        n = len(body["responses"])
        return web.json_response({"scores": [0.0, 1000.0, -1000.0][:n], "steps": [[1, 2]] * n})

    async def use(url):
        verifier = HttpReward(url, model="rm", squash=True, key_env="MY_REWARD_KEY")
        assert "hidden" not in repr(verifier)
        return await verifier(P, ["a", "b", "c"]), await HttpReward(url).steps(P, ["a"])

    (squashed, steps), _ = serve(handler, use)
    assert squashed == [0.5, 1.0, 0.0]
    assert steps == [[1, 2]]
    assert asked[0] == ({"model": "rm", "prompt": P.prompt, "responses": ["a", "b", "c"]}, "Bearer hidden")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({"scores": [1]}, "no 'scores' of 2 entries"),
        ([], "no 'scores'"),
        ({"scores": ["x", 1]}, "gave 'x' for a score"),
    ],
)
def test_a_wrong_reward_reply_is_told_so(serve, reply, says):
    from aiohttp import web

    async def handler(request):
        return web.json_response(reply)

    async def use(url):
        with pytest.raises(ScoreError, match=says):
            await HttpReward(url)(P, ["a", "b"])

    serve(handler, use)


def test_a_reward_server_that_refuses_or_is_not_there(serve):
    from aiohttp import web

    async def handler(request):
        return web.Response(status=401)

    async def use(url):
        with pytest.raises(ScoreError, match="gave no scores: status 401"):
            await HttpReward(url)(P, ["a"])

    serve(handler, use)
    with pytest.raises(ScoreError, match="gave no scores: ClientConnector"):
        asyncio.run(HttpReward("http://127.0.0.1:9/", tries=1)(P, ["a"]))


# -- errors of a verifier -------------------------------------------------------------------------------------------


def labelled(fp, fn, problems, each, seed=0):
    """Texts that say whether they are right and whether a verifier with these rates passes them."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(problems):
        for _ in range(each):
            right = bool(rng.random() < 0.5)
            passed = rng.random() < (1 - fn if right else fp)
            rows.append((Problem(f"p{i}", ""), "pass" if passed else "fail", right))
    return rows


def test_rates_are_measured_with_intervals_that_hold():
    held = 0
    for seed in range(60):
        rates = asyncio.run(measure(Regex("pass"), labelled(0.1, 0.2, 200, 1, seed=seed)))
        low, high = rates.false_positive.interval
        held += (low <= 0.1 <= high) + (rates.false_negative.interval[0] <= 0.2 <= rates.false_negative.interval[1])
        assert rates.false_positive.n + rates.false_negative.n == 200
    assert 0.80 < held / 120 < 0.98


def test_texts_of_one_problem_are_not_independent():
    rows = [(Problem(f"p{i}", ""), "pass" if i % 4 == 0 else "fail", j % 2 == 0) for i in range(20) for j in range(20)]
    rates = asyncio.run(measure(Regex("pass"), rows))
    plain = wilson(0.25, 200, 90)
    assert rates.false_positive.value == 0.25
    assert rates.false_positive.problems == 20
    width = rates.false_positive.interval[1] - rates.false_positive.interval[0]
    assert width > 2.5 * (plain[1] - plain[0])


def test_the_ceiling_is_where_resampling_ends():
    """Resample until the verifier passes: the share of right answers comes to the ceiling, at any budget."""
    rng = np.random.default_rng(1)
    p, fp, fn = 0.2, 0.1, 0.3
    rates = asyncio.run(measure(Regex("pass"), labelled(fp, fn, 4000, 1)))
    top, (low, high) = rates.ceiling(p)
    assert low < limit(p, fp, fn) < high
    right = rng.random((4000, 200)) < p
    passed = np.where(right, rng.random(right.shape) < 1 - fn, rng.random(right.shape) < fp)
    for k in (1, 5, 200):
        taken = passed[:, :k].argmax(1)
        got = (right[np.arange(4000), taken] & passed[:, :k].any(1)).mean()
        assert got == pytest.approx(rates.accuracy(p, k), abs=0.04)
    assert got == pytest.approx(top, abs=0.04)


@given(st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 0.99))
def test_a_better_verifier_has_a_higher_ceiling(p, fp, fn):
    assert 0 <= limit(p, fp, fn) <= 1
    assert limit(p, fp / 2, fn) >= limit(p, fp, fn) - 1e-12
    assert limit(p, 0.0, fn) == 1
    assert limit(p, 1.0, 0.0) == pytest.approx(p)


def test_what_cannot_be_measured_is_told_so():
    with pytest.raises(ValueError, match="has no wrong text"):
        asyncio.run(measure(Regex("a"), [(P, "a", True)]))
    with pytest.raises(ValueError, match="percentage from 1 to 99"):
        asyncio.run(measure(Regex("a"), [], level=0))


@given(st.integers(0, 50), st.integers(1, 50), st.sampled_from([50, 90, 99]))
def test_wilson_holds_the_share(hits, more, level):
    n = hits + more
    low, high = wilson(hits / n, n, level)
    assert 0 <= low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= high <= 1


# -- answers, votes, templates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{\frac{1}{2}} and then \boxed{ \dfrac{3}{4} }.", r"\dfrac{3}{4}"),
        (r"nested \boxed{a_{b_{c}}}", "a_{b_{c}}"),
        (r"cut off \boxed{12", "12"),
        ("reasoning\n#### 1,234", "1,234"),
        ("The answer is 42. Thank you.", "42"),
        ("We get 3 and then 7.5 apples", "7.5"),
        ("Nothing here", None),
        ("", None),
    ],
)
def test_answers_are_found(text, found):
    assert extract(text) == found


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        ("letter", "The answer is (B).", "B"),
        ("line", "a\nb\n", "b"),
        ("text", " a b ", "a b"),
        (r"regex:x=(\d+)", "x=1, x=22", "22"),
        ("regex:[a-c]+", "abc d cab", "cab"),
        ("boxed", "42", None),
    ],
)
def test_rules_of_extraction(rule, text, found):
    assert extract(text, rule=rule) == found


def test_a_wrong_rule_is_told_so():
    with pytest.raises(ValueError, match="no answer rule 'box'"):
        extract("", rule="box")
    with pytest.raises(ValueError, match="not a regular expression"):
        extract("", rule="regex:(")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.50", r"\frac{1}{2}"), (r"\dfrac12", "1/2"), ("1,234", "1234.0"), ("$42$", "42."), (r"\text{Yes}", "yes"),
        (r"\left( 3, 4 \right)", "(3,4)"), (r"90^\circ", "90"), (r"50\%", "50"), ("-2/4", r"-\frac{1}{2}"),
    ],
)  # fmt: skip
def test_answers_in_different_dress_are_one(one, other):
    assert canonical(one) == canonical(other)


def test_answers_that_differ_stay_apart():
    keys = ["1/2", "2", "(1,2)", "(2,1)", "x", "-1", "1", "1,2", "12", "x^2", "x_2", r"\Delta", r"\delta", "2X", "2x"]
    assert len({canonical(k) for k in keys}) == len(keys)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_equal_fractions_have_one_spelling(a, b):
    assert canonical(f"{a}/{b}") == canonical(rf"\frac{{{3 * a}}}{{{3 * b}}}")


@given(st.text(max_size=60))
def test_any_text_has_a_key_or_none(text):
    key = key_of(text)
    assert key is None or (key and canonical(key) == canonical(canonical(key)))


def test_ties_are_decided_by_rule_and_told():
    won = vote(["b", "a", "a", "b", None])
    assert (won.key, won.index, won.tied) == ("b", 0, ("b", "a"))
    assert won.info["tie"] == ["b", "a"]
    assert vote(["b", "a", "a", "b"], tie="last").key == "a"
    assert vote(["b", "a", "a", "b"], tie="least").key == "a"
    assert vote([None, None]).key is None
    with pytest.raises(ValueError, match="no tie rule 'coin'"):
        vote(["a"], tie="coin")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_some_tie_rules_do_not_see_the_order(keys, rng):
    shuffled = list(keys)
    rng.shuffle(shuffled)
    for tie in ("least", "hashed"):
        assert vote(keys, tie=tie).key == vote(shuffled, tie=tie).key
    for tie in TIES:
        won = vote(keys, tie=tie)
        assert keys.count(won.key) == max(map(keys.count, keys))


def test_equal_answers_are_merged_before_a_vote():
    assert merge(["1", None, "1.0", "2"], lambda a, b: float(a) == float(b)) == ["1", None, "1", "2"]


def test_templates_leave_other_braces_alone():
    assert filled(r"{problem} \frac{1}{2} {other}", problem="{n} p") == r"{n} p \frac{1}{2} {other}"


def test_a_template_is_a_text_or_the_path_of_one(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("Look at {solution}")
    assert template_of("see {solution}", "judge", "solution") == "see {solution}"
    assert template_of(own, "judge", "solution") == template_of(str(own), "judge", "solution") == "Look at {solution}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("no field here", r"^judge: the template has no \{solution\}: what the model is to see goes there$"),
        ("{problem} and {soluton}", r"has no \{solution\}"),
        ("missing.txt", r"^judge: the template should stand in missing.txt, but there is no such file$"),
        ("", r"has no \{solution\}"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Judge(FakeModel(), template=given)


def test_a_template_file_that_lacks_a_field_is_named(tmp_path):
    (tmp_path / "bad.md").write_text("nothing")
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe{solution}")
    with pytest.raises(ValueError, match=r"template in .*bad\.md has no \{first\} and no \{second\}"):
        template_of(tmp_path / "bad.md", "tournament", "first", "second")
    with pytest.raises(ValueError, match="cannot be read as text"):
        template_of(tmp_path / "noise.txt", "judge", "solution")


def test_replies_to_the_papers_own_wording_are_read_too():
    assert verdict_of("Step 1 holds.\nVerification: Is the answer correct (Yes/No)? No") is False
    assert verdict_of("Verdict: yes") is True
    assert verdict_of("perhaps") is None
    assert [choice_of(t, 2) for t in ("[[A]]", "so: [[B]]", "[[C]]", "Choice: 2", "A")] == [0, 1, None, 1, None]


def test_verdicts_and_choices_are_read_strictly():
    assert said_yes("Verdict: no ... Verdict: **yes**") is True
    assert said_yes("I say yes") is None
    assert picked("Choice: 2", 3) == 1
    assert picked("Choice: 4", 3) is None
