"""The report and its figures: they render, they change nothing global, and hostile names do nothing."""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import isoflop
from isoflop import _curves
from isoflop._isoflops import isoflops
from isoflop._report import report

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
from isoflop import _figures  # noqa: E402

HOSTILE = (
    """</script><script>document.title='owned'</script><img src=x onerror="document.title='owned'">$x_{@ink %{x}"""
)
BUDGETS = [1e14, 3e15]


def planted(seed=0, noise=0.006):
    """Runs of a Chinchilla law at six budgets, nine sizes."""
    rng, rows = np.random.default_rng(seed), []
    for c in (3e10, 1e11, 3e11, 1e12, 3e12, 1e13):
        for n in (7e3, 1.1e4, 2.3e4, 4e4, 8.5e4, 1.7e5, 3.7e5, 5e5, 8.2e5):
            if 0.6 < c / (6 * n * n) < 600:
                loss = (0.9 + 60 / n**0.42 + 120 / (c / 6 / n) ** 0.38) * np.exp(noise * rng.normal())
                rows.append({"run": f"{n:g}-{c:g}", "params": n, "tokens": c / 6 / n, "flops": c, "loss": loss})
    return {k: [row[k] for row in rows] for k in rows[0]}


def part(table, keep):
    return {k: [v for v, yes in zip(values, keep, strict=True) if yes] for k, values in table.items()}


TABLE = planted()
FITTED = part(TABLE, [n < 6e5 for n in TABLE["params"]])
HELD = part(TABLE, [n > 6e5 for n in TABLE["params"]])


@pytest.fixture(scope="module")
def fit():
    return isoflop.fit("chinchilla", FITTED)


@pytest.fixture(scope="module")
def full(fit):
    return report(fit, FITTED, held_out=HELD, budgets=BUDGETS, title="Planted ladder")


@pytest.fixture(scope="module")
def planted_page(full, tmp_path_factory):
    return full.html(tmp_path_factory.mktemp("page") / "planted.html")


@pytest.fixture(scope="module")
def page(planted_page):
    return planted_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    n = len(FITTED["loss"])
    table = {"params": FITTED["params"], HOSTILE: FITTED["tokens"], "loss": FITTED["loss"]}
    table |= {"run": [f"{HOSTILE}{k}" for k in range(n)], "<b>note</b>": [HOSTILE] * n}
    found = isoflop.fit("chinchilla", table, axis={"tokens": HOSTILE}, draws=20)
    made = report(replace(found, warnings=(HOSTILE,)), table, held_out=table, title=HOSTILE)
    return made.html(tmp_path_factory.mktemp("page") / "hostile.html")


# ---- figures ---------------------------------------------------------------------------------------------------------

PANELS = {
    "loss_vs_compute": lambda fit: _figures.loss_vs_compute(fit, FITTED, held_out=HELD),
    "isoflop_curves": lambda fit: _figures.isoflop_curves(
        fit, FITTED, isoflops=isoflops(FITTED), held_out=HELD, band=True
    ),
    "isoflop_budgets": lambda fit: _figures.isoflop_curves(fit, FITTED, budgets=[1e12, 3e11]),
    "parabolas": lambda fit: _figures.isoflop_curves(isoflops(FITTED), FITTED),
    "residuals": lambda fit: _figures.residuals(fit, FITTED, x="tokens", held_out=HELD),
    "residual_panels": lambda fit: _figures.residual_panels(fit, FITTED),
    "forecast_vs_truth": lambda fit: _figures.forecast_vs_truth(fit, HELD),
}


@pytest.mark.parametrize("name", PANELS)
def test_a_figure_renders_and_leaves_matplotlib_as_it_was(name, fit, tmp_path):
    from matplotlib.image import imread

    before = dict(matplotlib.rcParams)
    path = _figures.save(PANELS[name](fit), tmp_path / f"{name}.png")
    assert dict(matplotlib.rcParams) == before
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 400
    assert 0.01 < (pixels < 0.98).any(axis=2).mean() < 0.6  # neither blank nor blotted out
    assert len(np.unique((pixels * 15).astype(int) @ [1, 16, 256])) > 8


