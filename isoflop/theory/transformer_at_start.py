"""Sizes of activations and gradients through a transformer with random weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, doubling, need, simulated

Array = np.ndarray


def overlaps(f: Array, rho: Array, *, orders: int = 16) -> Array:
    """E f(z) f(z') of normal z, z' of correlation rho, by Hermite's expansion: sum of c_k^2 rho^k.

    f: its values at `_NODES`; c_k = E f(z) He_k(z) / (k!)^1/2.
    """
    before, now, total = np.zeros_like(_NODES), np.ones_like(_NODES), np.zeros_like(rho)
    for k in range(orders):
        total = total + (_WEIGHTS * f * now).sum() ** 2 * rho**k
        before, now = now, (_NODES * now - k**0.5 * before) / (k + 1) ** 0.5
    return total


def attended(normed: Array, *, scores: float, draws: int, rng: np.random.Generator) -> Array:
    """Overlaps between positions of what causal attention gives, for inputs of overlaps `normed`.

    scores: their standard deviation; 0 is flat attention, exact; else the mean over draws of normal scores whose
    correlations are those of their queries' and keys' positions (rotation by positions is left out).
    """
    seen = np.tril(np.ones_like(normed))
    if scores == 0.0:
        weight = seen / seen.sum(axis=1, keepdims=True)
        return weight @ normed @ weight.T
    root = np.linalg.cholesky(normed + 1e-9 * np.eye(len(normed)))
    z = np.exp(scores * (root @ rng.standard_normal((draws, *normed.shape)) @ root.T)) * seen
    weight = z / z.sum(axis=2, keepdims=True)
    return (weight @ normed @ weight.transpose(0, 2, 1)).mean(axis=0)


def recursion(
    start: float, *, depth: int, context: int, shrink: float, scores: float = 0.0, draws: int = 400, seed: int = 0
) -> Array:
    """Overlaps of the stream between positions, (2 depth + 1, context, context), after 0 .. 2 depth branches.

        K' = K + shrink branch(K^),    K^ = K_ts / (K_tt K_ss)^1/2

    since a branch reads the normed stream; mlp(K^) = K^ E f(z) f(z'), f = silu. It begins with independent tokens of
    mean square `start`. shrink: 1 / (2 depth) where branches start smaller by its root, 1 where they do not.
    """
    made, rng = [start * np.eye(context)], np.random.default_rng(seed)
    for index in range(2 * depth):
        normed = _normed(made[-1])
        attention = index % 2 == 0
        branch = attended(normed, scores=scores, draws=draws, rng=rng) if attention else normed * overlaps(_F, normed)
        made.append(made[-1] + shrink * branch)
    return np.array(made)


def back(forward: Array, *, shrink: float) -> Array:
    """Overlaps of gradients at each place of `forward` (flat attention), for independent ones of size one at the end.

        G = G' + shrink branch_back(G') / (K_tt K_ss)^1/2

    attention: through values, A^T G A; mlp: G (K^ E f'(z) f'(z') + E f(z) f(z')).
    """
    made, context = [np.eye(forward.shape[1])], forward.shape[1]
    average = np.tril(np.ones((context, context))) / np.arange(1, context + 1)[:, None]
    for index in reversed(range(len(forward) - 1)):
        stream, g = forward[index], made[-1]
        rho, size = _normed(stream), np.sqrt(np.diag(stream))
        branch = g * (rho * overlaps(_SLOPE, rho) + overlaps(_F, rho)) if index % 2 else average.T @ g @ average
        made.append(g + shrink * branch / np.outer(size, size))
    return np.array(made[::-1])


def _normed(k: Array) -> Array:
    size = np.sqrt(np.diag(k))
    return k / np.outer(size, size)


def transformer_at_start(
    *, depth: int = 4, width: int = 128, context: int = 8, sizes: int = 4, repeats: int = 24, seed: int = 0
) -> Simulated:
    """Measured over predicted mean squares, forward and backward, and how their scatter falls with the width.

    A pre-norm transformer without training: flat causal attention, SwiGLU, inputs of independent tokens. Part
    `shrunk`: branches smaller by (2 depth)^1/2, so that the stream stays of order one; `deep`: not so, where the
    stream's mean square grows linearly in the number of branches; `width`: the squared error of the forward ratio,
    which falls as 1 / width.

    Source: after Dinan, Yaida and Zhang 2023 (arXiv 2304.02034): recursions at leading order in 1 / width, re-derived
    here for this block. Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("transformer_at_start", depth=(depth, 1), width=(width, 8), context=(context, 2), sizes=(sizes, 3),
         repeats=(repeats, 2))  # fmt: skip
    rng = np.random.default_rng(seed)
    parts: dict[str, list[dict[str, float]]] = {"shrunk": [], "deep": [], "width": []}
    for draw in range(repeats):
        for part, shrink in (("shrunk", 1 / (2 * depth)), ("deep", 1.0)):
            expected = recursion(1.0, depth=depth, context=context, shrink=shrink)
            forward, gradient = _measured(rng, width, depth, context, shrink)
            wanted = back(expected, shrink=shrink)[0]
            ratios = {"forward": forward / _mean(expected[-1]), "backward": gradient / _mean(wanted)}
            parts[part].append({"seed": draw, **ratios})
        for n in doubling(32, sizes):
            forward, _ = _measured(rng, n, depth, context, 1 / (2 * depth))
            error = (forward / _mean(recursion(1.0, depth=depth, context=context, shrink=1 / (2 * depth))[-1]) - 1) ** 2
            parts["width"].append({"seed": draw, "width": n, "error": error})
    claims = {f"{way}_{part}": Claim(1.0, way, part, within=0.05 if part == "shrunk" else 0.1)
              for part in ("shrunk", "deep") for way in ("forward", "backward")}  # fmt: skip
    return simulated(
        "transformer_at_start",
        {part: columns(made) for part, made in parts.items()},
        claims | {"alpha_width": Claim(1.0, "error", "width", axis="width", within=0.4)},
        source="arXiv 2304.02034",
        status="recursions re-derived (leading order in 1 / width) and simulated",
        settings=settings,
    )


def _mean(k: Array) -> float:
    return float(np.diag(k).mean())


def _silu(x: Array) -> tuple[Array, Array]:
    gate = 1 / (1 + np.exp(-x))
    return x * gate, gate * (1 + x * (1 - gate))


_NODES = np.linspace(-10, 10, 4001)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_F, _SLOPE = _silu(_NODES)


def _measured(rng: np.random.Generator, width: int, depth: int, context: int, shrink: float) -> tuple[float, float]:
    """Mean square of the stream at the end, and of a gradient at the start over that at the end."""
    x, scale = rng.standard_normal((context, width)), (shrink / width) ** 0.5
    average = np.tril(np.ones((context, context))) / np.arange(1, context + 1)[:, None]
    steps: list[tuple[Array, Array, Callable[[Array], Array]]] = []
    for index in range(2 * depth):
        size = (x**2).mean(axis=1, keepdims=True) ** 0.5
        y, way_back = _mlp(rng, x / size, scale) if index % 2 else _attention(rng, x / size, scale, average)
        steps.append((x / size, size, way_back))
        x = x + y
    g = last = rng.standard_normal((context, width))
    for normed, size, way_back in reversed(steps):
        h = way_back(g)
        g = g + (h - normed * (h * normed).mean(axis=1, keepdims=True)) / size
    return float((x**2).mean()), float((g**2).mean() / (last**2).mean())


def _attention(
    rng: np.random.Generator, x: Array, scale: float, average: Array
) -> tuple[Array, Callable[[Array], Array]]:
    """Flat attention's output, and its way back."""
    width = x.shape[1]
    value, out = rng.standard_normal((2, width, width))
    y = average @ (x @ value / width**0.5) @ out * scale
    return y, lambda g: average.T @ (g @ out.T * scale) @ value.T / width**0.5


def _mlp(rng: np.random.Generator, x: Array, scale: float) -> tuple[Array, Callable[[Array], Array]]:
    """The SwiGLU's output, and its way back."""
    width = x.shape[1]
    gate, up, down = rng.standard_normal((3, width, width))
    a, b = x @ gate / width**0.5, x @ up / width**0.5
    f, slope = _silu(a)

    def way_back(g: Array) -> Array:
        inner = g @ down.T * scale
        return ((inner * slope * b) @ gate.T + (inner * f) @ up.T) / width**0.5

    return (f * b) @ down * scale, way_back
