"""Sparse autoencoders on a small trained model, and on dictionaries that are known.

    python -m isoflop.levers.activations._dictionaries --out FOLDER

writes recorded/activations/{sae,dictionary,dark_matter}.csv. The activations are those of recorded/arithmetic_lm, a
byte transformer of width 96 that adds numbers, after its second of three blocks; the spread is that of the
autoencoder's start and of the texts, not of the model's training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import isoflop
from isoflop._meter import get_meter
from isoflop.levers.activations._experiment import Row, main
from isoflop.levers.activations._hidden import hidden_states
from isoflop.levers.activations.topk_sae import SparseAutoencoder, recovered, topk_sae
from isoflop.levers.precision._folder import load_model
from isoflop.levers.think._task_model import SumSource

LATENTS, ACTIVE = (64, 128, 256, 512), (4, 8, 16)
_LAYER, _CONTEXT = "layers.1", 128


def steps(latents: int) -> int:
    """600 for 64 latents and more for more, as latents^.6: about what autoencoders took to converge.

    Source: Gao et al. 2024 (arXiv 2406.04093), section 3, the exponent of GPT-2 small (from memory).
    """
    return round(600 * (latents / 64) ** 0.6)


def activations(seed: int) -> tuple[Tensor, Tensor]:
    """Hidden states of the recorded model on its own kind of text: 32,768 rows to train on, 8,192 others."""
    model, _ = load_model(Path(isoflop.__file__).parent / "recorded" / "arithmetic_lm")
    parts = []
    for step in range(4):
        windows = torch.from_numpy(SumSource().batch(seed=seed + 77, step=step, count=80, context=_CONTEXT))
        parts.append(hidden_states(_plain(model), windows[:, :-1], layers=[_LAYER])[_LAYER].flatten(0, 1))
    x = torch.cat(parts)
    return x[:32768], x[32768:]


def _plain(model: Any) -> Any:
    from isoflop.levers.precision._plain import plain

    return plain(model)


def fits(seed: int) -> Iterator[tuple[str, Row]]:
    """The grid of latents and active ones, the same without the loss that revives latents, and the errors' parts."""
    x, held = activations(seed)
    made: dict[tuple[int, int], SparseAutoencoder] = {}
    for latents in LATENTS:
        for active in ACTIVE:
            for auxiliary in (1 / 32, 0.0) if latents == LATENTS[-1] else (1 / 32,):
                began = time.process_time()
                sae = topk_sae(x, latents=latents, active=active, steps=steps(latents), auxiliary=auxiliary, seed=seed)
                if auxiliary:
                    made[latents, active] = sae
                yield "sae", {
                    "seed": seed, "latents": latents, "active_latents": active, "steps": steps(latents),
                    "auxiliary": int(auxiliary > 0), "mse": sae.mse(held), "dead": sae.dead,
                    "cpu_seconds": time.process_time() - began,
                }  # fmt: skip
    for active in ACTIVE:
        yield from (("dark_matter", row) for row in _dark(held, made, seed=seed, active=active))


def _dark(held: Tensor, made: dict[tuple[int, int], SparseAutoencoder], *, seed: int, active: int) -> Iterator[Row]:
    small = (held - made[LATENTS[0], active](held)).norm(dim=1).double().numpy()
    for latents in LATENTS:
        error = held - made[latents, active](held)
        parts = get_meter("linear_error_share")(x=held.double().numpy(), error=error.double().numpy())
        yield {
            "seed": seed, "latents": latents, "active_latents": active,
            "linear_share": parts["linear_share"], "norm_r2": parts["norm_r2"], "error_share": parts["error_share"],
            "small_r2": predicted(small, error.norm(dim=1).double().numpy()),
        }  # fmt: skip


def predicted(x: np.ndarray, y: np.ndarray) -> float:
    """R2 on the second half of the rows of a line through y against x, fitted to the first half."""
    half = len(x) // 2
    slope, level = np.polyfit(x[:half], y[:half], 1)
    left = y[half:] - (slope * x[half:] + level)
    return float(1 - (left**2).sum() / ((y[half:] - y[half:].mean()) ** 2).sum())


def dictionary(seed: int) -> Iterator[tuple[str, Row]]:
    """Rows of three of 64 random directions in 32 dimensions, each .5 to 1.5 long: how many directions are found."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(64, 32, generator=generator)
    truth /= truth.norm(dim=1, keepdim=True)
    place = torch.rand(20000, 64, generator=generator).argsort(dim=1)[:, :3]
    size = 0.5 + torch.rand(20000, 3, generator=generator)
    x = (truth[place] * size[:, :, None]).sum(dim=1)
    for latents in (64, 128):
        sae = topk_sae(x, latents=latents, active=3, steps=2000, seed=seed)
        cosine = recovered(sae.decoder, truth)
        yield "dictionary", {
            "seed": seed, "latents": latents, "recovered": float((cosine > 0.9).double().mean()),
            "cosine": float(cosine.mean()), "mse": sae.mse(x), "dead": sae.dead,
        }  # fmt: skip


def experiment(seed: int) -> Iterator[tuple[str, Row]]:
    """All tables' rows of a seed."""
    yield from dictionary(seed)
    yield from fits(seed)


if __name__ == "__main__":
    main(__doc__, experiment, seeds=3)
