"""Notebook displays, `.plot()`, and frames in and out."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from conftest import planted_table
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop._answer import Answer, Quantity
from isoflop._columns import plain
from isoflop._display import Sheet
from isoflop._league import League, Score

HOSTILE = '<script>alert("1")</script>|`x`\n**b** $a$'
TAGS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "ul", "li"}
ATTRIBUTES = {"style", "scope", "role", "tabindex", "aria-label"}


class Parsed(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def check_harmless(page):
    found = Parsed(page)
    assert found.tags <= TAGS
    assert {name for name, _ in found.attributes} <= ATTRIBUTES
    styles = " ".join(value for name, value in found.attributes if name == "style")
    assert not re.search(r"url|expression|#[0-9a-f]{3}|rgb\(", styles)  # nothing is fetched, no colour is fixed
    return found


@pytest.fixture(scope="module")
def fit():
    return isoflop.fit("chinchilla", planted_table(), draws=20)


@pytest.fixture(scope="module")
def one():
    x = np.geomspace(1e3, 1e6, 12)
    runs = {HOSTILE: x, "loss": 1.5 + 20 * x**-0.3 * np.exp(0.002 * np.random.default_rng(0).standard_normal(12))}
    return runs, isoflop.fit("power_offset", runs, axis=HOSTILE, draws=20)


@pytest.fixture(scope="module")
def shown(fit, one):
    """One result of every kind, with hostile names where names are the user's."""
    answer = Answer({HOSTILE: Quantity(1.0, np.linspace(0.9, 1.1, 30))}, (90, 50), (HOSTILE,))
    score = Score(HOSTILE, "auto", 3, 1, 1.0, 2.0, 0.5, 0.5, 0.9, 3.0, 4.0, 0, 0.1)
    return {
        "Fit": fit,
        "Fit of a hostile column": one[1],
        "Stack": isoflop.fit("auto", one[0], axis=HOSTILE),
        "forecast": fit.forecast(params=1e10, tokens=1e12, level=[90, 50]),
        "allocation": isoflop.allocate(fit, flops=1e22),
        "Plan": isoflop.plan({HOSTILE: fit, "other": fit}, flops=1e22),
        "NextRuns": isoflop.next_runs(fit, budget={"flops": 1e20}, about={"flops": 1e22}, k=2),
        "Answer": answer,
        "Ranking": isoflop.compare(["chinchilla", "kaplan"], planted_table(), draws=10),
        "League": League((score,), (HOSTILE,), 1.0),
    }


def test_ipython_shows_tables(shown):
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    show = formatters.DisplayFormatter()
    show.active_types = list(show.formatters)
    for name, result in shown.items():
        made, _ = show.format(result)
        found = check_harmless(made["text/html"])
        assert {"table", "caption", "th"} <= found.tags, name
        assert made["text/plain"] == str(result), name
        assert "<" not in made["text/markdown"], name


def test_marimo_shows_tables(shown):
    marimo = pytest.importorskip("marimo", reason="marimo is not installed")
    for name, result in shown.items():
        assert "<table" in marimo.as_html(result).text, name
        assert "<script>alert" not in marimo.as_html(result).text, name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=12), min_size=1, max_size=3), max_size=3), st.text()
)
def test_any_text_stays_text(rows, words):
    sheet = Sheet(words, rows, (words,))
    found = check_harmless(sheet.html())
    assert "".join(found.texts).count(plain(words)) >= 2  # caption and doubt, as they are
    lines = sheet.markdown().split("\n")
    assert "<" not in sheet.markdown()
    table = lines[2 : 4 + len(rows)]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table} == {len(sheet.columns) + 1 if rows else 2}


def test_the_table_has_headers_for_rows_and_columns(fit):
    page = fit._repr_html_()
    assert page.count('scope="col"') == 4
    assert page.count('scope="row"') == 5
    assert "<caption" in page
    assert 'tabindex="0"' in page  # a table that scrolls can be reached by keyboard
    assert f"{fit.coef['alpha']:.5g}" in page


def test_long_tables_are_cut_and_say_so():
    sheet = Sheet("many.", [{"a": k} for k in range(1000)])
    assert "The first 200 of 1000 rows." in sheet.html()
    assert sheet.html().count("<tr>") == 201
    assert sheet.markdown().count("\n") < 210


def test_the_prompt_shows_what_print_shows(shown):
    assert all(repr(result) == str(result) for result in shown.values())


def test_frames_have_numbers(fit, shown):
    frame = fit.to_frame().set_index("coefficient")
    assert frame.loc["alpha", "value"] == fit.coef["alpha"]
    assert tuple(frame.loc["alpha", ["low", "high"]]) == fit.interval()["alpha"]
    plan = shown["allocation"].to_frame().set_index("quantity")
    assert plan.loc["params", "median"] == shown["allocation"].params.median
    assert list(shown["Ranking"].to_frame()["law"]) == [s.law for s in shown["Ranking"].scores]
    assert list(shown["forecast"].to_frame()) == ["quantity", "median", "best", "low", "high", "low_50", "high_50"]
    for result in shown.values():
        assert isinstance(result.to_frame(), pandas.DataFrame)
        assert len(isoflop.read(result.to_frame())) == len(result.to_frame())  # and come in again by the door


