"""What the page shows of fits, plans and papers is the package's own, and what takes long can be cancelled."""

from __future__ import annotations

import gzip
import io
import json
import re

import pytest
from conftest import planted_table, write_csv

import isoflop

pytest.importorskip("aiohttp")
import _page_served
from _page_served import Reader, long_table, served, wait_for

from isoflop.page import _slide
from isoflop.page._work import open_table

root, server, reader = _page_served.root, _page_served.server, _page_served.reader


@pytest.fixture(scope="module")
def fitted(server):
    """A reader with a fit of the planted table, and the fit's view."""
    reader = Reader(server)
    news = reader.job(
        "/api/fits", {"table": "planted.csv", "law": "chinchilla", "draws": 60, "hold_out": "flops > 1e20"}
    )
    assert news["state"] == "done", news
    return reader, reader.ask("GET", f"/api/fits/{news['result']['id']}")[1]


def test_sessions_see_their_own(fitted, server):
    mine, view = fitted
    other = Reader(server)
    assert mine.upload("mine.csv", b"x,loss\n1,2\n2,1\n")[0] == 200
    assert "mine.csv" in [t["name"] for t in mine.ask("GET", "/api/state")[1]["tables"]]
    state = other.ask("GET", "/api/state")[1]
    assert not state["fits"]
    assert "mine.csv" not in [t["name"] for t in state["tables"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/fit.json"), ("POST", "/plan"), ("POST", "/page")):
        assert other.ask(method, f"/api/fits/{view['id']}{path}", {})[0] == 422
    job = mine.ask("POST", "/api/fits", {"table": "planted.csv", "law": "kaplan", "draws": 20})[1]["id"]
    assert other.ask("POST", f"/api/jobs/{job}/cancel", {})[0] == 422
    assert other.ask("GET", f"/api/jobs/{job}/events")[0] == 422
    assert mine.wait(job)["state"] == "done"


def test_a_fit_is_the_packages_own(fitted, root):
    _, view = fitted
    table = isoflop.read(root / "planted.csv", where="flops <= 1e20")
    own = isoflop.fit("chinchilla", table, draws=60)
    assert view["n"] == own.n
    assert [row[1] for row in view["coef"]["rows"]] == [f"{v:.5g}" for v in own.coef.values()]
    assert [f["id"] for f in view["figures"]] == ["compute", "isoflop", "truth", "residuals"]
    assert "held-out rows" in view["verdict"]


def test_what_is_said_names_no_folder_of_the_server(fitted, root):
    reader, view = fitted
    assert str(root) not in json.dumps(view)
    assert "planted.csv line 2" in json.dumps(view)
    news = reader.job("/api/fits", {"table": "planted.csv", "law": "critical_batch", "draws": 20})
    assert news["error"].startswith("planted.csv: no column 'batch_crit'")
    assert "--" not in news["error"]


def test_a_slide_is_the_packages_own_plan(fitted, tmp_path):
    from isoflop._constraints import plan_at

    reader, view = fitted
    path = tmp_path / "fit.json"
    path.write_bytes(reader.ask("GET", f"/api/fits/{view['id']}/fit.json")[1])
    own = isoflop.Fit.load(path)
    for asked in ({"flops": 1e22}, {"flops": 1e22, "served_tokens": 1e11, "unique_tokens": 3e9}):
        status, found, _ = reader.ask("POST", f"/api/fits/{view['id']}/plan", {"constraints": asked})
        assert status == 200
        expected = plan_at(own, asked)
        for name, figure in expected["figures"].items():
            assert found["figures"][name]["median"] == pytest.approx(figure["median"])
            assert found["figures"][name]["interval"] == pytest.approx(figure["interval"])


def test_the_price_is_the_readers_own(fitted):
    reader, view = fitted
    path = f"/api/fits/{view['id']}/plan"
    plans = [reader.ask("POST", path, {"constraints": {"flops": 1e22, "usd_per_hour": p}})[1] for p in (1, 7)]
    cheap, dear = (p["figures"]["usd"]["best"] for p in plans)
    assert dear == pytest.approx(7 * cheap)


@pytest.mark.parametrize("asked", [
    None, [], {"flops": "1e22"}, {"flops": -1}, {"nothing_known": 1}, {"device": "abacus"}, {"device": 3}, {},
    {"flops": True},
])  # fmt: skip
def test_constraints_are_checked(fitted, asked):
    reader, view = fitted
    status, found, _ = reader.ask("POST", f"/api/fits/{view['id']}/plan", {"constraints": asked})
    assert status == 422
    assert found["error"]


def test_a_law_of_one_column_slides_along_it(reader):
    job = {"table": "planted.csv", "law": "power_offset", "axis": {"x": "flops"}, "draws": 20}
    view = reader.job("/api/fits", job)["result"]
    status, found, _ = reader.ask("POST", f"/api/fits/{view['id']}/plan", {"constraints": {"flops": 1e22}})
    assert status == 200
    assert found["figures"]["loss"]["text"]


def test_auto_says_how_it_weighs(reader):
    news = reader.job("/api/fits", {"table": "planted.csv", "law": "auto", "draws": 40})
    view = reader.ask("GET", f"/api/fits/{news['result']['id']}")[1]
    weights = [float(row[1]) for row in view["auto"]["rows"]]
    assert sum(weights) == pytest.approx(1, abs=0.03)
    assert view["law"] == view["auto"]["rows"][0][0]


def test_two_recipes_of_one_table_are_compared(reader, tmp_path):
    table = planted_table()
    worse = table["loss"] * 1.05
    text = "recipe,params,tokens,loss\n" + "".join(
        f"{name},{n:g},{d:g},{y:.6g}\n"
        for name, loss in (("a", table["loss"]), ("b", worse))
        for n, d, y in zip(table["params"], table["tokens"], loss, strict=True)
    )
    id = reader.upload("two.csv", text.encode())[1]["id"]
    made = reader.job("/api/fits", {"table": id, "law": "chinchilla", "by": "recipe", "draws": 20})["result"]
    assert len(made["fits"]) == 2
    asked = {"first": made["fits"][0], "second": made["fits"][1], "axis": "params", "at": {"tokens": 2e10}}
    news = reader.job("/api/compare", asked)
    assert news["state"] == "done", news
    assert "recipe a is better" in " ".join(news["result"]["words"])
    assert news["result"]["figure"]["data"]


def test_recipes_leave_out_and_hold_out_what_was_asked(reader):
    rows = zip(*(planted_table()[c] for c in ("params", "tokens", "loss")), strict=True)
    lines = [f"{name},{n:g},{d:g},{y:g}" for n, d, y in rows for name in "ab"]
    id = reader.upload("two.csv", "\n".join(["recipe,params,tokens,loss", "a,1e9,x,y", *lines]).encode())[1]["id"]
    asked = {"table": id, "law": "chinchilla", "by": "recipe", "draws": 20, "hold_out": "params > 1e9"}
    assert "two.csv line 2" in reader.job("/api/fits", asked)["error"]
    made = reader.job("/api/fits", asked | {"skip_bad": True})["result"]
    first, second = (reader.ask("GET", f"/api/fits/{id}")[1] for id in made["fits"])
    assert "held-out rows" in first["verdict"]
    assert "bad rows were left out: 1, the first being two.csv line 2" in first["doubts"][0]
    assert not any("left out" in d for d in second["doubts"])
    news = reader.job("/api/fits", asked | {"skip_bad": True, "hold_out": "params > 1e30"})
    assert "two.csv, recipe a: the hold-out takes 0 of" in news["error"]


def test_next_runs_come_as_a_table(fitted):
    reader, view = fitted
    news = reader.job(f"/api/fits/{view['id']}/next", {"budget": 1e20, "about": 1e22, "count": 2})
    assert news["state"] == "done", news
    assert news["result"]["rows"]
    status, data, headers = reader.ask("GET", f"/api/fits/{view['id']}/next.csv")
    assert status == 200
    assert headers["Content-Disposition"].startswith("attachment")
    assert data.decode().startswith("params,tokens,")


def test_the_whole_view_is_one_file(fitted):
    reader, view = fitted
    section = {
        "title": "Plan <b>",
        "caption": "c",
        "header": ["of the plan", "median"],
        "rows": [["<i>size</i>", "1B"]],
    }
    news = reader.job(f"/api/fits/{view['id']}/page", {"sections": [section], "budgets": [1e21]})
    assert news["state"] == "done", news
    status, data, headers = reader.ask("GET", f"/api/fits/{view['id']}/page.html")
    page = data.decode()
    assert (status, "attachment" in headers["Content-Disposition"]) == (200, True)
    assert "Plan &lt;b&gt;" in page
    assert "&lt;i&gt;size&lt;/i&gt;" in page
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="http', page.split('<script type="application/json"')[0])


def test_test_time_rows_have_a_front(root):
    found = open_table(str(root / "think.csv"), "think.csv")["testtime"]
    assert (found["metric"], found["cost"], found["lines"]) == ("accuracy", "gen_tokens", 2)
    assert [row[1] for row in found["rows"]] == ["100", "200", "400"]
    assert open_table(str(root / "planted.csv"), "planted.csv")["testtime"] is None


def test_columns_under_other_names_are_recognised(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"N": [1.0, 2.0], "train_flop": [1.0, 2.0], "val_loss": [2.0, 1.0]})
    found = open_table(str(path), "a.csv")["meant"]
    assert found == {"params": "N", "flops": "train_flop", "loss": "val_loss"}
    path = write_csv(tmp_path / "b.csv", {"Params": [1.0, 2.0], "Train Tokens": [1.0, 2.0], "Val-Loss": [2.0, 1.0]})
    assert open_table(str(path), "b.csv")["meant"] == {"params": "Params", "tokens": "Train Tokens", "loss": "Val-Loss"}


# ---- jobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long(root):
    path = write_csv(root / "long.csv", long_table())
    yield {"table": "long.csv", "law": "chinchilla", "draws": 2000}
    path.unlink()


def test_a_long_fit_is_cancelled_and_the_next_one_runs(server, long):
    reader = Reader(server)
    job = reader.ask("POST", "/api/fits", long)[1]["id"]
    reader.wait(job, until=("running",))
    assert reader.ask("GET", "/api/state")[1]["jobs"][0]["id"] == job
    assert reader.ask("POST", f"/api/jobs/{job}/cancel", {})[0] == 200
    assert reader.wait(job)["state"] == "cancelled"
    assert not reader.ask("GET", "/api/state")[1]["fits"]
    assert reader.upload("after.csv", b"x,loss\n1,2\n2,1\n")[0] == 200


def test_a_session_has_two_things_under_way_at_most(server, long):
    reader = Reader(server)
    jobs = [reader.ask("POST", "/api/fits", long)[1]["id"] for _ in range(2)]
    status, found, _ = reader.ask("POST", "/api/fits", long)
    assert (status, "under way" in found["error"]) == (422, True)
    for job in jobs:
        assert reader.ask("POST", f"/api/jobs/{job}/cancel", {})[0] == 200


def test_work_that_takes_too_long_is_stopped(root, long):
    with served(root, fit_seconds=0.6) as at:
        reader = Reader(at)
        wait_for(lambda: at.place.pool._idle)
        news = reader.job("/api/fits", long)
        assert news["state"] == "failed"
        assert "as long as it may take" in news["error"]
        assert reader.ask("POST", "/api/open", {"table": "planted.csv"})[0] == 200


def test_a_worker_that_dies_is_replaced(root):
    with served(root) as at:
        reader = Reader(at)
        wait_for(lambda: at.place.planners._idle)
        at.place.planners._idle[0].process.kill()
        status, found, _ = reader.ask("POST", "/api/open", {"table": "planted.csv"})
        assert (status, "the work died" in found["error"]) == (422, True)
        assert reader.ask("POST", "/api/open", {"table": "planted.csv"})[0] == 200


def test_progress_lines_become_messages():
    from isoflop.page._worker import _Said, receive

    out = io.BytesIO()
    said = _Said(out)
    said.write("\rbootstrap of chinchilla: 40 of 200, 12 s left \x1b[K")
    said.write("a warning of some library")
    out.seek(0)
    assert receive(out)["progress"] == {"what": "bootstrap of chinchilla", "done": 40, "total": 200, "left": 12}
    assert receive(out) is None


def test_zero_on_a_slider_asks_for_nothing():
    assert _slide.checked({"flops": 1e20, "served_tokens": 0}) == {"flops": 1e20}


# ---- papers and the verb ---------------------------------------------------------------------------------------------


def test_papers_are_searched_and_checked(reader):
    whole = reader.ask("GET", "/api/papers")[1]
    assert len(whole["papers"]) == whole["total"] > 200
    some = reader.ask("GET", "/api/papers?q=chinchilla%20compute")[1]["papers"]
    assert 0 < len(some) < whole["total"]
    one = next(p for p in whole["papers"] if p["claims"] == 1 and p["verdict"] == "unchecked")
    news = reader.job(f"/api/papers/{one['name']}/check")
    assert news["state"] == "done"
    assert news["result"]["verdict"] in ("recovers", "agrees", "shown", "differs")
    assert reader.ask("GET", f"/api/papers/{one['name']}")[1]["verdict"] == news["result"]["verdict"]
    for name in ("..%2F..%2Fetc", "nothing", "x.toml"):
        assert reader.ask("GET", f"/api/papers/{name}")[0] == 422


def test_first_load_is_light(reader):
    total = 0
    page = reader.ask("GET", "/")[1].decode()
    asked = {"/", *re.findall(r'(?:src|href)="(/static/[^"]+)"', page)}
    while asked:
        path = asked.pop()
        data = reader.ask("GET", path, headers={"Accept-Encoding": "gzip"})[1]
        total += len(data)
        text = gzip.decompress(data).decode()
        if path.endswith(".js"):
            reader.seen = getattr(reader, "seen", set()) | {path}
            asked |= {f"/static/{n}" for n in re.findall(r'from "\./([^"]+)"', text)} - reader.seen
    assert total < 150_000
    _, _, headers = reader.ask("GET", "/static/app.js")
    assert reader.ask("GET", "/static/app.js", headers={"If-None-Match": headers["ETag"]})[0] == 304


def test_the_verb_says_where_the_page_is(root):
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "isoflop", "serve", str(root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = json.loads(process.stdout.readline())["port"]
            assert Reader(type("At", (), {"port": port})).state["tables"]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def test_bad_rows_are_told_and_left_out_when_asked(reader):
    table = planted_table()
    lines = [f"{n:g},{d:g},{y:.6g}" for n, d, y in zip(table["params"], table["tokens"], table["loss"], strict=True)]
    status, found = reader.upload("bad.csv", "\n".join(["params,tokens,loss", "1e9,2e9", *lines, "x,y,z"]).encode())
    assert (status, found["rows"], found["refused_count"]) == (200, len(lines) + 1, 1)
    assert found["refused"][0].startswith("bad.csv line 2")
    asked = {"table": found["id"], "law": "chinchilla", "draws": 20}
    assert "bad.csv line 2" in reader.job("/api/fits", asked)["error"]
    for law in ("chinchilla", "auto"):
        news = reader.job("/api/fits", asked | {"law": law, "skip_bad": True})
        view = reader.ask("GET", f"/api/fits/{news['result']['id']}")[1]
        assert view["n"] == len(lines)
        assert "bad rows were left out: 2, the first being bad.csv line 2" in view["doubts"][0]