def test_importing_the_report_loads_no_extra_and_drawing_no_pyplot(tmp_path):
    code = (
        "import sys, isoflop._report\n"
        "assert not {'matplotlib', 'plotly', 'pandas'} & sys.modules.keys()\n"
        "from isoflop import _figures as f\n"
        "t = {'x': [1, 2, 4, 8, 16, 32], 'loss': [3, 2.5, 2.2, 2.0, 1.9, 1.8]}\n"
        "f.save(f.one_axis(isoflop.fit('power', t, draws=0), t), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], timeout=60, check=True)


def test_the_same_figure_is_the_same_file(fit, tmp_path):
    for kind in ("png", "svg"):
        one, two = (_figures.save(_figures.residuals(fit, HELD), tmp_path / f"{k}.{kind}").read_bytes() for k in "ab")
        assert one == two


def test_save_names_the_kinds_it_can_write_and_leaves_nothing_behind(fit, tmp_path):
    with pytest.raises(ValueError, match=r"cannot write 'a.bmp': figures are saved as .png, .svg, .pdf"):
        _figures.save(PANELS["forecast_vs_truth"](fit), tmp_path / "a.bmp")
    assert list(tmp_path.iterdir()) == []


def test_a_panel_is_drawn_on_the_axes_it_is_given(fit):
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2)
    assert _figures.residuals(fit, FITTED, ax=right) is right
    assert not left.lines


def test_a_column_name_is_never_read_as_a_formula(tmp_path):
    x = np.geomspace(1, 1e3, 12)
    table = {HOSTILE: x, "loss": 1 + 3 * x**-0.3, "run": [f"{HOSTILE}{k}" for k in range(12)]}
    found = isoflop.fit("power_offset", table, axis=HOSTILE, draws=20)
    paths = report(found, table, title=HOSTILE).figures(tmp_path)
    assert [path.name for path in paths] == ["one_axis.png", "residuals.png"]


def test_the_frontier_drawn_is_what_allocate_says(fit):
    ax = _figures.loss_vs_compute(fit, FITTED)
    line = next(line for line in ax.lines if str(line.get_label()).startswith("best at each budget"))
    budget, loss = line.get_xdata()[3], line.get_ydata()[3]
    assert loss == pytest.approx(isoflop.allocate(fit, flops=float(budget))["loss"].best, rel=1e-9)


def test_both_minima_lie_where_they_were_planted(fit):
    rows = _curves.rows_of(fit, FITTED)
    for piece in _curves.slices(rows)[:-1]:
        best, _ = _curves.slice_minimum(_curves.slice_curve(fit, piece, rows))
        assert best == pytest.approx(isoflop.allocate(fit, flops=piece.cost)["params"].best, rel=2e-3)