# ---- figures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    pyplot.close("all")
    yield pyplot
    pyplot.close("all")


def plots(fit, one, shown):
    runs = planted_table()
    return {
        "law alone": fit.plot,
        "fit": lambda **how: fit.plot(runs, **how),
        "held out": lambda **how: fit.plot(runs, held_out=runs, **how),
        "one column": lambda **how: one[1].plot(one[0], **how),
        "curve alone": one[1].plot,
        "stack": lambda **how: shown["Stack"].plot(one[0], **how),
        "forecast": shown["forecast"].plot,
        "hostile answer": shown["Answer"].plot,
        "ranking": shown["Ranking"].plot,
    }


def test_plots_return_the_axes_that_were_given_and_open_nothing(pyplot, fit, one, shown):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    backend = pyplot.get_backend()
    for name, plot in plots(fit, one, shown).items():
        figure = Figure()
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        assert plot(ax=ax) is ax, name
        assert ax.has_data(), name
        assert ax.get_xlabel(), name
        figure.canvas.draw()  # names with dollars and tags are no formulas
        assert not pyplot.get_fignums(), name
    assert pyplot.get_backend() == backend
    ax = fit.plot()
    assert isinstance(ax, Axes)
    assert ax.figure.number in pyplot.get_fignums()  # so that notebooks show it


def test_figure_functions_leave_pyplot_alone(pyplot, fit):
    from isoflop import _figures

    for draw in (_figures.loss_vs_compute, _figures.isoflop_curves, _figures.residuals, _figures.forecast_vs_truth):
        assert draw(fit, planted_table()).has_data()
    assert not pyplot.get_fignums()


def test_a_stack_of_several_columns_is_drawn_against_what_was_measured(pyplot):
    runs = planted_table()
    ax = isoflop.fit("auto", runs).plot(runs)
    assert ax.get_xlabel().startswith("measured")


def test_a_law_that_cannot_be_drawn_alone_says_what_it_needs(pyplot):
    rng = np.random.default_rng(0)
    columns = {c: 10 ** rng.uniform(1, 4, 30) for c in ("params", "hours", "pixels")}
    runs = columns | {"accuracy": sum(0.02 * np.log(v) for v in columns.values())}
    fitted = isoflop.fit("log_plane", runs, draws=0)
    with pytest.raises(ValueError, match=r"give the runs, as in fit.plot\(runs\)"):
        fitted.plot()
    assert fitted.plot(runs).get_ylabel().startswith("measured")
    with pytest.raises(ValueError, match="beside the fitted ones"):
        fitted.plot(held_out=runs)


# ---- frames in and out -----------------------------------------------------------------------------------------------

KINDS = {
    "pandas": lambda frame: frame,
    "pandas, nullable": lambda frame: frame.convert_dtypes(),
    "pandas, arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": polars.from_pandas,
    "polars, lazy": lambda frame: polars.from_pandas(frame).lazy(),
    "pyarrow": lambda frame: pyarrow.Table.from_pandas(frame, preserve_index=False),
    "dict of pandas series": lambda frame: {c: frame[c] for c in frame},
    "dict of polars series": lambda frame: {c: polars.from_pandas(frame)[c] for c in frame},
    "list of dicts": lambda frame: frame.to_dict("records"),
}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)
WORDS = st.text("abcxyz_-", min_size=1, max_size=6).filter(
    lambda w: not re.fullmatch("-+|na|nan|null|none|nat", w, re.I)
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, WORDS), min_size=1, max_size=8))
def test_what_comes_in_comes_out_as_pandas(kind, rows):
    frame = pandas.DataFrame(rows, columns=["params", "loss", "model"])
    out = isoflop.read(KINDS[kind](frame))
    assert isinstance(out, pandas.DataFrame)
    assert list(out) == list(frame)
    assert out["params"].tolist() == frame["params"].tolist()
    assert out["loss"].tolist() == frame["loss"].tolist()
    assert out["model"].tolist() == frame["model"].tolist()
    again = isoflop.read(out)
    assert again.equals(out)


def test_every_kind_of_frame_gives_the_same_fit():
    frame = pandas.DataFrame(planted_table())
    want = isoflop.fit("chinchilla", frame, draws=0).coef
    for name, kind in KINDS.items():
        assert isoflop.fit("chinchilla", kind(frame), draws=0).coef == want, name


def test_series_are_columns_and_frontiers_are_frames(fit):
    frame = pandas.DataFrame(planted_table())
    want = fit.predict(params=frame["params"].to_numpy(), tokens=frame["tokens"].to_numpy())
    other = polars.from_pandas(frame)
    assert np.array_equal(fit.predict(**frame[["params", "tokens"]]), want)
    assert np.array_equal(fit.predict(params=other["params"], tokens=other["tokens"]), want)
    assert isinstance(isoflop.frontier(other), pandas.DataFrame)
    assert isinstance(isoflop.frontier(fit, [1e20, 1e21]), pandas.DataFrame)


def test_anything_with_a_sheet_can_be_shown():
    from isoflop._display import Shown

    class Mine(Shown, SimpleNamespace):
        def _sheet(self):
            return Sheet("mine", [{"a": 1, "b": None}, {"a": 2, "c": 2.5}])

    assert "<td" in Mine()._repr_html_()
    assert Mine().to_frame()["c"].tolist()[1] == 2.5
