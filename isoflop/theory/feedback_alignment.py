"""Training with fixed random feedback, coarse and noisy as an optical device gives it."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated

_WAYS = ("backprop", "exact", "coarse")


def feedback_alignment(
    *, inputs: int = 10, width: int = 32, outputs: int = 5, noise: float = 0.5, rows: int = 200, steps: int = 300,
    rate: float = 0.3, repeats: int = 6, seed: int = 0,
) -> Simulated:  # fmt: skip
    """What is left of a random projection of the errors when it is cut to signs or made noisy, and what it trains.

    Direct feedback alignment sends B e, B a fixed random matrix and e the output's error, to each hidden layer in place
    of the back-propagated one. Part `projection`: the cosine of B e and sign(B e), sqrt(2 / pi) for many units, and of
    B e and B e with relative noise s, 1 / sqrt(1 + s^2); as ratios to these. Part `training`: a network of two hidden
    layers learns a random teacher's classes by back-propagation, by B e, and by sign(B e) with noise. aligned: 1 where
    the first layer's update has a positive cosine with the gradient, on average over the steps. kept: accuracy on new
    rows over back-propagation's.

    Source: Launay et al. 2020 (arXiv 2012.06373), optical direct feedback alignment; the cosines derived here. Raises
    ValueError for too small settings.
    """
    settings = dict(locals())
    need("feedback_alignment", inputs=(inputs, 2), width=(width, 4), outputs=(outputs, 2), noise=(noise, 0),
         rows=(rows, 20), steps=(steps, 10), repeats=(repeats, 2))  # fmt: skip
    made: dict[str, list[dict[str, float]]] = {"projection": [], "training": []}
    for draw in range(repeats):
        rng = np.random.default_rng([seed, draw])
        projected = rng.standard_normal((50, outputs)) @ rng.standard_normal((outputs, 4000))
        noisy = projected + noise * projected.std(axis=1, keepdims=True) * rng.standard_normal(projected.shape)
        made["projection"].append({
            "seed": draw, "sign": _cosine(projected, np.sign(projected)) / np.sqrt(2 / np.pi),
            "noisy": _cosine(projected, noisy) * np.sqrt(1 + noise**2),
        })  # fmt: skip
        score, cosine = {}, {}
        for way in _WAYS:
            score[way], cosine[way] = _train(way, inputs, width, outputs, noise, rows, steps, rate, [seed, draw, 1])
        made["training"].append({
            "seed": draw, "backprop": score["backprop"], "cosine": cosine["coarse"],
            "aligned": float(min(cosine["exact"], cosine["coarse"]) > 0),
            "kept_exact": score["exact"] / score["backprop"], "kept_coarse": score["coarse"] / score["backprop"],
        })  # fmt: skip
    return simulated(
        "feedback_alignment",
        {part: columns(lines) for part, lines in made.items()},
        {
            "sign": Claim(1.0, "sign", "projection", within=0.01),
            "noisy": Claim(1.0, "noisy", "projection", within=0.01),
            "aligned": Claim(1.0, "aligned", "training"),
        },
        source="arXiv 2012.06373",
        status="cosines derived and simulated; trained in the small; of the accuracy theory says nothing",
        settings=settings,
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine between rows."""
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def _train(
    way: str, inputs: int, width: int, outputs: int, noise: float, rows: int, steps: int, rate: float, seed: list[int]
) -> tuple[float, float]:
    """Accuracy on as many new rows, and the mean cosine of the first layer's updates with its gradients."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * rows, inputs))
    teacher = np.tanh(x @ rng.standard_normal((inputs, width)) / np.sqrt(inputs)) @ rng.standard_normal(
        (width, outputs)
    )
    y = np.eye(outputs)[teacher.argmax(axis=1)]
    shapes = ((inputs, width), (width, width), (width, outputs))
    w = [rng.standard_normal(s) / np.sqrt(s[0]) for s in shapes]
    back = [rng.standard_normal((outputs, width)) / np.sqrt(outputs) for _ in range(2)]
    cosine = 0.0
    for _ in range(steps):
        first = np.tanh(x[:rows] @ w[0])
        second = np.tanh(first @ w[1])
        logits = second @ w[2]
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = raised / raised.sum(axis=1, keepdims=True) - y[:rows]
        true = error @ w[2].T * (1 - second**2)
        truth = true @ w[1].T * (1 - first**2)
        sent = [truth, true]
        if way != "backprop":
            sent = [_sent(error @ b, way, noise, rng) * (1 - h**2) for b, h in zip(back, (first, second), strict=True)]
        update = x[:rows].T @ sent[0]
        cosine += _cosine(update.reshape(1, -1), (x[:rows].T @ truth).reshape(1, -1)) / steps
        for layer, change in zip(w, (update, first.T @ sent[1], second.T @ error), strict=True):
            layer -= rate / rows * change
    ahead = np.tanh(np.tanh(x[rows:] @ w[0]) @ w[1]) @ w[2]
    right = float((ahead.argmax(axis=1) == y[rows:].argmax(axis=1)).mean())
    return right, cosine


def _sent(projected: np.ndarray, way: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What the hidden layer is told: the projection, or its signs at its own mean size, with noise of that size."""
    if way == "exact":
        return projected
    size = np.abs(projected).mean(axis=1, keepdims=True)
    return np.asarray(size * (np.sign(projected) + noise * rng.standard_normal(projected.shape)))