@pytest.mark.parametrize(("library", "call", "line"), [
    ("matplotlib", lambda r, path: r.figures(path), "figures need matplotlib: pip install 'isoflop[plot]'"),
    ("plotly.offline", lambda r, path: r.html(path / "a.html"), "the HTML report needs plotly: pip install 'isoflop"),
])  # fmt: skip
def test_a_missing_library_prints_its_install_line(library, call, line, full, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=re.escape(line)):
        call(full, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- what the report says --------------------------------------------------------------------------------------------


def test_the_text_holds_the_verdict_the_plans_and_the_doubts(full):
    text = full.text()
    assert re.search(r"Forecasts of 2 held-out rows \(up to 1.6 times the largest fitted params\) were off by", text)
    best = isoflop.allocate(full.fit, flops=1e14)
    assert f"1e14   {_curves.amount('params', best['params'].median)} (" in text
    assert "note: IsoFLOP profiles: budget 1e+13" in text or "note:" not in text
    assert len(text.splitlines()) < 40


def test_the_dictionary_is_json_and_repeats(full, fit):
    once = json.dumps(full.to_dict(), allow_nan=False)
    again = report(fit, FITTED, held_out=HELD, budgets=BUDGETS, title="Planted ladder")
    assert json.dumps(again.to_dict(), allow_nan=False) == once
    whole = json.loads(once)
    assert list(whole) == ["format", "isoflop", "title", "fit", "held_out", "plans", "frontier", "isoflops", "meter",
                           "fixed", "warnings"]  # fmt: skip
    assert [p["budget"] for p in whole["plans"]] == BUDGETS
    allocated = isoflop.allocate(fit, flops=BUDGETS[0])["tokens"]
    assert whole["plans"][0]["law"]["tokens"]["median"] == allocated.median
    assert whole["plans"][0]["law"]["tokens"]["interval"] == list(allocated.interval(90))
    first = whole["held_out"][0]
    point = {"params": HELD["params"][0], "tokens": HELD["tokens"][0]}
    assert first["forecast"]["median"] == fit.forecast(**point)["loss"].median
    assert first["measured"] == HELD["loss"][0]


def test_rows_that_are_not_the_fitted_ones_are_said_to_be_others(fit):
    said = f"these {len(TABLE['loss'])} rows are not the {fit.n} rows that the fit was made of"
    assert report(fit, TABLE).notes[0].startswith(said)


def test_held_out_rows_that_were_fitted_are_found(fit):
    both = {k: [*HELD[k], FITTED[k][0]] for k in HELD}
    assert any(
        n.startswith("1 of 3 held-out rows are also among the fitted") for n in report(fit, FITTED, held_out=both).notes
    )


def test_a_cost_that_the_meter_does_not_count_is_said(fit):
    table = {**FITTED, "flops": [3 * c for c in FITTED["flops"]]}
    assert any("the table's flops are 3 times what meter train_flops counts" in n for n in report(fit, table).notes)


def test_without_draws_nothing_has_an_interval(tmp_path):
    found = isoflop.fit("chinchilla", FITTED, draws=0)
    made = report(found, FITTED, held_out=HELD, budgets=[1e14])
    assert [c.inside(90) for c in made.checks] == [None, None]
    assert "nan" not in made.text().split("\n\n", 3)[-1]
    assert [name for name, _ in made._panels()] == [
        "loss_vs_compute",
        "isoflop_curves",
        "residuals",
        "forecast_vs_truth",
    ]
    json.dumps(made.to_dict(), allow_nan=False)
    assert ">nan<" not in made.html(tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_law_of_one_column_plans_in_that_column(tmp_path):
    found = isoflop.fit("power_offset", FITTED, axis="flops")
    made = report(found, FITTED, held_out=HELD, budgets=[1e15])
    assert made.plans[0].law["loss"].median == found.forecast(flops=1e15, kind="law")["loss"].median
    assert [name for name, _ in made._panels()] == ["one_axis", "residuals", "forecast_vs_truth"]
    assert "plot-curve" in made.html(tmp_path / "a.html").read_text(encoding="utf-8")


def test_what_cannot_be_had_is_a_note():
    table = {**FITTED, "unique": [t / 2 for t in FITTED["tokens"]]}
    law = isoflop.law(target="loss")(_with_unique)
    found = isoflop.fit(law, table, draws=20)
    made = report(found, table, budgets=[1e14])
    assert not made.plans
    assert not made.frontier
    assert any(n.startswith("no plans: hold column 'unique' fixed") for n in made.notes)
    held = report(found, table, budgets=[1e14], fixed={"unique": 1e7})
    assert "unique held at 10M" in held.text()
    assert held.plan_grid().header == ("flops", "params", "tokens", "loss")


def _with_unique(params, tokens, unique, *, A=isoflop.positive(1, 1e5), B=isoflop.positive(1, 1e5),
                 alpha=isoflop.positive(0.05, 1.5)):  # fmt: skip
    """L = A / N^alpha + B / (D U)^alpha"""
    return A * params**-alpha + B * (tokens * unique) ** -alpha


@pytest.mark.parametrize(("value", "words"), [
    (999.6, "1K"), (1234567, "1.23M"), (7e10, "70B"), (1e15, "1e+15"), (12, "12"), (0.00012, "0.00012"), (0, "0"),
])  # fmt: skip
def test_counts_are_written_as_people_do(value, words):
    assert _curves.human(value) == words


@pytest.mark.parametrize(("value", "words"), [(6e18, "6 × 10¹⁸"), (1e24, "10²⁴"), (2.5e-7, "2.5 × 10⁻⁷"), (120, "120")])
def test_compute_is_written_in_powers_of_ten(value, words):
    assert _curves.sci(value) == words


def test_the_budget_grid_is_round_and_covers_its_span():
    grid = _curves.budget_grid(3.2e10, 1.1e13, [4.4e12])
    assert min(grid) <= 3.2e10 < 1.1e13 <= max(grid)
    assert 4.4e12 in grid
    assert {f"{b:.1e}"[:3] for b in grid} <= {"1.0", "1.5", "2.0", "3.0", "5.0", "7.0", "4.4"}


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "report.md"
    exec(re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)[1], {})
    assert {path.name for path in tmp_path.iterdir()} == {"figures", "report.html"}


# ---- the page --------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """All start tags with their attributes, texts outside scripts, and scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.scripts, self.open = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] in ("script", "style") else self.words).append(data)


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_page_parses_and_loads_nothing(page):
    found = Tags(page)
    assert found.open == []
    for tag, attrs in found.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "a")
        assert not {"src", "href", "srcset", "action", "data", "poster", "ping"} & attrs.keys()
        assert not any(name.startswith("on") for name in attrs)
        assert "url(" not in (attrs.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert not re.search(r"@import|url\(", style)


def test_the_page_allows_its_own_two_scripts_and_no_request(page):
    policy = next(a["content"] for _, a in Tags(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(None, 1) for rule in policy.split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert rules["script-src"].split() == hashes
    assert (rules["default-src"], rules["form-action"], rules["base-uri"]) == ("'none'", "'none'", "'none'")
    assert rules["img-src"] == "data: blob:"


def test_the_page_says_what_the_report_says(page, full):
    words = " ".join(Tags(page).words)
    for heading in ("Planted ladder", "The law", "Forecast against truth", "What a budget buys", "At equal compute"):
        assert heading in words
    for fact in (full.fit.made["data_hash"], f"isoflop {isoflop.__version__}", "case bootstrap, seed 0"):
        assert fact in words
    assert all(doubt.split()[0] in words for doubt in full.doubts)
    assert [f["id"] for f in embedded(page)["figures"]] == ["compute", "isoflop", "truth", "residuals"]


def test_budgets_on_the_page_are_what_allocate_says(page, full):
    marks = {mark["budget"]: mark for mark in embedded(page)["budgets"]}
    assert set(BUDGETS) <= marks.keys()
    assert len(marks) > 20
    for budget in [BUDGETS[1], 2e12]:
        answer = isoflop.allocate(full.fit, flops=budget)
        for shown in marks[budget]["parts"]:
            assert shown["median"] == answer[shown["name"]].median
            assert shown["interval"] == list(answer[shown["name"]].interval(90))
            assert shown["text"] == _curves.amount(shown["name"], shown["median"])


def test_hostile_names_are_words_on_the_page(hostile_page):
    page = hostile_page.read_text(encoding="utf-8")
    found = Tags(page)
    assert [tag for tag, _ in found.tags].count("script") == 3
    assert "img" not in {tag for tag, _ in found.tags}
    assert "".join(found.words).count("<img src=x onerror") > 10
    for figure in embedded(page)["figures"]:
        hover = [text for trace in figure["data"] for text in trace.get("hovertext", [])]
        assert not any("<script" in text or "<img" in text for text in hover)


def test_a_page_appears_whole_or_not_at_all(full, tmp_path, monkeypatch):
    from isoflop import _html

    monkeypatch.setattr(_html, "page", lambda report: "a" * 10 + chr(0xD800))
    full.html(tmp_path / "a.html")  # a lone surrogate has no UTF-8 form: it is written as its escape
    monkeypatch.setattr(_html, "page", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        full.html(tmp_path / "b.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
@pytest.mark.parametrize("kind", ["planted", "hostile"])
def test_a_browser_draws_the_page_without_complaint(kind, planted_page, hostile_page, tmp_path):
    path = planted_page if kind == "planted" else hostile_page
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
             "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000"]  # fmt: skip
    done = subprocess.run([BROWSER, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    drawn = done.stdout
    figures = len(embedded(path.read_text(encoding="utf-8"))["figures"])
    assert f'data-drawn="{figures}"' in drawn
    assert drawn.count('class="plot js-plotly-plot"') == figures
    assert "<title>owned</title>" not in drawn
    if kind == "planted":
        label = re.search(r'<output id="budget-label"[^>]*>([^<]*)</output>', drawn)[1]
        assert label == f"{_curves.sci(BUDGETS[0])} FLOP"
