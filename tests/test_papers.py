"""The papers' catalogue: complete, true about what is here, and with verdicts that are computed."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from isoflop import _find, _paper, _paper_check
from isoflop._paper import Claim, Expect, catalogue, get_paper, slug
from isoflop._paper_check import check, standing
from isoflop._paper_kinds import figures
from isoflop._paper_rows import rows_of

PAPERS = catalogue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return _paper_check.cache_file()


def write(folder, claims, name="mine", head='uses = ["law:power"]'):
    path = folder / f"{name}.toml"
    path.write_text(f'short = "Mine"\ntitle = "T"\ngroup = "g"\nkind = "law"\nwhat = "A test."\n{head}\n{claims}')
    return path


def csv(folder, text, name="runs.csv"):
    (folder / name).write_text(text)
    return name


# ---- the catalogue ---------------------------------------------------------------------------------------------------


def test_every_paper_of_the_list_is_there_once():
    assert sorted(p.id for p in PAPERS if p.id) == list(range(1, 268))
    known = [p.arxiv for p in PAPERS if p.arxiv]
    assert len(set(known)) == len(known)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda p: p.name)
def test_a_file_is_named_as_its_paper_and_names_what_exists(paper):
    assert paper.name == slug(paper.short)
    assert paper.what.endswith(".")
    for used in paper.uses:
        assert _paper.resolve(used) == used
    for claim in paper.claims:
        steps = [claim.settings, claim.settings.get("first"), claim.settings.get("second")]
        for law in (s["law"] for s in steps if isinstance(s, dict) and "law" in s):
            _paper.resolve(f"law:{law}")


def test_every_data_set_backs_a_claim(data):
    backed = {c.data.partition("/")[0] for p in PAPERS for c in p.claims if c.data and not c.own}
    assert {p.name for p in data.iterdir() if p.is_dir()} == backed


def test_every_claim_has_its_file(data):
    missing = {c.data for p in PAPERS for c in p.claims if c.data and not c.own and not (data / c.data).is_file()}
    assert not missing


def test_every_claim_on_own_runs_has_its_file():
    here = ROOT / "isoflop"
    assert not {c.data for p in PAPERS for c in p.claims if c.own and not (here / c.data).is_file()}


def test_own_runs_show_and_public_data_agree(tmp_path, cache):
    """A claim on runs that the package holds needs no folder of data, and its verdict is the weaker word."""
    claim = """[[claim]]\nwords = "w"\nkind = "rows"\ndata = "recorded/python_source/runs.csv"\ncolumn = "loss"
