"""Batches: the norm test that lets one grow, and the critical batch from runs at several (needs no PyTorch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LEAST = 5  # measurements at one batch before the norm test is believed


def norm_test(small: float, big: float, batch_small: float, batch_big: float, *, theta: float) -> float:
    """The batch that the norm test asks for, in the unit of the batches: tr(Sigma) / (theta^2 |g|^2).

    small, big: mean squared norms of gradients over batch_small and batch_big; tr(Sigma) from both, g over batch_big.
    The test tr(Sigma) / B <= theta^2 |g|^2 fails where more is asked for than B. As |g|^2 is |G|^2 + tr(Sigma) / B, it
    fails below B = B_simple (1 - theta^2) / theta^2: at theta = 2^-1/2 the batch grows to the gradient noise scale.

    Source: Lau et al. 2024 (AdAdaGrad, arXiv:2402.11215), after Byrd et al. 2012; the variance from micro-batches, as
    its authors do where there are several workers.
    """
    noise = (small - big) / (1 / batch_small - 1 / batch_big)
    return max(noise, 0.0) / (theta**2 * big)


def multiple_wanted(measurements: Sequence[Sequence[float]], *, unit: int, theta: float) -> int:
    """How many times `unit` tokens the norm test asks for: on the means of the measurements at the latest batch."""
    latest = [m for m in measurements if m[3] == measurements[-1][3]] if measurements else []
    if len(latest) < LEAST:
        return 1
    small, big = np.mean(latest, axis=0)[:2]
    wanted = norm_test(float(small), float(big), latest[-1][2], latest[-1][3], theta=theta)
    return math.ceil(wanted / unit)


def tokens_to_loss(curve: Mapping[str, Any] | pd.DataFrame, target: float) -> float | None:
    """Tokens at which a curve (columns tokens, loss, in order) first reaches a loss; None where it does not.

    Between two rows the loss is a straight line in ln tokens.
    """
    tokens, loss = (np.asarray(curve[key], float) for key in ("tokens", "loss"))
    below = np.flatnonzero(loss <= target)
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(tokens[0])
    part = (loss[i - 1] - target) / (loss[i - 1] - loss[i])
    return float(tokens[i - 1] * (tokens[i] / tokens[i - 1]) ** part)


def least_tokens(curves: pd.DataFrame, target: float) -> pd.DataFrame:
    """Tokens to a loss at each batch and its best rate: rows for `isoflop.fit("batch_tradeoff", ...)`.

    curves: run, seed, batch_tokens, lr (peak), tokens, loss, at constant rates. The best rate of a batch has the least
    geometric mean of tokens among those at which every seed gets there. One row a batch and seed: batch_tokens, seed,
    lr, tokens, steps, and edge: whether the best rate is the least or the largest tried, and a better may lie beyond.
    Raises ValueError where no rate of a batch gets there.
    """
    import pandas as pd

    rows = []
    for (batch, lr, seed), curve in curves.groupby(["batch_tokens", "lr", "seed"]):
        tokens = tokens_to_loss(curve.sort_values("tokens"), target)
        rows.append({"batch_tokens": batch, "lr": lr, "seed": seed, "tokens": math.inf if tokens is None else tokens})
    table, kept = pd.DataFrame(rows), []
    for batch in sorted(set(table["batch_tokens"])):
        tried = table[table["batch_tokens"] == batch]
        mean = np.log(tried["tokens"]).groupby(tried["lr"]).mean()
        if not np.isfinite(mean.min()):
            raise ValueError(f"no rate at batch_tokens {batch} reaches the loss {target:g} in every seed")
        best = mean.idxmin()
        edge = best in (mean.index.min(), mean.index.max())
        kept.append(tried[tried["lr"] == best].assign(edge=edge))
    out = pd.concat(kept, ignore_index=True)
    return out.assign(steps=out["tokens"] / out["batch_tokens"])
