"""What `isoflop/recorded/quantised` holds beside its sweep: lengths of calibration, steps of learning, streamed layers.

    python benchmarks/quantised.py --cache runs/cache --out isoflop/recorded/quantised [--only lengths]

`--cache` is that of the sweep, with its trained models (made where they are missing: two minutes each).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from isoflop.levers.precision import Precision
from isoflop.levers.precision._apply import target
from isoflop.levers.precision._measure import losses
from isoflop.levers.precision._reconstruct import Learning
from isoflop.levers.precision._run import _material
from isoflop.levers.precision.aqas import aqas
from isoflop.levers.precision.inference.flashsvd import account, low_rank, peak_bytes, streamed
from isoflop.levers.precision.lrq import lrq
from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._shape import Shape

SWEEP = Path(__file__).parents[1] / "isoflop/recorded/quantised/sweep.toml"
LENGTHS = (8, 32, 128)
Row = dict[str, Any]


def material(cache: Path, *, seed: int) -> tuple[nn.Module, list[Tensor], Tensor]:
    """A model of the sweep, its calibration and its held-out windows."""
    lever = Precision.from_toml(SWEEP)
    assert isinstance(lever, Precision)
    model, _, calibration, held = _material(lever, lever.ladder_of_models.ladder()[0], seed=seed, cache=cache)
    return model, calibration, held


def lengths(cache: Path) -> Iterator[Row]:
    """SLAC, W4A8: loss_increase at each length of the task, calibrated at each; a range per token, or a static one."""
    for seed in range(3):
        model, calibration, held = material(cache, seed=seed)
        tasks = {t: torch.cat([held[:, i : i + t + 1] for i in range(0, held.shape[1] - t, t)]) for t in LENGTHS}
        before = {t: losses(model, task, batch=2048 // t)[0].mean() for t, task in tasks.items()}
        for ranges in ("token", "static"):
            made = {c: aqas(model, calibration, target=target(4, 8, act_range=ranges), length=c)[0] for c in LENGTHS}
            for t, task in tasks.items():
                row: Row = {"act_range": ranges, "task": t, "seed": seed}
                row |= {
                    f"at_{c}": float(losses(m, task, batch=2048 // t)[0].mean() - before[t]) for c, m in made.items()
                }
                others = [row[f"at_{c}"] for c in LENGTHS if c != t]
                yield row | {"matched": row[f"at_{t}"], "other": sum(others) / len(others)}


LEARNING = {
    "steps_100": Learning(100, 5e-3, 0), "steps_300": Learning(300, 1e-3, 0),
    "stopped_100": Learning(100, 5e-3, 0, patience=3),
}  # fmt: skip


def learning(cache: Path) -> Iterator[Row]:
    """LRQ of rank 16, W3A16: loss_increase and CPU seconds by steps and first rate; `stopped`: a quarter held out."""
    for seed in range(3):
        model, calibration, held = material(cache, seed=seed)
        loss, seconds = {"figure": "loss_increase", "seed": seed}, {"figure": "cpu_seconds", "seed": seed}
        for name, how in LEARNING.items():
            began = time.process_time()
            _, report = lrq(model, calibration, target=target(3), heldout=held, learning=how)
            said = report.plain()
            loss[name], seconds[name] = said["loss"] - said["loss_before"], time.process_time() - began
        yield loss
        yield seconds


def flashsvd(cache: Path) -> Iterator[Row]:
    """Peak bytes beside the input: a block of the ladder (width 96) and a layer of BERT-Base, random weights."""
    from transformers import BertConfig, BertModel

    for length, rank in ((128, 64), (256, 64), (512, 16), (512, 64), (512, 256)):
        x = {w: torch.randn(1, length, w, generator=torch.Generator().manual_seed(0)) for w in (96, 768)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            bert = BertModel(BertConfig(num_hidden_layers=1, vocab_size=64)).eval()
        gpt: Any = low_rank(GPT(Shape(width=96, depth=1, vocab=64), context=length, seed=0), rank=rank)
        for name, made in (("ladder", gpt), ("bert", low_rank(bert, rank=rank)))[rank > 64 :]:
            for tile in (64, 128):
                yield _peaks(name, made, x, rank=rank, tile=tile, turn=(gpt.cos[:length], gpt.sin[:length]))


def _peaks(name: str, made: Any, x: dict[int, Tensor], *, rank: int, tile: int, turn: tuple[Tensor, Tensor]) -> Row:
    small: Any = streamed(made, tile=tile)
    ladder, width = name == "ladder", 96 if name == "ladder" else 768
    plain, tiled = ((m.layers if ladder else m.encoder.layer)[0] for m in (made, small))
    given = (x[width], *turn) if ladder else (x[width],)
    with torch.no_grad():
        wanted = plain(*given)
        gap = float((tiled(*given) - wanted).abs().max() / wanted.abs().max())
    heads, hidden = (plain.self_attn.heads, plain.mlp.up_proj.up.shape[0]) if ladder else (12, 3072)
    length = x[width].shape[1]
    said = account(width=width, hidden=hidden, heads=heads, length=length, rank=rank, tile=tile, gated=ladder)
    row: Row = {"model": name, "length": length, "rank": rank, "tile": tile}
    row |= {"plain": peak_bytes(lambda: plain(*given)), "streamed": peak_bytes(lambda: tiled(*given))}
    return row | {"gap": gap, **{f"account_{k}": round(v) for k, v in said.items()}}


EXPERIMENTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "lengths": lengths, "learning": learning, "flashsvd": flashsvd
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", action="append", choices=list(EXPERIMENTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only or EXPERIMENTS:
        began = time.process_time()
        table = pd.DataFrame(list(EXPERIMENTS[name](given.cache)))
        table.to_csv(given.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        print(f"{name}: {len(table)} rows, {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
