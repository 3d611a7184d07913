"""Where cross-entropy in a short float becomes exactly 0, and StableMax instead."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated


def softmax_collapse(*, classes: int = 2, repeats: int = 12, sizes: int = 6, seed: int = 0) -> Simulated:
    """The logit gap at which the loss of softmax is lost in rounding, and how StableMax's loss falls instead.

    Part `gap`: by bisection in float16, float32 and float64, the gap of `classes` - 1 equal wrong logits at which
    log(sum exp) rounds to the right logit's, against ln(2^bits (classes - 1)), bits the precision (11, 24, 53).
    Part `stablemax`: with s(x) = x + 1 for x >= 0, else 1 / (1 - x), the loss falls as gap^-2 when the gap is shared by
    both sides: a power, not exp(-gap), so that it is not absorbed.

    Source: Prieto et al. 2025 (arXiv 2501.04697). Raises ValueError for fewer than 2 classes.
    """
    settings = dict(locals())
    need("softmax_collapse", classes=(classes, 2), repeats=(repeats, 2), sizes=(sizes, 3))
    rng = np.random.default_rng(seed)
    gaps = []
    for kind, bits in ((np.float16, 11), (np.float32, 24), (np.float64, 53)):
        predicted = float(np.log(2.0**bits * (classes - 1)))
        found = _collapse_gap(kind, classes)
        gaps.append({"bits": bits, "gap": found, "theory": predicted, "relative": found / predicted})
    falls = []
    for draw in range(repeats):
        for half in 50.0 * 2.0 ** np.arange(sizes):
            logits = np.full(classes, -half) * np.exp(0.05 * rng.standard_normal(classes))
            logits[0] *= -1
            falls.append({"seed": draw, "gap": float(logits[0] - logits[1:].mean()),
                          "loss": float(-log_stablemax(logits)[0])})  # fmt: skip
    claims = {
        "gap_relative": Claim(1.0, "relative", "gap", within=0.05),
        "alpha_stablemax": Claim(2.0, "loss", "stablemax", axis="gap", within=0.05),
    }
    return simulated(
        "softmax_collapse",
        {"gap": columns(gaps), "stablemax": columns(falls)},
        claims,
        source="arXiv 2501.04697",
        status="StableMax as in public code, the algebra derived here and simulated; no network is trained",
        settings=settings,
    )


def stablemax(logits: np.ndarray) -> np.ndarray:
    """s(x_i) / sum s(x_j) over the last axis, s(x) = x + 1 for x >= 0, else 1 / (1 - x): slope 1 at 0, never 0."""
    raised = np.where(logits >= 0, logits + 1.0, 1.0 / (1.0 - np.minimum(logits, 0)))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def log_stablemax(logits: np.ndarray) -> np.ndarray:
    """ln of `stablemax`, with log1p of the other classes' share: small losses keep their digits."""
    raised = np.where(logits >= 0, logits + 1.0, 1.0 / (1.0 - np.minimum(logits, 0)))
    others = raised.sum(axis=-1, keepdims=True) - raised
    return np.asarray(-np.log1p(others / raised))


def perp_grad(gradient: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """g - (g.w / w.w) w: the gradient without the part that only scales the weights. g itself where w is 0."""
    size = float((weights * weights).sum())
    return gradient if size == 0 else gradient - (gradient * weights).sum() / size * weights


def _collapse_gap(kind: type[np.floating], classes: int) -> float:
    """The least gap at which -log softmax of the right class is exactly 0 in this float."""
    low, high = 0.0, 100.0
    for _ in range(60):
        gap = 0.5 * (low + high)
        wrong = np.exp(kind(-gap))
        total = kind(1.0) + kind(classes - 1) * wrong
        low, high = (low, gap) if np.log(total) == 0 else (gap, high)
    return 0.5 * (low + high)
