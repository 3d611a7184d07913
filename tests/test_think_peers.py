"""The recorded model behind a server that is not ours; slow, and skipped where `transformers` is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs isoflop[think]")
pytest.importorskip("orjson", reason="needs isoflop[think]")
pytest.importorskip("torch", reason="needs isoflop[torch]")
pytest.importorskip("tokenizers", reason="needs isoflop[torch]")
pytest.importorskip("transformers", reason="needs transformers[serving]")
pytest.importorskip("uvicorn", reason="needs transformers[serving]")
if importlib.util.find_spec("openai") is None:
    pytest.skip("needs transformers[serving]", allow_module_level=True)

import isoflop
from isoflop.levers.think import Think
from isoflop.levers.think._model_files import find_model, load_model
from isoflop.levers.think._task_model import problem_rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # theirs are not ours to turn into errors


def as_llama(folder):
    """The recorded model in the files that transformers reads: the ladder's transformer is a Llama by another name."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    weights, config = load_model(find_model("arithmetic_lm"))
    width = config["width"]
    hidden = weights["blocks.0.down"].shape[1]
    shape = LlamaConfig(
        vocab_size=config["vocab"], hidden_size=width, intermediate_size=hidden, num_hidden_layers=config["depth"],
        num_attention_heads=config["heads"], max_position_embeddings=config["context"], tie_word_embeddings=True,
        rms_norm_eps=float(np.finfo(np.float32).eps), bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    tensors = {"model.embed_tokens.weight": weights["embedding"], "model.norm.weight": weights["norm"]}
    for i in range(config["depth"]):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        q, k, v = np.split(weights[ours + "qkv"], 3)
        gate, up = np.split(weights[ours + "gate_up"], 2)
        named = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v, "mlp.gate_proj": gate,
                 "self_attn.o_proj": weights[ours + "out"], "mlp.up_proj": up, "mlp.down_proj": weights[ours + "down"],
                 "input_layernorm": weights[ours + "norm_attention"],
                 "post_attention_layernorm": weights[ours + "norm_mlp"]}  # fmt: skip
        tensors |= {f"{theirs}{name}.weight": value for name, value in named.items()}
    model = LlamaForCausalLM(shape)
    missing = model.load_state_dict({k: torch.tensor(np.array(v)) for k, v in tensors.items()}, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"}, missing
    model.generation_config.do_sample = True  # else the server leaves the temperature unused, and says nothing
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer():
    """Token i is byte i; 0 begins and ends."""
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE({"<end>": 0, **{chr(i): i for i in range(1, 128)}}, []))
    made.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<end>", eos_token="<end>", pad_token="<end>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


@contextmanager
def transformers_serve(model, home):
    """`transformers serve` in a process of its own, until it answers; offline, with an empty cache that is there."""
    program = Path(sys.executable).with_name("transformers")
    if not (program.exists() or shutil.which("transformers")):
        pytest.skip("transformers is installed without its command")
    (home / "hub").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program if program.exists() else shutil.which("transformers")), "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, home / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def wait_for(url, process, log):
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"transformers serve did not start: {log.read_text()[-2000:]}")


def test_transformers_serve(tmp_path):
    """A server without n and logprobs is found out, and the model is as good there as behind our own server."""
    model = as_llama(tmp_path / "llama")
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in problem_rows(8, seed=7)))
    with transformers_serve(model, tmp_path / "home") as url:
        lever = Think(
            str(model), str(problems), server=url, protocol="completions", max_tokens=90, calls=4,
            settings={"temperature": 1.0}, over={"n": [4]}, timeout=120.0,
        )  # fmt: skip
        row = isoflop.sweep(lever, out=tmp_path / "out", progress=False).iloc[0]
    assert row["status"] == "ok", row["error"]
    assert (row["samples"], row["server_n"], row["failed"]) == (4, 0, 0)
    samples = isoflop.read(tmp_path / "out" / "samples", where="role == 'model'")
    assert len(samples) == 32
    assert (samples["finish"] == "stop").mean() > 0.8
    assert 0.2 < samples["correct"].mean() < 0.85  # .5 behind our own server
    assert samples.groupby("problem")["text"].nunique().mean() > 1.5  # seeds differ
    assert samples["gen_tokens"].between(5, 90).all()