expect = [{ of = "n", value = 49 }, { of = "se / mean", at_most = 0.1 }]\n"""
    paper = get_paper(str(write(tmp_path, claim)))
    assert [r.verdict for r in check([paper])["mine"]] == ["shown"]


def test_a_paper_with_claims_has_no_reason_for_having_none(tmp_path):
    with pytest.raises(ValueError, match="why is for a paper of which nothing was tried"):
        get_paper(str(write(tmp_path, "[[claim]]\nwords = 'w'\nkind = 'planted'\nlaw = 'power'", head='why = "x"')))
    assert get_paper(str(write(tmp_path, "", head='why = "Needs images."'))).why == "Needs images."


def test_the_table_in_the_documents_is_up_to_date():
    text = (ROOT / "docs" / "papers.md").read_text()
    assert _paper.markdown(PAPERS) in text, "paste what `isoflop papers --markdown` prints into docs/papers.md"
    assert all(f"| `{kind}` |" in text for kind in _paper.KINDS)


def test_the_paper_in_the_documents_agrees(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "papers.md").read_text()
    exec(text.partition("```python\n")[2].partition("```")[0], {})


@given(st.text(max_size=40))
def test_a_name_is_its_own_name(text):
    assert slug(slug(text)) == slug(text)


def test_a_search_needs_every_word():
    assert {p.name for p in catalogue("chinchilla replication")} >= {"chinchilla_replication"}
    assert not catalogue("chinchilla zebra-fish")
    assert {p.group for p in catalogue(group="theory")} == {"theory"}
    with pytest.raises(LookupError, match="no group 'laws'; there are activations, "):
        catalogue(group="laws")


def test_a_paper_is_found_by_name_number_and_arxiv_id():
    assert get_paper("parscale") == get_paper("148") == get_paper("2505.10475")
    with pytest.raises(LookupError, match=r"no paper named 'parscal'; did you mean parscale\? \(isoflop papers\)"):
        get_paper("parscal")
    with pytest.raises(LookupError, match=r"no file 'nowhere\.toml'"):
        get_paper("nowhere.toml")


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ("id = ", "not a TOML file"),
        ("years = 3", "no key 'years'"),
        ("[[claim]]\nwords = 'w'\nkind = 'guess'", "claim 1: kind is one of fit, "),
        ("[[claim]]\nwords = 'w'\nkind = 'fit'\nlaw = 'power'", "claim 1 needs data"),
        ("[[claim]]\nwords = 'w'\nkind = 'fit'\nlaw = 'power'\ndata = 'a'\naxes = 'x'", "did you mean axis"),
        ("[[claim]]\nwords = 'w'\nkind = 'fit'\nlaw = 'power'\ndata = 'a'", "kind 'fit' needs expect"),
        ("[[claim]]\nwords = 'w'\nkind = 'planted'\nlaw = 'power'\nverdict = 'agrees'", "no key 'verdict'"),
        ("[[claim]]\nwords = 'w'\nkind = 'planted'\nlaw = 'power'\nexpect = [{ of = 'A' }]", "takes no expect"),
        ("[[claim]]\nwords = 'w'\nkind = 'rows'\ncolumn = 'a'\ndata = 'a'\nexpect = [{ of = 'n' }]", "needs value"),
    ],
)
def test_a_wrong_file_is_told_so(tmp_path, claims, says):
    with pytest.raises(ValueError, match=says):
        get_paper(str(write(tmp_path, claims)))


def test_what_is_used_must_exist(tmp_path):
    with pytest.raises(ValueError, match=r"uses 'power'; write one of law, "):
        get_paper(str(write(tmp_path, "", head='uses = ["power"]')))
    for wrong in ("law:powr", "lever:think/majorty", "verb:fits"):
        with pytest.raises(LookupError, match="which a paper says it uses"):
            _paper.resolve(wrong)
    assert _paper.resolve("lever:think/majority")
    assert _paper.resolve("verb:list")


# ---- verdicts --------------------------------------------------------------------------------------------------------

FIT = """
[[claim]]
words = "half"
kind = "fit"
data = "runs.csv"
law = "power"
axis = "N"
expect = [{ of = "alpha", value = VALUE, within = 0.01 }, { of = "2 * alpha", at_most = 1.02 }]
"""
POWER = "N,loss\n" + "".join(f"{n},{3 * n**-0.5}\n" for n in (1, 2, 4, 8, 16))


def test_a_verdict_is_computed_and_kept_while_nothing_changes(tmp_path, cache, monkeypatch):
    csv(tmp_path, POWER)
    paper = get_paper(str(write(tmp_path, FIT.replace("VALUE", "0.5"))))

    def verdict(paper, **how):
        (result,) = check([paper], data=tmp_path, **how)["mine"]
        return result.verdict

    assert verdict(paper, run=False) == "unchecked"
    assert verdict(paper) == "agrees"
    assert verdict(paper, run=False) == "agrees"
    wrong = get_paper(str(write(tmp_path, FIT.replace("VALUE", "0.6"))))
    assert verdict(wrong, run=False) == "differs"  # judged again, not run again
    csv(tmp_path, POWER.replace("16,", "17,"))
    assert verdict(paper, run=False) == "unchecked"
    monkeypatch.setattr(_paper_check, "_machinery", lambda: "another version")
    csv(tmp_path, POWER)
    assert verdict(paper, run=False) == "unchecked"
    cache.write_text("{broken")
    assert verdict(paper) == "agrees"
    (kept,) = json.loads(cache.read_text())["claims"].values()
    assert kept["figures"]["alpha"] == pytest.approx(0.5)


def test_nothing_is_computed_twice_and_every_change_is_seen(tmp_path, cache, monkeypatch):
    ran = []
    real, hashed = _paper_check._safely, _paper_check._file_hash
    monkeypatch.setattr(_paper_check, "_safely", lambda claim, folder: ran.append(claim.words) or real(claim, folder))

    def runs(text, name="mine"):
        """The words of the claims that were run."""
        ran.clear()
        check([get_paper(str(write(tmp_path, text, name)))], data=tmp_path)
        return list(ran)

    csv(tmp_path, POWER)
    planted = '[[claim]]\nwords = "planted"\nkind = "planted"\nlaw = "sigmoid"\n'
    both = FIT.replace("VALUE", "0.5") + planted
    assert runs(both) == ["half", "planted"]
    assert runs(both) == []
    assert runs(both, "another") == []  # the same claims, whoever makes them
    assert runs(both.replace("within = 0.01", "within = 0.001").replace('"half"', '"a half"')) == []
    assert runs(both.replace('law = "power"', 'law = "power"\nwhere = "N > 1"')) == ["half"]
    csv(tmp_path, POWER.replace("16,", "17,"))
    assert runs(both) == ["half"]
    changed = lambda path: hashed(path) + "new" * (path.name == "sigmoid.py")  # noqa: E731
    monkeypatch.setattr(_paper_check, "_file_hash", changed)
    assert runs(both) == ["planted"]
    monkeypatch.setattr(_paper_check, "_machinery", lambda: "another version")
    assert runs(both) == ["half", "planted"]


def test_every_theory_is_simulated_or_says_why_not():
    silent = [p.name for p in PAPERS if (p.group, p.kind) == ("theory", "simulator") and not (p.claims or p.why)]
    assert not silent
    shown = {c.settings["name"] for p in PAPERS for c in p.claims if c.kind == "theory"}
    assert shown == set(_find.names("theory"))


def test_what_cannot_be_had_or_run_is_said(tmp_path, cache):
    wrong = FIT.replace("VALUE", "0.5").replace('"N"', '"M"')
    unread = FIT.replace("VALUE", "0.5").replace('"alpha"', '"alfa"')
    paper = get_paper(str(write(tmp_path, wrong + unread)))
    for result in check([paper])["mine"]:
        assert (result.verdict, result.note) == ("no data", "runs.csv is not here; set ISOFLOP_DATA")
    csv(tmp_path, POWER)
    first, second = check([paper], data=tmp_path)["mine"]
    assert first.verdict == second.verdict == "differs"
    assert "could not be run" in first.note
    assert "M" in first.note
    assert "alfa" in second.note


def test_a_file_outside_the_data_is_not_read(tmp_path):
    (tmp_path / "data").mkdir()
    csv(tmp_path, POWER)
    with pytest.raises(ValueError, match="lies outside"):
        rows_of({"data": "../runs.csv"}, tmp_path / "data")


def test_planted_laws_and_simulators_recover(tmp_path, cache):
    claims = '[[claim]]\nwords = "w"\nkind = "planted"\nlaw = "power"\n'
    (result,) = check([get_paper(str(write(tmp_path, claims)))])["mine"]
    assert result.verdict == "recovers"
    assert "2 planted coefficients" in result.note


def test_a_law_that_does_not_recover_differs(tmp_path, cache):
    path = tmp_path / "flat.py"
    path.write_text(
        "from isoflop import law, positive\n@law()\ndef flat(x, *, A=positive(1, 9), B=positive(1, 9)):\n"
        "    '''L = A B / x'''\n    return A * B / x\n"
    )
    claims = f'[[claim]]\nwords = "w"\nkind = "planted"\nlaw = "{path.as_posix()}:flat"\n'
    (result,) = check([get_paper(str(write(tmp_path, claims)))])["mine"]
    assert result.verdict == "differs"
    assert "came back as" in result.note


def test_a_paper_stands_as_its_worst_claim():
    results = {v: _paper_check.Result(Claim("w", "planted", {}), v) for v in _paper_check.VERDICTS}
    assert standing([]) == "not attempted"
    assert standing([results["agrees"], results["no data"], results["recovers"]]) == "agrees"
    assert standing([results["recovers"], results["no data"]]) == "recovers"
    assert standing(results.values()) == "differs"


@given(st.floats(-1e6, 1e6), st.floats(0, 10), st.floats(-20, 20))
def test_a_figure_holds_within_its_tolerance(value, within, off):
    expected = Expect("x", value=value, within=within)
    assert expected.holds(value + off) == (abs(value + off - value) <= within)
    assert Expect("x", at_least=value, at_most=value + within).holds(value + off) == (
        value <= value + off <= value + within
    )


def test_expected_figures_in_words():
    assert str(Expect("x", value=0.5, within=0.01)) == "0.5 +- 0.01"
    assert str(Expect("x", at_least=1, at_most=2)) == "at least 1 and at most 2"
    assert str(Expect("x", one_of=("falling", "flat"))) == "falling or flat"
    assert not Expect("x", one_of=("falling",)).holds("rising")


# ---- kinds and rows --------------------------------------------------------------------------------------------------


def test_rows_are_derived_kept_and_reduced(tmp_path):
    data = csv(tmp_path, "run,step,lr,loss,c\na,10,4,3,1\na,20,4,2,1\nb,10,4,5,1\nb,20,2,1,1\nb,30,2,,1\n")

    def found(column, **more):
        return figures("rows", {"data": data, "column": column, **more}, tmp_path)

    assert found("loss")["mean"] == 11 / 4  # a missing cell is no number
    assert found("loss", where="run == 'a'", sort="step")["last"] == 2
    assert found("half", derive={"half": "loss / 2"})["sum"] == 5.5
    assert found("loss", lowest={"of": "loss", "by": "run"})["sum"] == 3
    assert found("loss - best", group_low={"best": {"of": "lr", "by": ["run"]}})["low"] == -2
    assert found("loss", front={"cost": "step", "metric": "loss"})["n"] == 2
    mean = {"by": "run", "along": "step", "count": 2, "keep": ["step"]}
    assert found("loss", where="step < 30", last_mean=mean)["mean"] == (2.5 + 3) / 2
    assert found("step", where="step < 30", last_mean=mean)["mean"] == 20
    ramp = {"by": "run", "along": "step", "column": "lr", "over": 8, "empty": "loss"}
    assert found("lr", ramp=ramp)["n"] == 9
    assert found("lr", ramp=ramp)["low"] == 0.5
    assert found("loss", ramp=ramp)["n"] == 4


def test_coverage_and_votes_by_hand(tmp_path):
    data = csv(tmp_path, "n,c\n4,1\n4,3\n")
    found = figures("pass_at_k", {"data": data, "ks": [1, 2], "line_at": 2}, tmp_path)
    assert found["pass_1"] == pytest.approx(0.5)
    assert found["pass_2"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["line"] == pytest.approx(found["pass_2"])  # two points lie on their line
    rows = "p,answer,correct,score\n1,x,0,.1\n1,y,1,.9\n1,y,1,.2\n2,x,0,.3\n2,y,1,.1\n2,,0,.9\n" + 3 * "3,,0,0\n"
    how = {"data": csv(tmp_path, rows), "unit": "p", "first": 3}
    found = figures("votes", how, tmp_path)
    assert (found["problems"], found["coverage"]) == (3, pytest.approx(2 / 3))
    assert found["majority"] == pytest.approx(1 / 3)  # the second problem's tie goes to the first seen, which is wrong
    assert found["best"] == found["weighted"] == pytest.approx(1 / 3)
    assert found["silent"] == pytest.approx((0 + 1 / 3 + 1) / 3)
    assert {"best", "weighted"}.isdisjoint(figures("votes", how | {"rename": {"score": "mark"}}, tmp_path))
    early = figures("votes", how | {"stop": 1.0}, tmp_path)  # any risk is taken: the first answer is the last
    assert early["drawn"] < 3


def test_tokens_and_forecasts_from_few_samples(tmp_path):
    rows = "p,answer,correct,score,gen_tokens\n1,x,1,.1,10\n1,y,0,.9,30\n2,x,0,.3,10\n2,x,0,.1,20\n"
    how = {"data": csv(tmp_path, rows), "unit": "p", "first": 2, "score_cost": 1.0}
    found = figures("votes", how, tmp_path)
    assert (found["tokens"], found["tokens_best"]) == (35, 70)
    counts = csv(tmp_path, "model,n,c\n" + "".join(f"{m},1000,{c}\n" for m in "ab" for c in (0, 3, 30, 300)))
    few = {"samples": 1000, "at": 100, "by": "model", "repeats": 2}
    found = figures("pass_at_k", {"data": counts, "ks": [1], "few": few}, tmp_path)
    assert found["missed"] == pytest.approx(0, abs=1e-9)  # all samples are drawn again
    assert found["held"] == 1


def test_published_coefficients_forecasts_and_chains(tmp_path):
    x = np.geomspace(1, 64, 7)
    rows = "".join(f"{a},{3 * a**-0.5},{0.9 - 0.5 * np.exp(-3 * a**-0.5)}\n" for a in x)
    data = csv(tmp_path, "x,loss,error\n" + rows)
    power = {"data": data, "law": "power", "axis": "x"}
    right = figures("published", power | {"coef": {"A": 3.0, "alpha": 0.5}}, tmp_path)
    assert right["r2"] == pytest.approx(1)
    assert figures("published", power | {"coef": {"A": 3.3, "alpha": 0.5}}, tmp_path)["error"] == pytest.approx(0.1)
    by = {"by": "half", "derive": {"half": "log10(x) // 1"}, "coef": {"A": 3.3, "alpha": 0.5}}
    assert figures("published", power | by, tmp_path)["error"] == pytest.approx(0.1)  # the mean over series
    ahead = figures("forecast", power | {"hold_out": "x > 20"}, tmp_path)
    assert ahead["held"] == 2
    assert ahead["error"] < 1e-6
    steps = {"first": {"law": "power", "axis": "x", "fit": "x < 20"}, "second": {"law": "task_error", "fit": "x < 20"}}
    found = figures("chain", {"data": data, "target": "error", "at": {"x": 64.0}, **steps}, tmp_path)
    assert found["predicted"] == pytest.approx(0.9 - 0.5 * np.exp(-3 / 8), abs=1e-3)


def test_a_forecast_of_series_is_averaged_over_them(tmp_path):
    rows = "".join(
        f"{r},{n},{(3 if n < 9 else up) * n**-0.5}\n" for r, up in (("a", 3.3), ("b", 3)) for n in (1, 4, 16)
    )
    how = {"data": csv(tmp_path, "run,x,loss\n" + rows), "law": "power", "by": "run", "hold_out": "x > 9"}
    found = figures("forecast", how, tmp_path)
    assert found["series"] == 2
    assert found["run_error"] == pytest.approx((1 - 1 / 1.1) / 2, rel=1e-4)
    assert found["rmsle"] == pytest.approx(np.log(1.1) / 2, rel=1e-4)
    assert figures("forecast", {**how, "target": "loss", "rivals": ["growth"]}, tmp_path)["best"] == 1
    assert figures("forecast", {**how, "rivals": ["power"]}, tmp_path)["best"] == 0  # it is no better than itself


# ---- on public data, and from the shell ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["parscale", "step_law", "observational_scaling_laws", "cruxeval", "forest_of_thought", "tree_of_thoughts",
     "over_training_laws_gadre", "kaplan_vs_chinchilla_resolved", "openclip_scaling_laws", "ttspm_scaling_pareto"],
)  # fmt: skip
def test_papers_on_public_data_agree(data, cache, name):
    paper = get_paper(name)
    for result in check([paper], data=data)[name]:
        assert result.verdict == ("agrees" if result.claim.data else "recovers"), result


def test_from_the_shell(run, tmp_path, monkeypatch, cache):
    monkeypatch.delenv("ISOFLOP_DATA", raising=False)
    found = run.json("papers", "parallel streams")
    assert [p["verdict"] for p in found["papers"]] == ["unchecked"]
    assert f"{len(PAPERS)} papers: " in run("papers").stdout
    assert run("papers", "--group", "theory", "--markdown").stdout.startswith("| | paper |")
    whole = run.json("paper", "parscale")
    assert [c["verdict"] for c in whole["claims"]] == ["no data", "no data", "recovers"]
    assert run.json("papers", "parallel streams", "--check")["count"] == {"recovers": 1}
    csv(tmp_path, POWER)
    path = write(tmp_path, FIT.replace("VALUE", "0.6") + 'because = "It is half."\n')
    text = run("paper", path, "--data", tmp_path, code=1).stdout
    assert "alpha: expected 0.6 +- 0.01, found 0.5" in text
    assert "why: It is half." in text
    assert run("paper", "nonsense", code=2).stderr.startswith("isoflop: no paper named")
