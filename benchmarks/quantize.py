"""How long quantisers take on a model of about 100 million parameters, and torchao's rounding beside them.

    python benchmarks/quantize.py [--depth 13] [--width 768] [--methods awq,aqas] [--lrq-steps 50] [--json FILE]

The model is the ladder's transformer with random weights and inputs of 16 windows of 128 random tokens: time does not
depend on what was learned. W4A16 in groups of 32 (W4A8 for methods that round inputs, floats for llm_fp4). CPU seconds
are those of all threads; `err` is |y_q - y|^2 / |y|^2 of the logits on other tokens, the same measure for all,
comparable between methods of the same bits only. lrq learns its 100 steps, unless --lrq-steps says fewer: then its
seconds for 100 are scaled linearly, marked [X]. torchao rounds
to nearest: weights alone to int8 by row and int4 in groups of 32; calls that fail on a CPU are printed with their
reason.

    python benchmarks/quantize.py --ladder runs/cache

takes a trained model of the recorded sweep instead (its cache), as a Llama of Hugging Face, and compares rounding to
nearest, AWQ (W4A16, groups of 32 with a zero point) and SmoothQuant (W8A8) with llm-compressor's: held-out loss and
CPU seconds, three seeds. llm-compressor wants its own environment: `pip install llmcompressor` replaces transformers.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isoflop import _find
from isoflop.levers.precision._apply import Target
from isoflop.levers.precision._measure import losses
from isoflop.levers.precision._plain import plain
from isoflop.levers.precision._reconstruct import Learning
from isoflop.levers.precision._sites import outputs
from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._shape import Shape

INPUTS = ("outlier_tune", "runtime_smooth", "granq")  # methods that only round inputs


def target(method: str) -> Target:
    """W4A16, or W4A8 where the method needs rounded inputs, or floats."""
    if method == "llm_fp4":
        return Target("fp4_e2m1", 32)
    return Target("int4", 32, acts="int8" if method in INPUTS else None)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - wall, time.process_time() - cpu


def ours(model: GPT, method: str, calibration: list[torch.Tensor], *, steps: int) -> tuple[nn.Module, dict[str, Any]]:
    """One of isoflop's quantisers."""
    knobs = {"learning": Learning(steps, 5e-3, 0)} if method == "lrq" else {}
    quantise = _find.get("levers/precision", method)
    (made, report), wall, cpu = timed(lambda: quantise(model, calibration, target=target(method), **knobs))
    bits = f"W{report.bits_weights:.2f}A{report.bits_acts or 16:.2f}"
    return made, {"what": method, "bits": bits, "wall": wall, "cpu": cpu}


def theirs(model: GPT, name: str) -> tuple[nn.Module | None, dict[str, Any]]:
    """torchao's rounding to nearest, or why not."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

        config = Int8WeightOnlyConfig() if name == "int8" else IntxWeightOnlyConfig(torch.int4, PerGroup(32))
        made = plain(model)
        head, made.lm_head = made.lm_head, nn.Identity()  # left as it is, as ours
        _, wall, cpu = timed(lambda: quantize_(made, config))
        made.lm_head = copy.deepcopy(head)
    except Exception as error:  # whatever a peer raises is its row
        return None, {"what": f"torchao {name}", "failed": f"{type(error).__name__}: {error}"[:160]}
    return made, {"what": f"torchao {name}", "bits": {"int8": "W8", "int4": "W4 g32"}[name], "wall": wall, "cpu": cpu}


def llama_of(model: GPT) -> Any:
    """The ladder's transformer as Hugging Face's LlamaForCausalLM: the same logits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made: Any = plain(model)
    first, (vocab, width) = made.layers[0], made.embed_tokens.weight.shape
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=first.mlp.down_proj.in_features, bos_token_id=0,
        num_hidden_layers=len(made.layers), num_attention_heads=first.self_attn.heads, eos_token_id=1,
        num_key_value_heads=first.self_attn.heads, max_position_embeddings=len(made.cos),
        rms_norm_eps=torch.finfo(torch.float32).eps,
        tie_word_embeddings=made.lm_head.weight is made.embed_tokens.weight,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()
    state = {("" if key.startswith("lm_head") else "model.") + key: value for key, value in made.state_dict().items()}
    llama.load_state_dict(state)
    return llama


METHODS = ("round_nearest", "awq", "smoothquant")


