"""What the think lever itself costs: client, store and accounting, against a server that costs next to nothing.

    python benchmarks/think.py [--requests 4000] [--repeats 5] [--json out.json]

A. one request: CPU of this process and requests a second, beside a bare aiohttp loop with the same session settings
B. best of 8 by vote: wall and CPU per problem, with 8 requests each and with one of n = 8; peers where installed
   (optillm: its best of 8, one request of n = 8 and 8 ratings, one problem after the other)
C. one step of a tree search without any model behind it, by the size of the tree; treequest beside it

Bare loop and isoflop take turns. The server is a process of its own; every text it gives is new, the answer in it is
always the same.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

CALLS = 256


# -- a server of constant answers -------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, just enough for POST with Content-Length; gives as many choices as n asks for."""

    count = 0

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
            Echo.count += 1
            self.transport.write(
                ANSWERS[8 if b'"n":8' in body or b'"n": 8' in body else 1].replace(
                    b"%06d", b"%06d" % (Echo.count % 10**6)
                )
            )


def _answer(n):
    texts = [f"Try %06d of {i}: 6 times 7 is 42, so the answer is\n#### 42" for i in range(n)]
    messages = [{"role": "assistant", "content": text} for text in texts]
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i, message in enumerate(messages)]
    usage = {"prompt_tokens": 20, "completion_tokens": 18 * n, "total_tokens": 20 + 18 * n}
    body = json.dumps({"id": "x", "object": "chat.completion", "model": "echo", "choices": choices, "usage": usage})
    length = len(body.replace("%06d", "123456"))
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}".encode()


ANSWERS = {1: _answer(1), 8: _answer(8)}


def serve(port):
    async def go():
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(go())


# -- the contestants --------------------------------------------------------------------------------------------------


async def many(count, one, calls=CALLS):
    """`one(i)` for every i, so many at once; wall and CPU seconds."""
    todo = iter(range(count))

    async def worker():
        for i in todo:
            await one(i)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(calls)))
    return time.perf_counter() - wall, time.process_time() - cpu


async def bare(url, count):
    import aiohttp
    import orjson

    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def one(i):
            messages = [{"role": "user", "content": f"What is 6 times 7? {i}"}]
            body = orjson.dumps(
                {"model": "echo", "messages": messages, "max_tokens": 64, "temperature": 0.8, "seed": i}
            )
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
                assert orjson.loads(await reply.read())["choices"][0]["message"]["content"]

        await many(CALLS, one)  # open the connections
        return await many(count, one)


def with_backend(work, url, folder, **how):
    from isoflop.levers.think._client import Client, Limits
    from isoflop.levers.think._meter import Account, ModelSize, Prices
    from isoflop.levers.think._model import Backend, MeteredModel, cached_key
    from isoflop.levers.think._store import Store
    from isoflop.levers.think._types import Problem

    async def go():
        async with Client([url], limits=Limits(calls=CALLS)) as client:
            with Store(Path(folder) / "samples.jsonl") as store:
                backend = Backend(
                    client, store, "echo", key=cached_key("auto"), max_tokens=64, prices=Prices(1.0, 2.0),
                    size=ModelSize(1e9, 16, 2048, 512), **how,
                )  # fmt: skip
                whole = Account()

                def handle(i):
                    problem = Problem(f"p{i}", f"What is 6 times 7? {i}")
                    return problem, MeteredModel(backend, Account(parent=whole), problem, "bench", "bench")

                return await work(handle, whole)

    return asyncio.run(go())


def ours(url, count, folder):
    async def work(handle, whole):
        async def one(i):
            problem, model = handle(i)
            await model.sample(problem.prompt, seed=i)

        await many(CALLS, lambda i: one(-1 - i))
        took = await many(count, one)
        assert whole.total.samples == count + CALLS
        return took

    return with_backend(work, url, folder)


def vote(url, count, folder, *, use_n):
    from isoflop.levers.think.majority import majority

    async def work(handle, whole):
        async def one(i):
            problem, model = handle(i)
            answer = await majority(problem, model, None, n=8)
            assert answer.key == "42"

        await many(64, lambda i: one(-1 - i), calls=32)
        return await many(count, one, calls=32)

    return with_backend(work, url, folder, use_n=use_n)


def its_hub(url, count):
    """its_hub's self-consistency, 8 samples a problem, as many problems at once."""
    from its_hub import SelfConsistency
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
    from its_hub.core.orchestrator import LMOrchestrator

    async def go():
        async with OpenAICompatibleLanguageModel(endpoint=url, api_key="none", model_name="echo") as model:
            chooser = SelfConsistency(lambda text: text.rsplit("####")[-1], orchestrator=LMOrchestrator(CALLS))

            async def one(i):
                answer = await chooser.ainfer(model, f"What is 6 times 7? {i}", budget=8)
                assert "42" in str(answer)

            await many(32, lambda i: one(-1 - i), calls=32)
            return await many(count, one, calls=32)

    return asyncio.run(go())


