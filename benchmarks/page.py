"""How the page holds up: first load, one reader's slider, and 50 sessions at once that move theirs.

    python benchmarks/page.py [--sessions 50] [--minutes 2] [--every 0.5] [--json FILE]

The server is `isoflop serve` in a process of its own; each session uploads a planted table of its own, fits it, and
then moves its budget and, one move in three, constraints too: a move every half second, on the mean. Latency is from
the request to the whole answer, seen by the client, which shares the machine's cores. Memory is the server's and its
workers' resident size, read every five seconds from /proc; its slope is fitted over the second half. Bars: p95 of
300 ms on two cores, memory flat, a first load under 1.5 MB without the plotting script and under 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

HEADERS = {"X-Isoflop": "1"}
FIRST = ["/", "/static/style.css", "/static/plotly.css", "/static/icon.svg"]


def planted(seed: int, rows: int = 60) -> str:
    """A table of its own for each session."""
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(np.log(3e7), np.log(3e9), rows)), np.exp(rng.uniform(np.log(1e9), np.log(1e11), rows))
    loss = (1.7 + 400 / n**0.34 + 1200 / d**0.36) * np.exp(0.005 * rng.standard_normal(rows))
    return "params,tokens,loss\n" + "".join(f"{a:.6g},{b:.6g},{c:.6g}\n" for a, b, c in zip(n, d, loss, strict=True))


def served() -> tuple[subprocess.Popen[str], str]:
    """The server, and where it listens."""
    command = [sys.executable, "-m", "isoflop", "serve", "--port", "0", "--json", "--sessions", "100"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"].rstrip("/")


def resident(pid: int) -> float:
    """MiB of a process and its children."""
    pids = [pid, *_children(pid)]
    sizes = []
    for one in pids:
        try:
            sizes.append(int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text())[1]))  # type: ignore[index]
        except (OSError, TypeError):
            continue
    return sum(sizes) / 1024


def processor(pid: int) -> float:
    """Seconds of processor that a process and its living children have used."""
    ticks = 0
    for one in [pid, *_children(pid)]:
        try:
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


async def first_load(url: str) -> dict[str, Any]:
    """Bytes and seconds until the page has all that it asks for, as sent (compressed); the plotting script apart."""
    began, total = time.perf_counter(), 0
    async with aiohttp.ClientSession(url, auto_decompress=False, headers={"Accept-Encoding": "gzip"}) as client:

        async def size(path: str) -> int:
            async with client.get(path) as answer:
                return len(await answer.read())

        scripts = [f"/static/{p.name}" for p in (Path(__file__).parents[1] / "isoflop/page/static").glob("*.js")]
        for path in [*FIRST, *scripts, "/api/state", "/api/laws"]:
            total += await size(path)
        seconds = time.perf_counter() - began
        return {"bytes": total, "seconds": seconds, "plotly_bytes": await size("/plotly.js")}


async def session(url: str, seed: int, stop: float, every: float, times: list[float], kinds: list[bool]) -> None:
    """One reader: upload, fit, move sliders until `stop`."""
    rng = np.random.default_rng(seed)
    async with aiohttp.ClientSession(url, headers=HEADERS, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:

        async def ask(method: str, path: str, **how: Any) -> Any:
            async with client.request(method, path, **how) as answer:
                found = await answer.json()
                if answer.status >= 400:
                    raise RuntimeError(f"{path}: {found['error']}")
                return found

        await ask("GET", "/api/state")
        table = (await ask("POST", "/api/upload", params={"name": "runs.csv"}, data=planted(seed)))["id"]
        job = await ask("POST", "/api/fits", json={"table": table, "law": "chinchilla", "draws": 200, "seed": seed})
        fit = await _finished(client, job["id"])
        level, served_tokens = 21.0, 12.0
        while time.perf_counter() < stop:
            asked = {"flops": float(10**level)}
            if constrained := bool(rng.random() < 1 / 3):
                asked |= {"served_tokens": float(10**served_tokens), "unique_tokens": 1e11}
            began = time.perf_counter()
            await ask("POST", f"/api/fits/{fit}/plan", json={"constraints": asked})
            times.append(time.perf_counter() - began)
            kinds.append(constrained)
            level = float(np.clip(level + rng.normal(0, 0.2), 19, 25))
            served_tokens = float(np.clip(served_tokens + rng.normal(0, 0.2), 9, 15))
            await asyncio.sleep(every * rng.uniform(0.5, 1.5))


async def _finished(client: aiohttp.ClientSession, job: str) -> str:
    async with client.get(f"/api/jobs/{job}/events", timeout=aiohttp.ClientTimeout(1200)) as events:
        async for line in events.content:
            if line.startswith(b"data: "):
                news = json.loads(line[6:])
                if news["state"] == "done":
                    return str(news["result"]["id"])
                if news["state"] in ("failed", "cancelled"):
                    raise RuntimeError(news["error"])
    raise RuntimeError("the events ended before the fit did")


async def measured(
    process: subprocess.Popen[str], url: str, sessions: int, minutes: float, every: float
) -> dict[str, Any]:
    """All figures of one run."""
    await _warm(url)
    load = await first_load(url)
    alone: list[float] = []
    await session(url, 999, time.perf_counter() + 15, 0.2, alone, [])
    times: list[float] = []
    kinds: list[bool] = []
    memory: list[tuple[float, float, float, int]] = []
    began = time.perf_counter()
    stop = began + 60 * minutes + 3 * sessions  # fits come first, one after the other
    readers = [asyncio.create_task(session(url, k, stop, every, times, kinds)) for k in range(sessions)]
    while not all(r.done() for r in readers):
        memory.append((time.perf_counter() - began, resident(process.pid), processor(process.pid), len(times)))
        await asyncio.wait(readers, timeout=5)
    for reader in readers:
        reader.result()
    half = np.array(memory[len(memory) // 2 :])
    slope = float(np.polyfit(half[:, 0] / 60, half[:, 1], 1)[0]) if len(half) > 2 else float("nan")
    of = np.array(times) * 1e3
    per_move = (half[-1, 2] - half[0, 2]) / max(half[-1, 3] - half[0, 3], 1) * 1e3
    return {
        "first_load": load, "alone_ms": _quantiles(np.array(alone) * 1e3), "sessions": sessions,
        "moves": len(times), "moves_per_second": len(times) / (time.perf_counter() - began), "ms": _quantiles(of),
        "ms_budget": _quantiles(of[~np.array(kinds)]), "ms_constraints": _quantiles(of[np.array(kinds)]),
        "memory_mib": [round(memory[len(memory) // 2][1]), round(memory[-1][1])], "slope_mib_per_minute": slope,
        "server_cpu_ms_per_move": round(float(per_move), 1),
        "minutes": (time.perf_counter() - began) / 60, "load": os.getloadavg()[0],
    }  # fmt: skip


async def _warm(url: str) -> None:
    async with aiohttp.ClientSession(url) as client:
        await client.get("/api/state")


def _quantiles(ms: np.ndarray) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(ms, q)), 1) for q in (50, 95, 99)} if ms.size else {}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between moves of one session")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    process, url = served()
    try:
        found = asyncio.run(measured(process, url, args.sessions, args.minutes, args.every))
    finally:
        process.terminate()
        process.wait(20)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))
    print(_text(found))


def _text(found: dict[str, Any]) -> str:
    load, rate, slope = found["first_load"], found["moves_per_second"], found["slope_mib_per_minute"]
    kilobytes, script = load["bytes"] / 1e3, load["plotly_bytes"] / 1e6
    lines = [
        f"first load  {kilobytes:.0f} kB in {load['seconds']:.2f} s; plotting script {script:.2f} MB",
        f"alone       {found['alone_ms']} ms a move",
        f"{found['sessions']} sessions {found['ms']} ms over {found['moves']} moves, {rate:.0f} a second",
        f"  budget only {found['ms_budget']}, with constraints {found['ms_constraints']}",
        f"memory      {found['memory_mib']} MiB, {slope:+.2f} MiB a minute over {found['minutes']:.1f} min",
        f"processor   {found['server_cpu_ms_per_move']} ms of the server's a move",
        f"load of the machine {found['load']:.1f} on {os.cpu_count()} cores",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
