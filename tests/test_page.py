"""The page's server: who may talk to it, how its sessions end, and what hostile files and requests do to it."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")
import _page_served
from _page_served import Reader, files_in, served, wait_for

from isoflop.page import _guard, _server, _sessions

TOKEN = "a-token-for-tests"
root, server, reader = _page_served.root, _page_served.server, _page_served.reader


# ---- who may talk to it ----------------------------------------------------------------------------------------------


def test_every_answer_carries_the_policy(server, reader):
    for path in ("/", "/static/app.js", "/plotly.js", "/api/state", "/api/nothing", "/static/nothing"):
        _, _, headers = reader.ask("GET", path)
        policy = dict(rule.split(None, 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
    cookie = Reader(server, enter=False).ask("GET", "/api/state")[2]["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "", "[::2]",
                                  "10.0.0.1", "127.0.0.1@evil.example", "localhost\tx"])  # fmt: skip
def test_foreign_hosts_are_refused(reader, host):
    status, found, _ = reader.ask("GET", "/api/state", headers={"Host": host})
    assert status in (400, 403)
    assert status == 400 or "Host" in found["error"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:9000", "[::1]:9000", "LOCALHOST"])
def test_this_machine_is_known_through_any_port(reader, host):
    assert reader.ask("GET", "/api/state", headers={"Host": host})[0] == 200


@given(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,30}", fullmatch=True))
def test_no_other_name_passes_the_gate(name):
    gate = _guard.gate_for("127.0.0.1")
    assert gate.knows(name) == (name in ("localhost", "127.0.0.1"))
    wide = _guard.gate_for("0.0.0.0", token="t", allow=["planner.example"])
    assert wide.knows("planner.example:80")
    assert wide.knows(name) == (name in wide.names or _guard._is_address(name))


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"X-Isoflop": None},
    {"Content-Encoding": "gzip"},
])  # fmt: skip
def test_other_sites_cannot_change_anything(reader, headers):
    status, found, _ = reader.ask("POST", "/api/open", {"table": "planted.csv"}, headers=headers)
    assert status in (403, 415)
    assert found["error"]


def test_a_foreign_origin_may_not_even_read(reader):
    assert reader.ask("GET", "/api/state", headers={"Origin": "https://evil.example"})[0] == 403


def test_strangers_need_the_token(root):
    with served(root, bind="0.0.0.0", token=TOKEN) as at:
        stranger = Reader(at, enter=False)
        for path in ("/api/state", "/api/papers", "/api/laws", "/api/fits/1"):
            assert stranger.ask("GET", path)[0] == 401
        assert stranger.cookie is None
        assert stranger.ask("GET", "/")[0] == stranger.ask("GET", "/static/app.js")[0] == 200
        for wrong in ("", TOKEN[:-1], TOKEN + "x", "Ä"):
            assert stranger.ask("POST", "/api/login", {"token": wrong})[0] == 401
        assert stranger.ask("POST", "/api/login", {"token": TOKEN})[0] == 200
        status, state, _ = stranger.ask("GET", "/api/state")
        assert status == 200
        assert TOKEN not in json.dumps(state)
        assert stranger.ask("GET", "/api/state", headers={"Host": "10.1.2.3:80"})[0] == 200
        assert stranger.ask("GET", "/api/state", headers={"Host": "evil.example"})[0] == 403
    assert TOKEN not in repr(at.place.gate)


def test_loopback_is_told_from_the_rest():
    assert all(map(_guard.is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))
    assert not any(map(_guard.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def test_a_taken_port_is_told_in_one_sentence(server):
    with pytest.raises(OSError, match=r"port .* in use; choose another with --port") as caught:
        _server.serve(_server.Settings(port=server.port))
    assert "\n" not in str(caught.value)


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_sessions_are_few_and_end(root):
    with served(root, sessions=2, idle=4.0) as at:
        at.place.sessions.idle = 3600.0  # however long this takes
        first, second = Reader(at), Reader(at)
        first.upload("a.csv", b"x,loss\n1,2\n2,1\n")
        second.upload("a.csv", b"x,loss\n1,2\n2,1\n")
        status, found, _ = Reader(at, enter=False).ask("GET", "/api/state")
        assert status == 503
        assert "2 places are taken" in found["error"]
        at.place.sessions.idle = 0.1
        wait_for(lambda: not len(at.place.sessions))
        assert not files_in(at.folder)
        status, found, _ = first.ask("POST", "/api/open", {"table": "planted.csv"})
        assert (status, "session has ended" in found["error"]) == (401, True)
        first.cookie = None
        assert first.ask("GET", "/api/state")[0] == 200


def test_leaving_removes_what_was_there(server):
    reader = Reader(server)
    reader.upload("a.csv", b"x,loss\n1,2\n2,1\n")
    before = len(files_in(server.folder))
    assert reader.ask("DELETE", "/api/session")[0] == 200
    assert len(files_in(server.folder)) < before


def test_a_session_holds_so_many_fits(tmp_path):
    session = _sessions.Session("s", tmp_path)
    for k in range(_sessions.FITS + 3):
        path = tmp_path / f"fit{k}.json"
        path.write_text("{}")
        session.add_fit(_sessions.Fitted(str(k), {"title": f"fit {k}"}, b"", path, {}))
    assert len(session.fits) == len(files_in(tmp_path)) == _sessions.FITS
    assert "0" not in session.fits


def test_what_the_page_keeps_comes_back_on_reload(reader):
    assert reader.ask("PUT", "/api/kept", {"form": {"law": "kaplan"}})[0] == 200
    assert reader.ask("GET", "/api/state")[1]["kept"] == {"form": {"law": "kaplan"}}
    assert reader.ask("PUT", "/api/kept", {"a": "x" * 30_000})[0] == 422


# ---- hostile files and requests --------------------------------------------------------------------------------------


def _zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("runs.csv", b"0" * 10_000_000)
    return out.getvalue()


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.csv", b"", "header"),
    ("a.csv", b"params,loss\n", "no rows"),
    ("a.csv", _zip(), "zip archive"),
    ("a.csv", gzip.compress(b"0" * 10_000_000), "compressed"),
    ("a.csv", b"\x80\x04\x95pickle", "pickle"),
    ("a.csv", "x,loss\n1,2\n".encode("utf-16"), "UTF-16"),
    ("a.csv", b"x,loss\n\x00\x01,2\n", ""),
    ("a.csv", b",".join(b"c%d" % k for k in range(5000)) + b"\n" + b",".join([b"1"] * 5000), "5000 columns"),
    ("a.json", b"[" * 100_000, "nested too deeply"),
    ("a.jsonl", b'{"x": 1, "loss": ' + b"9" * 5000 + b"}\n", ""),
    ("a.parquet", b"PAR1" + b"\x00" * 100, "Parquet"),
    ("a.pkl", b"x", "files that end in"),
    ("a.csv.py", b"x", "files that end in"),
    ("", b"x", "files that end in"),
    (".csv", b"x", "files that end in"),
])  # fmt: skip
def test_hostile_uploads_say_why_and_leave_nothing(reader, server, name, data, words):
    before = files_in(server.folder)
    status, found = reader.upload(name, data)
    assert status == 422
    assert words in found["error"]
    assert "\n" not in found["error"]
    assert str(server.folder) not in found["error"]
    assert "ours" not in found["error"]
    assert files_in(server.folder) == before


def test_uploads_are_limited_in_size_said_or_not(reader, server):
    before = files_in(server.folder)
    status, found = reader.upload("big.csv", b"x,loss\n" + b"1,2\n" * 400_000)
    assert (status, "larger than 1 MB" in found["error"]) == (413, True)
    chunks = (b"1,2\n" * 10_000 for _ in range(40))  # in chunks: no length is said beforehand
    status, found, _ = reader.ask("POST", "/api/upload?name=big.csv", raw=chunks)
    assert status == 413
    assert files_in(server.folder) == before


@pytest.mark.parametrize("name", [
    "../../etc/cron.d/evil.csv", "..\\..\\evil.csv", "/etc/evil.csv", "a\x00b.csv", "...csv", "a/../../b.csv",
    "<img src=x onerror=alert(1)>.csv", "CON.csv", "ä" * 300 + ".csv",
])  # fmt: skip
def test_names_of_uploads_stay_in_their_folder(reader, server, name):
    status, found = reader.upload(name, b"x,loss\n1,2\n2,1\n")
    if status == 422:
        assert "files that end in" in found["error"]
        return
    assert status == 200
    assert re.fullmatch(r"[\w._ -]{1,90}", found["name"])
    assert all(p.is_relative_to(server.folder) for p in files_in(server.folder))


def test_names_of_uploads_keep_their_letters(reader):
    for name in ("Läufe 3.csv", "実験.csv"):
        assert reader.upload(name, b"x,loss\n1,2\n2,1\n")[1]["name"] == name


@pytest.mark.parametrize("table", [
    "../secret.csv", "/etc/passwd", "link.csv", "code.py", "deeper/../planted.csv", "", None, ["planted.csv"], {"a": 1},
    "planted.csv\x00",
])  # fmt: skip
def test_only_listed_tables_are_opened(reader, table):
    status, found, _ = reader.ask("POST", "/api/open", {"table": table})
    assert (status, "no such table" in found["error"]) == (422, True)


def test_the_folders_tables_are_listed(reader):
    assert [t["name"] for t in reader.state["tables"]] == ["deeper/small.csv", "planted.csv", "think.csv"]
    assert reader.ask("POST", "/api/open", {"table": "deeper/small.csv"})[1]["rows"] == 2


def test_a_parquet_bomb_hits_the_memory_limit(root, reader):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    table = pa.table({"x": np.zeros(1 << 20), "loss": np.ones(1 << 20)})
    with pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        for _ in range(400):
            writer.write_table(table)  # 6.7 GB of numbers
    (root / "bomb.parquet").write_bytes(out.getvalue())  # 4 MB
    status, found, _ = reader.ask("POST", "/api/open", {"table": "bomb.parquet"})
    (root / "bomb.parquet").unlink()
    assert status == 422
    assert "memory" in found["error"]
    assert reader.upload("fine.csv", b"x,loss\n1,2\n2,1\n")[0] == 200


def test_markup_in_names_and_cells_stays_text(reader):
    evil = "<img src=x onerror=alert(1)>"
    lines = "".join(f"{n:g},{2e10 / n * 1e9:g},{2 + 1e3 / n**0.3:g},{evil}\n" for n in np.geomspace(1e7, 1e9, 12))
    status, found = reader.upload("evil.csv", f"params,tokens,loss,{evil}\n{lines}".encode())
    assert status == 200
    assert evil in [c["name"] for c in found["columns"]]
    news = reader.job("/api/fits", {"table": found["id"], "law": "chinchilla", "draws": 20})
    view = reader.ask("GET", f"/api/fits/{news['result']['id']}")[1]
    hover = [t for f in view["figures"] for trace in f["data"] for t in trace.get("hovertext", [])]
    assert any("&lt;img" in t for t in hover)
    assert not any("<img" in t for t in hover)


@pytest.mark.parametrize("asked", [
    {"law": "evil.py:law"}, {"law": "../../x"}, {"law": "no_such_law"}, {"law": 7}, {"draws": 1e9}, {"draws": 10**9},
    {"draws": True}, {"rename": "N=params"}, {"rename": {"N": 1}}, {"where": "__import__('os')"}, {"where": "x" * 9000},
    {"target": "nothing"}, {"fixed": {"tokens": -1}}, {"seed": "0"}, {"draws": None}, {"draws": 12.5},
])  # fmt: skip
def test_what_is_asked_of_a_fit_is_checked(reader, asked):
    status, found, _ = reader.ask(
        "POST", "/api/fits", {"table": "planted.csv", "law": "chinchilla", "draws": 20, **asked}
    )
    if status == 202:
        news = reader.wait(found["id"])
        assert news["state"] == "failed"
        found = news
    else:
        assert status == 422
    assert found["error"]
    assert "ours" not in found["error"]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'"x"', b"null"])
def test_bodies_that_are_no_objects_are_refused(reader, raw):
    status, found, _ = reader.ask("POST", "/api/open", raw=raw)
    assert status == 422
    assert found["error"]