def optillm(url, count):
    """optillm's best of n. Its package imports a server with all of its peers' clients; the one file does without."""
    import logging
    import sys
    import types

    from openai import OpenAI

    logging.disable(logging.CRITICAL)
    place = importlib.util.find_spec("optillm").submodule_search_locations[0]
    sys.modules["optillm"] = types.ModuleType("optillm")
    sys.modules["optillm"].conversation_logger = None
    spec = importlib.util.spec_from_file_location("optillm_bon", Path(place) / "bon.py")
    bon = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bon)
    del sys.modules["optillm"]
    client = OpenAI(base_url=url, api_key="none")
    count = max(1, count // 20)
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(count):
        text, _ = bon.best_of_n_sampling("", f"What is 6 times 7? {i}", client, "echo", 8)
        assert "42" in text
    return (time.perf_counter() - wall) * 20, (time.process_time() - cpu) * 20


PEERS = {"its_hub": its_hub, "optillm": optillm}


# -- trees ------------------------------------------------------------------------------------------------------------

SIZES = (64, 256, 1024, 10000)


def grow_mcts(size, expand=4):
    """Our Monte-Carlo tree: select, add `expand` nodes, back them up; seconds of CPU for each of the last nodes."""
    from isoflop.levers.think._tree import Tree
    from isoflop.levers.think.mcts import select

    rng, tree, took = random.Random(0), Tree(), []
    while len(tree) <= size:
        began = time.process_time()
        node = select(tree, 1.0)
        for _ in range(expand):
            child = tree.add(node, "a step", value=rng.random())
            tree.back_up(child, tree.value[child])
        took.append((time.process_time() - began) / expand)
    return statistics.mean(took[-max(4, len(took) // 4) :])


def grow_ets(size, width=64):
    """ETS: choose what to keep of the open nodes, for each node that is added; levels of `width`, or of the tree."""
    from isoflop.levers.think._tree import Steps, Tree
    from isoflop.levers.think.ets import select

    rng, tree, how, took = random.Random(0), Tree(), Steps(), []
    alive, width = [0], min(width, size // 4)
    while len(tree) <= size:
        began = time.process_time()
        kept, _ = select(tree, alive, width, how, cache=1.0, cover=1.5)
        took.append((time.process_time() - began) / width)
        said = [" ".join(rng.choices(WORDS, k=20)) for _ in range(6)]
        alive = [tree.add(kept[i % len(kept)], rng.choice(said), tokens=20, value=rng.random()) for i in range(width)]
        if tree.depth[alive[0]] >= 40:  # as deep as a text has steps; then a new one
            alive = [0]
    return statistics.mean(took[-16:])


WORDS = [f"w{i}" for i in range(200)]


def grow_treequest(size, kind):
    """A step of treequest's algorithms."""
    import treequest

    rng, algorithm, took = random.Random(0), getattr(treequest, kind)(), []
    state = algorithm.init_tree()
    for _ in range(size):
        began = time.process_time()
        state = algorithm.step(state, {"a": lambda parent: ("a step", rng.random())})
        took.append(time.process_time() - began)
    return statistics.mean(took[-max(4, size // 8) :])


# -- tables -----------------------------------------------------------------------------------------------------------


def spread(values, scale=1.0, digits=3):
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid * scale:.{digits}f} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description="What the think lever itself costs.")
    parser.add_argument("--requests", type=int, default=4000, help="requests of each turn")
    parser.add_argument("--problems", type=int, default=400, help="problems of each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    given = parser.parse_args()
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; medians of {given.repeats} (range)")
    found = {"A": table_a(url, given), "B": table_b(url, given), "C": table_c()}
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1))
    server.terminate()


def table_a(url, given):
    took = {"bare aiohttp": [], "isoflop": []}
    for _ in range(given.repeats):
        took["bare aiohttp"].append(asyncio.run(bare(url, given.requests)))
        with tempfile.TemporaryDirectory() as folder:
            took["isoflop"].append(ours(url, given.requests, folder))
    print(f"\nA. one chat request, {CALLS} at once\n{'':<16}{'CPU ms a request':>28}{'requests/s':>28}")
    for name, turns in took.items():
        cpu, rate = [c / given.requests for _, c in turns], [given.requests / w for w, _ in turns]
        print(f"{name:<16}{spread(cpu, 1e3):>28}{spread(rate, 1, 0):>28}")
    pairs = list(zip(*took.values(), strict=True))
    cpu, rate = [b[1] / a[1] for a, b in pairs], [a[0] / b[0] for a, b in pairs]
    print(f"{'ratio by turns':<16}{spread(cpu):>28}{spread(rate):>28}")
    return took


def table_b(url, given):
    contestants = {
        "isoflop, 8 requests": lambda folder: vote(url, given.problems, folder, use_n=False),
        "isoflop, n = 8": lambda folder: vote(url, given.problems, folder, use_n=True),
    }
    for name, run in PEERS.items():
        if importlib.util.find_spec(name):
            contestants[name] = lambda folder, run=run: run(url, given.problems)
    print(f"\nB. best of 8 by vote, 32 problems at once\n{'':<22}{'wall ms a problem':>28}{'CPU ms a problem':>28}")
    found = {}
    for name, run in contestants.items():
        found[name] = []
        for _ in range(given.repeats):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(folder))
        wall, cpu = ([turn[i] / given.problems for turn in found[name]] for i in (0, 1))
        print(f"{name:<22}{spread(wall, 1e3):>28}{spread(cpu, 1e3):>28}")
    for name in PEERS:
        if not importlib.util.find_spec(name):
            print(f"{name:<22}not installed")
    return found


def table_c():
    print(f"\nC. CPU ms for a node of a tree{'':<6}" + "".join(f"{size:>10}" for size in SIZES))
    found = {name: [grow(size) for size in SIZES] for name, grow in {"mcts": grow_mcts, "ets": grow_ets}.items()}
    if importlib.util.find_spec("treequest"):
        import treequest

        for kind in ("StandardMCTS", "TreeOfThoughtsBFSAlgo", "ABMCTSA"):
            if hasattr(treequest, kind):
                found[f"treequest, {kind}"] = [grow_treequest(size, kind) for size in SIZES if size <= 256]
    for name, row in found.items():
        print(f"{name:<36}" + "".join(f"{1e3 * x:>10.3f}" for x in row))
    if not importlib.util.find_spec("treequest"):
        print("treequest: not installed")
    return found


if __name__ == "__main__":
    main()