def compressed(llama: Any, method: str, calibration: list[torch.Tensor]) -> Any:
    """llm-compressor's result, by the nearest settings to ours."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
    from torch.utils.data import DataLoader

    four = QuantizationArgs(num_bits=4, type="int", symmetric=False, strategy="group", group_size=32)
    acts = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
    eight = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    groups = {"all": QuantizationScheme(targets=["Linear"], weights=four)}
    if method == "smoothquant":
        groups = {"all": QuantizationScheme(targets=["Linear"], weights=eight, input_activations=acts)}
    plain_round = QuantizationModifier(config_groups=groups, ignore=["lm_head"])
    recipe = {
        "round_nearest": [plain_round],
        "awq": [AWQModifier(), plain_round],
        "smoothquant": [SmoothQuantModifier(smoothing_strength=0.5), plain_round],
    }[method]
    data = [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in calibration]
    loader = DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:  # it looks up where the model came from
        llama.save_pretrained(folder)
        model = type(llama).from_pretrained(folder)
        oneshot(model=model, dataset=loader, recipe=recipe, num_calibration_samples=len(data), processor=_NoTokenizer())
    return model.eval()


class _NoTokenizer:
    """Stands where a tokenizer is asked for: the batches are ids already."""


def against_llmcompressor(cache: Path) -> None:
    """Both on the same trained models, or the reason why not."""
    from quantised import material

    for seed, method in itertools.product(range(3), METHODS):
        model, calibration, held = material(cache, seed=seed)
        before = float(losses(model, held)[0].mean())
        wanted = target(method) if method != "smoothquant" else Target("int8", 0, symmetric=True, acts="int8")
        quantise = _find.get("levers/precision", method)
        (made, _), _, cpu = timed(lambda: quantise(llama_of(model), calibration, target=wanted))  # noqa: B023
        row = {"isoflop": (made, cpu)}
        try:
            peer, _, cpu = timed(lambda: compressed(llama_of(model), method, calibration))  # noqa: B023
            row["llm-compressor"] = (peer, cpu)
        except Exception as reason:  # whatever a peer raises is its row
            print(f"llm-compressor {method}: {type(reason).__name__}: {reason}"[:200], flush=True)
        for who, (made, cpu) in row.items():
            more = float(losses(made, held)[0].mean()) - before
            print(f"seed {seed}  {method:14} {who:15} loss {before:.4f} + {more:.4f}  {cpu:6.1f} s CPU", flush=True)


def error(made: nn.Module, wanted: torch.Tensor, tokens: torch.Tensor) -> float:
    """Relative error of the logits."""
    with torch.no_grad():
        return float(((outputs(made, tokens) - wanted) ** 2).sum() / (wanted**2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=13)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--methods", default=",".join(_find.names("levers/precision")))
    parser.add_argument("--lrq-steps", type=int, default=100)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--ladder", type=Path, metavar="CACHE", help="compare with llm-compressor on these models")
    given = parser.parse_args()
    if given.ladder:
        return against_llmcompressor(given.ladder)
    model = GPT(Shape(width=given.width, depth=given.depth, vocab=given.vocab), context=128, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    calibration = [torch.randint(0, given.vocab, (4, 128), generator=generator) for _ in range(4)]
    tokens = torch.randint(0, given.vocab, (2, 128), generator=generator)
    wanted = outputs(model, tokens).detach()
    params = sum(p.numel() for p in model.parameters())
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    print(f"{params / 1e6:.1f} M parameters, {torch.get_num_threads()} threads, {load}", flush=True)
    rows = []
    for method in filter(None, given.methods.split(",")):
        made, row = ours(model, method, calibration, steps=given.lrq_steps)
        rows.append(shown(row | {"error": error(made, wanted, tokens)}, steps=given.lrq_steps))
    for name in ("int8", "int4"):
        peer, row = theirs(model, name)
        rows.append(shown(row | ({"error": error(peer, wanted, tokens)} if peer else {}), steps=0))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as stream:
            json.dump({"params": params, "rows": rows}, stream, indent=1)


def shown(row: dict[str, Any], *, steps: int) -> dict[str, Any]:
    """Print a row, and give it back."""
    if "failed" in row:
        print(f"{row['what']:16} {row['failed']}", flush=True)
        return row
    few = row["what"] == "lrq" and steps < 100
    scale = f"  [X {steps}]: {row['cpu'] * 100 / steps:.0f} CPU s for 100 steps" if few else ""
    cost = f"{row['wall']:8.1f} s wall {row['cpu']:8.1f} s CPU"
    print(f"{row['what']:16} {row['bits']:14} {cost}  err {row['error']:.2e}{scale}", flush=True)
    return row


if __name__ == "__main__":
    main()
