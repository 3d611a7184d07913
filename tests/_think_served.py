"""A tiny model of random weights, and problems, for tests against the package's own server."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from isoflop.levers.think._client import Client, Limits
from isoflop.levers.think._meter import Account
from isoflop.levers.think._model import Backend, MeteredModel
from isoflop.levers.think._model_files import save_model
from isoflop.levers.think._server import serving
from isoflop.levers.think._store import Store
from isoflop.levers.think._types import Problem
from isoflop.levers.train._shape import Shape

TINY = Shape(width=16, depth=1, vocab=128, heads=1)


def tiny_model(folder, *, seed=0, context=64):
    """Random weights: its samples differ, and hardly ever end by themselves."""
    rng, w, h = np.random.default_rng(seed), TINY.width, TINY.hidden
    shapes = {"embedding": (128, w), "norm": (w,)}
    block = {"norm_attention": (w,), "qkv": (3 * w, w), "out": (w, w), "norm_mlp": (w,)}
    block |= {"gate_up": (2 * h, w), "down": (w, h)}
    shapes |= {f"blocks.0.{name}": size for name, size in block.items()}
    weights = {name: rng.normal(0, 0.3, size) if len(size) == 2 else np.ones(size) for name, size in shapes.items()}
    facts = {"context": context, "tokenizer": "bytes", "end": 0, "begin": 0}
    save_model(folder, weights, shape=TINY, facts=facts)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as (url, service):
        yield url, service


def write_problems(path, count=10):
    """Problems with the numbers themselves as answers."""
    rows = [{"id": f"p{i}", "prompt": f"say {i}:", "answer": str(i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sampling(url, folder, work, *, limits=None, account=None, key_env="ISOFLOP_API_KEY", **how):
    """Run `await work(model)` with a metered handle on the server at `url` and a store in `folder`."""

    async def go():
        urls = [url] if isinstance(url, str) else url
        chosen = limits or Limits(timeout=10.0)
        async with Client(urls, key_env=key_env, limits=chosen) as client:
            with Store(folder / "samples.jsonl") as store:
                settings = {"protocol": "completions", "max_tokens": 8, **how}
                backend = Backend(client, store, "model", key=lambda text: text[:1] or None, **settings)
                return await work(MeteredModel(backend, account or Account(), Problem("p", "")))

    return asyncio.run(go())


def texts(samples):
    return [one.text for one in samples]


async def three(handle):
    return await handle.sample("say", n=3, seed=5)
