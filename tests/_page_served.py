"""The page's server in a thread, and a client that says exactly what it is told, for tests."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from conftest import planted_table, write_csv

from isoflop.page import _server
from isoflop.page._place import PLACE, Settings


class Served:
    """A server that runs: where, and what it keeps."""

    def __init__(self, app, port):
        self.place, self.port = app[PLACE], port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def folder(self):
        """Where sessions keep their files."""
        return self.place.sessions._folder


@contextmanager
def served(root=None, **settings):
    """A server on a free port, until the block ends."""
    ready, box = threading.Event(), {}

    async def go():
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        app = _server.application(Settings(**{"root": root, "port": 0, "workers": 1, **settings}))
        runner = _server.web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await _server.web.TCPSite(runner, "127.0.0.1", 0).start()
        box.update(loop=loop, stop=stop, served=Served(app, runner.addresses[0][1]))
        ready.set()
        await stop.wait()
        await runner.cleanup()

    def run():
        try:
            asyncio.run(go())
        except BaseException as error:
            box["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield box["served"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join()
    if "error" in box:
        raise box["error"]


class Reader:
    """One browser's worth of requests: keeps its cookie, sends what the page sends."""

    def __init__(self, at, *, enter=True):
        self.at, self.cookie = at, None
        if enter:
            status, self.state, _ = self.ask("GET", "/api/state")
            assert status == 200, self.state

    def ask(self, method, path, value=None, *, headers=None, raw=None):
        """(status, JSON or bytes, headers)."""
        sent = {"X-Isoflop": "1"} | ({"Cookie": self.cookie} if self.cookie else {}) | (headers or {})
        body = raw if raw is not None else None if value is None else json.dumps(value)
        connection = http.client.HTTPConnection("127.0.0.1", self.at.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers={k: v for k, v in sent.items() if v is not None})
            answer = connection.getresponse()
            data, found = answer.read(), dict(answer.getheaders())
        finally:
            connection.close()
        if cookie := found.get("Set-Cookie"):
            self.cookie = cookie.split(";")[0]
        is_json = found.get("Content-Type", "").startswith("application/json") and "Content-Disposition" not in found
        return answer.status, json.loads(data) if is_json else data, found

    def upload(self, name, data):
        """(status, what was opened or why not)."""
        return self.ask("POST", f"/api/upload?name={quote(name)}", raw=data)[:2]

    def job(self, path, value=None, *, until=("done", "failed", "cancelled")):
        """Start a job and wait for its end, or for a state."""
        status, job, _ = self.ask("POST", path, value or {})
        assert status == 202, job
        return self.wait(job["id"], until=until)

    def wait(self, id, *, until=("done", "failed", "cancelled")):
        """The last news of a job: it is in `until`, or ended."""
        connection = http.client.HTTPConnection("127.0.0.1", self.at.port, timeout=120)
        try:
            connection.request("GET", f"/api/jobs/{id}/events", headers={"Cookie": self.cookie})
            answer = connection.getresponse()
            news = {}
            for line in answer:
                if line.startswith(b"data: "):
                    news = json.loads(line[6:])
                    if news["state"] in until:
                        break
            return news
        finally:
            connection.close()


def wait_for(what, seconds=20.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def files_in(folder: Path):
    """All files below a folder."""
    return [p for p in folder.rglob("*") if p.is_file()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of tables, with a link that leads out of it and a file that is no table."""
    folder, outside = tmp_path_factory.mktemp("tables"), tmp_path_factory.mktemp("outside")
    write_csv(folder / "planted.csv", planted_table())
    (folder / "deeper").mkdir()
    write_csv(folder / "deeper" / "small.csv", {"x": [1.0, 2.0], "loss": [2.0, 1.0]})
    write_csv(outside / "secret.csv", {"x": [1.0, 2.0], "loss": [2.0, 1.0]})
    (folder / "link.csv").symlink_to(outside / "secret.csv")
    (folder / "code.py").write_text("raise SystemExit\n")
    rows = ["strategy,gen_tokens,accuracy", "majority,100,.2", "majority,400,.3", "beam,200,.25", "beam,800,.28"]
    (folder / "think.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def server(root):
    """A server of that folder, with small limits."""
    with served(root, upload=1 << 20, read_seconds=20.0, memory=3 << 30, sessions=500) as at:
        yield at


@pytest.fixture
def reader(server):
    """A new session of that server."""
    return Reader(server)


def long_table():
    """A table whose bootstrap takes long."""
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(16, 24, 4000)), np.exp(rng.uniform(20, 27, 4000))
    loss = (1.7 + 400 / n**0.34 + 1200 / d**0.36) * np.exp(0.01 * rng.normal(size=4000))
    return {"params": n, "tokens": d, "loss": loss}
