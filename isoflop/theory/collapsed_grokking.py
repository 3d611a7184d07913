"""Modular addition without weight decay: softmax stops in rounding, StableMax and perpGrad go on to generalise."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated
from isoflop.theory.softmax_collapse import perp_grad

_WAYS = ("softmax", "stablemax", "perp")


def collapsed_grokking(
    *, modulus: int = 17, width: int = 128, share: float = 0.8, rate: float = 0.03, steps: int = 1500, repeats: int = 4,
    seed: int = 0,
) -> Simulated:  # fmt: skip
    """Test accuracy on a + b mod p of a float32 network by softmax, by StableMax, and by softmax with perpGrad.

    Two layers of `width` units with squares for activation, full batches of a `share` of all pairs, Adam without decay.
    Column `collapsed`: share of training pairs whose softmax loss is exactly 0 in float32 at the end, 1 for softmax.
    `accuracy` on the other pairs; learns: 1 where it is above a half, of which guessing has 1 / p.

    Source: Prieto et al. 2025 (arXiv 2501.04697). Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("collapsed_grokking", modulus=(modulus, 5), width=(width, 2), share=(share, 0.1), steps=(steps, 10),
         repeats=(repeats, 2))  # fmt: skip
    if not share < 1:
        raise ValueError(f"collapsed_grokking: share must lie below 1, got {share:g}; the other pairs are the test")
    parts: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
    for draw in range(repeats):
        for way, rows in parts.items():
            accuracy, collapsed = _train(way, modulus, width, share, rate, steps, [seed, draw])
            rows.append({"seed": draw, "accuracy": accuracy, "collapsed": collapsed, "learns": float(accuracy > 0.5)})
    return simulated(
        "collapsed_grokking",
        {part: columns(rows) for part, rows in parts.items()},
        {
            "softmax_collapsed": Claim(1.0, "collapsed", "softmax", within=0.05),
            "softmax_learns": Claim(0.0, "learns", "softmax"),
            "stablemax_learns": Claim(1.0, "learns", "stablemax"),
            "perp_learns": Claim(1.0, "learns", "perp"),
        },
        source="arXiv 2501.04697",
        status="trained in the small: activation, modulus, optimiser ours; StableMax and perpGrad as in public code",
        settings=settings,
    )


def _train(
    way: str, modulus: int, width: int, share: float, rate: float, steps: int, seed: list[int]
) -> tuple[float, float]:
    """Accuracy on the pairs left out, and the share of training pairs whose softmax loss is exactly 0."""
    rng = np.random.default_rng(seed)
    first, second = np.divmod(rng.permutation(modulus**2), modulus)
    one = np.eye(modulus, dtype=np.float32)
    x, y = np.hstack([one[first], one[second]]), one[(first + second) % modulus]
    n = int(share * modulus**2)
    weights = [rng.standard_normal(s).astype(np.float32) / np.sqrt(np.float32(s[0]))
               for s in ((2 * modulus, width), (width, modulus))]  # fmt: skip
    mean, square = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step in range(1, steps + 1):
        for i, g in enumerate(_gradients(weights, x[:n], y[:n], way)):
            g = perp_grad(g, weights[i]) if way == "perp" else g
            mean[i] += np.float32(0.1) * (g - mean[i])
            square[i] += np.float32(0.02) * (g * g - square[i])
            sizes = np.sqrt(square[i] / np.float32(1 - 0.98**step)) + np.float32(1e-8)
            weights[i] -= np.float32(rate / (1 - 0.9**step)) * mean[i] / sizes
    logits = (x @ weights[0]) ** 2 @ weights[1]
    right = logits.argmax(axis=1) == y.argmax(axis=1)
    shifted = logits[:n] - logits[:n].max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - (shifted * y[:n]).sum(axis=1)
    return float(right[n:].mean()), float((loss == 0).mean())


def _gradients(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, way: str) -> list[np.ndarray]:
    """Of the mean cross-entropy, by layer, in the floats of the weights."""
    before = x @ weights[0]
    hidden = before * before
    logits = hidden @ weights[1]
    if way == "stablemax":
        raised = np.where(logits >= 0, logits + 1, 1 / (1 - np.minimum(logits, 0)))
        slope = np.where(logits >= 0, np.float32(1), raised * raised)
        back = slope / raised.sum(axis=1, keepdims=True) - y * slope / raised
    else:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        back = raised / raised.sum(axis=1, keepdims=True) - y
    back /= np.float32(len(x))
    return [x.T @ (back @ weights[1].T * (2 * before)), hidden.T @ back]
