"""One attention head that averages the few tokens asked for: the width it needs."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated


def sparse_averaging(
    *, tokens: int = 128, asked: int = 3, sizes: int = 4, pairs: int = 32, repeats: int = 8, seed: int = 0
) -> Simulated:
    """Width at which a head averages q of n tokens exactly: ~ q, with the logarithm of n and no power of it.

    Tokens have random signs / sqrt(m) as positions; the query is the shortest vector whose product with the q asked
    positions is 1. The head is right where its product with every other position is at most 1/2: then a soft-max of
    a sharpness of 2 ln(n / .001) averages the values to .001. Others' products have variance q / m, so that this holds
    in half of the cases from m = q (1 + 4 a(n)^2) on, a(n) the median of the largest of n normal numbers. Parts:
    `asked`, width by q at `tokens`; `tokens`, by n; relative = width / that m; `head`: largest error of the average at
    3/2 of it.

    Source: Sanford, Hsu and Telgarsky 2023 (arXiv 2306.02896), m of order q log n for one head; the constant is derived
    here. Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("sparse_averaging", tokens=(tokens, 8), asked=(asked, 1), sizes=(sizes, 3), pairs=(pairs, 8),
         repeats=(repeats, 2))  # fmt: skip
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, float]]] = {"asked": [], "tokens": [], "head": []}
    for draw in range(repeats):
        for k in range(sizes):
            for part, n, q in (("asked", tokens, asked * 2**k), ("tokens", tokens * 2**k, asked)):
                width = _width(n, q, pairs, rng)
                rows[part].append({"seed": draw, "n": n, "q": q, "width": width, "relative": width / _enough(n, q)})
        rows["head"].append({"seed": draw, "error": _error(tokens, asked, rng)})
    return simulated(
        "sparse_averaging",
        {part: columns(made) for part, made in rows.items()},
        {
            "alpha_asked": Claim(1.0, "width", "asked", axis="q", rises=True, within=0.1),
            "relative_tokens": Claim(1.0, "relative", "tokens", within=0.1),
            "error": Claim(0.0, "error", "head", within=1e-3),
        },
        source="arXiv 2306.02896",
        status="construction re-derived and simulated; that recurrent nets need a power of n is a proof, not simulated",
        settings=settings,
    )


def _enough(n: int, q: int) -> float:
    """q (1 + 4 a^2), a the median of the largest of n - q normal numbers; q more, as the query is not a plain sum."""
    from statistics import NormalDist

    return q * (1 + 4 * NormalDist().inv_cdf(0.5 ** (1 / (n - q))) ** 2)


def _width(n: int, q: int, queries: int, rng: np.random.Generator) -> float:
    """Width at which the largest other product has the median 1/2: sought from 16 q on, falling as 1 / sqrt(width)."""
    width = 16.0 * q
    for _ in range(4):
        largest = [_products(*made, n)[1] for made in _queries(n, q, round(width), queries, rng)]
        width = round(width) * (2 * float(np.median(largest))) ** 2
    return width


def _queries(
    n: int, q: int, width: int, queries: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(positions, asked, query) of `queries` random sets of q among the same n tokens."""
    places = rng.choice([-1.0, 1.0], (n, width)) / np.sqrt(width)
    sets = [rng.choice(n, q, replace=False) for _ in range(queries)]
    return [(places, s, places[s].T @ np.linalg.solve(places[s] @ places[s].T, np.ones(q))) for s in sets]


def _products(places: np.ndarray, asked: np.ndarray, query: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Products of all positions with the query, and the largest of those that were not asked for."""
    products = places @ query
    return products, float(np.delete(products, asked).max())


def _error(n: int, q: int, rng: np.random.Generator) -> float:
    """Largest error of the head's average of values in [-1, 1], over 16 queries that meet the condition."""
    sharp, worst = 2 * np.log(n / 1e-3), 0.0
    for places, asked, query in _queries(n, q, round(1.5 * _enough(n, q)), 16, rng):
        products, largest = _products(places, asked, query, n)
        values = rng.uniform(-1, 1, n)
        weight = np.exp(sharp * (products - 1))
        if largest <= 0.5:
            worst = max(worst, abs(float(weight @ values / weight.sum() - values[asked].mean())))
    return worst
