"""The recorded model behind llama.cpp; slow, and skipped where there is no `llama-server`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs isoflop[think]")
pytest.importorskip("orjson", reason="needs isoflop[think]")
pytest.importorskip("gguf", reason="needs gguf")

import gguf

import isoflop
from isoflop.levers.think import Think
from isoflop.levers.think._model_files import find_model, load_model
from isoflop.levers.think._server import serving
from isoflop.levers.think._task_model import problem_rows

SERVER = shutil.which("llama-server")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(SERVER is None, reason="llama-server is not on PATH")]


def as_gguf(path):
    """The recorded model as llama.cpp reads it: a Llama whose rotary pairs stand side by side; tokens are bytes."""
    weights, config = load_model(find_model("arithmetic_lm"))
    heads, width = config["heads"], config["width"]
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(config["context"])
    out.add_embedding_length(width)
    out.add_block_count(config["depth"])
    out.add_feed_forward_length(weights["blocks.0.down"].shape[1])
    out.add_head_count(heads)
    out.add_rope_dimension_count(width // heads)
    out.add_layer_norm_rms_eps(float(np.finfo(np.float32).eps))
    add_bytes(out, config["vocab"])
    add(out, "token_embd", weights["embedding"])
    add(out, "output_norm", weights["norm"])
    for i in range(config["depth"]):
        block = {name.removeprefix(f"blocks.{i}."): w for name, w in weights.items() if name.startswith(f"blocks.{i}.")}
        q, k, v = np.split(block["qkv"], 3)
        gate, up = np.split(block["gate_up"], 2)
        named = {"attn_q": paired(q, heads), "attn_k": paired(k, heads), "attn_v": v, "attn_output": block["out"],
                 "ffn_gate": gate, "ffn_up": up, "ffn_down": block["down"], "attn_norm": block["norm_attention"],
                 "ffn_norm": block["norm_mlp"]}  # fmt: skip
        for name, value in named.items():
            add(out, f"blk.{i}.{name}", value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def add(out, name, value):
    out.add_tensor(f"{name}.weight", np.ascontiguousarray(value, np.float32))


def paired(weight, heads):
    """Rows of a query or key so that the two halves of each head alternate."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def add_bytes(out, size):
    """Token i is byte i, spelt as byte-level tokenizers spell it; 0 begins and ends."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    spelt = [chr(i) if i in plain else chr(next(other)) for i in range(256)]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list(["<end>", *spelt[1:size]])
    out.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (size - 1))
    out.add_token_merges([f"{spelt[1]} {spelt[2]}"])  # there must be one; no text has these bytes
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_add_bos_token(True)


@contextmanager
def llama_server(model, log):
    """`llama-server` in a process of its own, until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "--model", str(model), "--alias", "arithmetic_lm", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", "1024", "--parallel", "4", "--threads", "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def wait_for(url, process, log):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"llama-server did not start: {log.read_text(errors='replace')[-2000:]}")


def texts(url, problems, out, **more):
    """A row and the samples of majority against a server."""
    fixed = {"protocol": "completions", "max_tokens": 90, "calls": 4, "timeout": 120.0}
    lever = Think("arithmetic_lm", str(problems), server=url, **fixed, **more)
    row = isoflop.sweep(lever, out=out, progress=False).iloc[0]
    assert (row["status"], row["failed"]) == ("ok", 0), row["error"]
    return row, isoflop.read(out / "samples", where="role == 'model'")


def test_llama_server(tmp_path):
    """The same model: greedy texts as behind our own server, and as good when sampled."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in problem_rows(16, seed=7)))
    greedy = {"settings": {"temperature": 0.0}, "over": {"n": [1]}}
    with llama_server(as_gguf(tmp_path / "model.gguf"), tmp_path / "log") as url:
        row, samples = texts(url, problems, tmp_path / "many", settings={"temperature": 1.0}, over={"n": [4]})
        _, theirs = texts(url, problems, tmp_path / "theirs", **greedy)
    with serving(find_model("arithmetic_lm"), name="arithmetic_lm") as (url, _):
        _, ours = texts(url, problems, tmp_path / "ours", **greedy)
    assert (row["samples"], len(samples)) == (4, 64)
    assert (samples["finish"] == "stop").mean() > 0.8
    assert 0.2 < samples["correct"].mean() < 0.85  # .5 behind our own server
    assert samples.groupby("problem")["text"].nunique().mean() > 1.5  # seeds differ
    theirs, ours = (table.set_index("problem")["text"] for table in (theirs, ours))
    assert np.mean([theirs[name] == text for name, text in ours.items()]) > 0.8  # all but where rounding settles a tie
