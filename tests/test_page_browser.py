"""The page in a real browser: load, upload, fit, slide, export, cancel, reload, two sessions, accessibility."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import planted_table, write_csv

pytest.importorskip("aiohttp")
pytest.importorskip("playwright.sync_api")
from _page_served import long_table, served, wait_for
from playwright.sync_api import expect, sync_playwright

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
LONG = 90_000  # ms: other work may have the machine
expect.set_options(timeout=LONG)
EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_csv(folder / "planted.csv", planted_table())
    write_csv(folder / "long.csv", long_table())
    (folder / "think.csv").write_text("strategy,gen_tokens,accuracy\nmajority,100,.2\nmajority,400,.3\nbeam,200,.25\n")
    return folder


@pytest.fixture(scope="module")
def server(root):
    with served(root) as at:
        yield at


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium, server):
    """Open pages in sessions of their own; whatever they complain of, or ask of other machines, fails the test."""
    said, contexts = [], []

    def go(view="", *, state=None, complaints=(), **how):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 850}, "storage_state": state, **how})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.on("console", lambda m: said.append(m.text) if not any(c in m.text for c in complaints) else None)
        page.on("pageerror", lambda e: said.append(str(e)))
        page.on(
            "request", lambda r: said.append(r.url) if not r.url.startswith((server.url, "blob:", "data:")) else None
        )
        page.goto(f"{server.url}/{view}")
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []


def drawn(page):
    """Wait until every figure is drawn."""
    page.wait_for_selector(".plot[data-drawn]")
    page.wait_for_selector(".plot:not([data-drawn])", state="detached")


def fit(page, table="planted.csv", draws="40"):
    page.select_option("#table", table)
    page.wait_for_selector("#fit-button")
    page.click("summary:has-text('Rows, hold-out')")
    page.fill("#more-draws", draws)
    page.click("#fit-button")


@pytest.fixture(scope="module")
def state(chromium, server):
    """The cookie of a session with one fit: what a reload finds."""
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.goto(server.url)
    page.wait_for_selector("html[data-ready=yes]")
    fit(page)
    page.wait_for_selector("main[data-fit]")
    page.wait_for_timeout(600)  # the page tells the server its choices after 400 ms
    found = context.storage_state()
    context.close()
    return found


def test_a_dropped_file_is_fitted_and_seen(browse, tmp_path):
    page = browse()
    expect(page.locator("main h2")).to_contain_text("which choice is best")
    table = planted_table()
    table["N"], table["train_flop"] = table.pop("params"), table.pop("flops")
    table.pop("tokens")
    page.set_input_files("#file", write_csv(tmp_path / "mine.csv", table))
    page.wait_for_selector("#fit-button")
    assert page.input_value("#role-params") == "N"
    assert page.input_value("#role-flops") == "train_flop"
    assert page.input_value("#law") == "chinchilla"
    page.click("#fit-button")
    page.wait_for_selector("main[data-fit]")
    drawn(page)
    assert page.locator("figure[data-figure]").evaluate_all("f => f.map(x => x.dataset.figure)") == [
        "compute",
        "isoflop",
        "residuals",
    ]
    expect(page.locator("main h1")).to_have_text("chinchilla on mine.csv")
    expect(page.locator("main tbody th").first).to_have_text("E")


def test_a_reload_finds_the_fit_and_the_choices(browse, state):
    page = browse(state=state)
    page.wait_for_selector("main[data-fit]")
    drawn(page)
    assert page.input_value("#table") == "planted.csv"
    assert page.input_value("#more-draws") == "40"


def test_the_plan_follows_the_slider_by_mouse_and_keys(browse, state):
    page = browse("#plan", state=state)
    size = page.locator("output[data-name=params]")
    expect(size).not_to_be_empty()
    drawn(page)
    before = size.text_content()
    page.focus("#slider-flops")
    page.keyboard.press("Home")
    expect(size).not_to_have_text(before)
    least = size.text_content()
    page.keyboard.press("End")
    expect(size).not_to_have_text(least)
    page.fill("#amount-flops", "1e22")
    page.keyboard.press("Enter")
    expect(page.locator("#amount-flops")).to_have_value(re.compile("1e22|10²²|1e\\+22"))
    expect(page.locator("#limits")).to_contain_text("10²²")
    trained = page.locator("output[data-name=tokens]").text_content()
    page.fill("#amount-served_tokens", "100T")
    page.keyboard.press("Enter")
    expect(page.locator("output[data-name=tokens]")).not_to_have_text(trained)
    page.fill("#amount-unique_tokens", "1M")
    page.fill("#amount-epochs", "1")
    page.keyboard.press("Enter")
    expect(page.locator("#limits")).to_contain_text("passes over the data")
    dear = page.locator("output[data-name=usd]").text_content()
    page.fill("#number-usd_per_hour", "9")
    page.keyboard.press("Enter")
    expect(page.locator("output[data-name=usd]")).not_to_have_text(dear)


def test_figures_are_taken_away(browse, state, tmp_path):
    page = browse(state=state, accept_downloads=True)
    page.wait_for_selector("main[data-fit]")
    drawn(page)
    found = {}
    for kind in ("PNG", "SVG", "CSV"):
        with page.expect_download() as waiting:
            page.locator("figure[data-figure=compute]").get_by_role("button", name=kind).click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        found[kind] = path
    assert found["PNG"].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in found["SVG"].read_text()
    rows = list(csv.reader(found["CSV"].read_text().splitlines()))
    assert rows[0] == ["series", "training compute C (FLOP)", "loss (nats/token)"]
    measured = [float(r[2]) for r in rows[1:] if r[0] == "measured"]
    assert sorted(measured) == pytest.approx(sorted(planted_table()["loss"]), rel=1e-5)


def test_the_whole_view_is_one_page(browse, state, tmp_path, chromium):
    page = browse("#plan", state=state, accept_downloads=True)
    expect(page.locator("output[data-name=params]")).not_to_be_empty()
    expect(page.locator("#limits table").last).to_be_visible()
    page.click("nav >> text=Fit")
    with page.expect_download() as waiting:
        page.click("#take-page")
    path = tmp_path / "page.html"
    waiting.value.save_as(path)
    alone = chromium.new_context(offline=True).new_page()
    alone.goto(path.as_uri())
    alone.wait_for_selector("html[data-drawn]", timeout=LONG)
    assert "Plan under constraints" in alone.locator("main").text_content()
    alone.context.close()


def test_a_long_fit_shows_progress_and_is_cancelled(browse):
    page = browse()
    fit(page, "long.csv", "2000")
    page.wait_for_selector(".job progress")
    expect(page.locator(".job .note")).to_have_text(re.compile(r"\d+ s"))
    page.click(".job button")
    page.wait_for_selector(".job", state="detached")
    expect(page.locator("#said")).to_contain_text("cancelled")
    expect(page.locator("main h2")).to_contain_text("which choice is best")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process cannot be stopped here")
def test_a_reload_follows_what_is_under_way(browse, server):
    page = browse()
    fit(page, "long.csv", "2000")
    wait_for(lambda: server.place.pool._all)
    for worker in list(server.place.pool._all):
        os.kill(worker.process.pid, signal.SIGSTOP)  # from here on it takes as long as we like
    page.wait_for_selector(".job progress")
    page.wait_for_timeout(600)  # the page tells the server its choices after 400 ms
    page.reload()
    expect(page.locator(".job")).to_contain_text("Fit")
    expect(page.locator("#law")).to_have_value("chinchilla")
    page.click(".job button")
    expect(page.locator("#said")).to_contain_text("Fit: cancelled")
    expect(page.locator(".job")).to_have_count(0)
    expect(page.locator("main[data-fit]")).to_have_count(0)


def test_two_sessions_do_not_see_each_other(browse, state):
    mine, other = browse(state=state), browse()
    mine.wait_for_selector("main[data-fit]")
    expect(other.locator("main h2")).to_contain_text("which choice is best")


def test_recipes_test_time_and_next_runs(browse, state):
    page = browse("#testtime", state=state)
    page.select_option("#testtime-table", "think.csv")
    drawn(page)
    expect(page.locator("main h1")).to_have_text("Test time: think.csv")
    page.click("nav >> text=Next runs")
    page.click("#next-button")
    page.wait_for_selector("#next-csv")
    assert page.locator("main tbody tr").count() > 0
    page.click("nav >> text=Fit")
    page.wait_for_selector("#fit-button")
    page.select_option("#law", "kaplan")
    page.click("#fit-button")
    expect(page.locator("main h1")).to_have_text("kaplan on planted.csv")
    page.click("nav >> text=Compare")
    page.select_option("#axis", "params")
    page.fill("#held-tokens", "20B")
    page.click("#compare-button")
    page.wait_for_selector("#verdict")
    drawn(page)


def test_papers_are_listed_searched_and_run(browse):
    page = browse("#papers")
    page.wait_for_selector(".papers li")
    everything = page.locator(".papers li").count()
    page.fill("#query", "chinchilla")
    expect(page.locator(".papers li")).not_to_have_count(everything)
    page.locator(".papers h2 a").first.click()
    page.wait_for_selector("main.wide h1")
    page.goto(page.url.split("#")[0] + "#papers/kaplan_scaling_laws")
    expect(page.locator("main h1")).to_contain_text("Scaling Laws")


def test_code_in_a_paper_is_code_and_markup_is_words(browse):
    words = f"`power` gives `{EVIL}` and 1e9, `1e9`; one ` stays"
    claim = {"words": words, "verdict": "differs", "stands": "in `chinchilla`", "because": "`beta` is 2e9", "note": "",
             "figures": []}  # fmt: skip
    paper = {"name": "x", "short": "x", "title": "x", "arxiv": "", "id": 1, "group": "", "kind": "", "what": "`what`",
             "uses": [], "verdict": "differs", "headline": "", "why": "as `qat`", "results": [claim]}  # fmt: skip
    page = browse()
    page.route("**/api/papers/x", lambda route: route.fulfill(json=paper))
    page.evaluate("location.hash = '#papers/x'")
    page.wait_for_selector("#verdict")
    assert page.locator("main code").all_text_contents() == [
        "what", "qat", "power", EVIL, "1e9", "chinchilla", "beta",
    ]  # fmt: skip
    expect(page.locator(".claims")).to_contain_text(f"power gives {EVIL} and 10⁹, 1e9; one ` stays (in chinchilla)")
    expect(page.locator(".claims")).to_contain_text("Why: beta is 2 × 10⁹")
    assert page.locator("img").count() == 0
    assert "owned" not in page.title()


def test_a_view_that_comes_late_is_not_shown_in_place_of_the_next(browse):
    page, held = browse("#papers"), []
    page.route("**/api/papers/chinchilla", lambda route: held.append(route))
    page.evaluate("location.hash = '#papers/chinchilla'")
    page.wait_for_timeout(200)
    page.click("nav >> text=Test time")
    page.wait_for_selector("#testtime-table")
    with page.expect_response("**/api/papers/chinchilla"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(page.locator("nav [aria-current]")).to_have_text("Test time")
    expect(page.locator("main h2")).to_contain_text("thinking longer")


def test_back_leads_to_where_the_reader_was_and_a_view_begins_at_its_top(browse):
    page = browse("#papers", complaints=("status of 422",))
    link = page.locator(".papers h2 a").nth(60)
    link.scroll_into_view_if_needed()
    title = link.text_content()
    assert page.evaluate("scrollY") > 3000
    link.click()
    page.wait_for_selector("#verdict")
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.activeElement.id") == "main"
    page.go_back()
    link = page.locator(".papers h2 a", has_text=title).first
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()
    page.click("nav >> text=Papers")
    page.evaluate("location.hash = '#papers/%zz'")
    expect(page.locator("#said")).to_contain_text("there is no such paper")


def test_another_tab_may_forget_a_fit(browse):
    page = browse()
    fit(page, draws="20")
    page.wait_for_selector("main[data-fit]")
    page.evaluate(
        "fetch('/api/kept', {method: 'PUT', headers: {'X-Isoflop': '1'}, body: '{\"constraints\": {\"lr\": 1}}'})"
    )
    other = page.context.new_page()
    other.set_default_timeout(LONG)
    other.goto(page.url.split("#")[0] + "#plan")  # what a slider of another fit held is not asked of this one
    expect(other.locator("output[data-name=params]")).not_to_be_empty()
    page.click("text=Forget")
    expect(page.locator("main h2")).to_contain_text("which choice is best")
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.locator("main h2").first).to_have_text("Nothing is fitted yet")
    expect(other.locator("#said")).to_contain_text("another tab")


def test_markup_in_a_table_is_words(browse, tmp_path):
    page = browse()
    rows = [["params", "tokens", "loss", EVIL, "run"]]
    rows += [[n, 2e19 / n, 2 + 1e3 / n**0.3, EVIL, f"{EVIL}{k}"] for k, n in enumerate(np.geomspace(1e7, 1e9, 12))]
    path = tmp_path / "evil <b>.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    page.set_input_files("#file", path)
    page.wait_for_selector("#fit-button")
    page.click("summary:has-text('First rows')")
    expect(page.locator(".side table")).to_contain_text("<img src=x")
    page.click("#fit-button")
    page.wait_for_selector("main[data-fit]")
    drawn(page)
    page.hover("figure[data-figure=compute] .plot", position={"x": 300, "y": 200})
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0


def test_what_fails_is_said(browse, tmp_path):
    page = browse(complaints=("status of 422",))
    path = tmp_path / "bad.csv"
    path.write_bytes(b"PK\x03\x04" + b"\x00" * 50)
    page.set_input_files("#file", path)
    expect(page.locator("#said")).to_contain_text("zip archive")
    path.write_text("params;tokens;loss\n1e9;2e10;2,51\n2e9;3e10;2,42\n")
    page.set_input_files("#file", path)
    expect(page.locator("#target option:checked")).to_have_text("loss (text)")
    page.click("#fit-button")
    expect(page.locator("#said")).to_contain_text("has a comma that may be decimal")
    page.click("summary:has-text('Rows, hold-out')")
    page.fill("#more-draws", "many")
    page.click("#fit-button")
    expect(page.locator("#said")).to_contain_text("draws must be a whole number from 20 to 2000")


VIEWS = {
    "fit": "main[data-fit]", "plan": "#limits table", "compare": "#main", "next": "#next-button",
    "testtime": "#testtime-table", "papers": ".papers li", "papers/kaplan_scaling_laws": "#verdict",
}  # fmt: skip


def _axe():
    axe = pytest.importorskip("axe_playwright_python")
    return (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 850), (360, 740)], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(browse, state, scheme, size):
    page = browse(state=state, color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    page.wait_for_selector("main[data-fit]")
    drawn(page)
    script = _axe()
    for view, ready in VIEWS.items():
        page.goto(page.url.split("#")[0] + f"#{view}")
        page.wait_for_selector(ready)
        page.evaluate(script)
        found = json.loads(page.evaluate("axe.run().then(r => JSON.stringify(r.violations))"))
        bad = [
            (v["id"], n["html"][:120], n["failureSummary"][:200])
            for v in found
            if v["impact"] in ("serious", "critical")
            for n in v["nodes"]
        ]
        assert bad == [], view
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], view


def test_the_theme_can_be_chosen(browse, state):
    page = browse(state=state, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate(ground) != light
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.evaluate(ground) != light


def test_the_first_key_leads_past_the_navigation(browse):
    page = browse()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
