"""Interpolation of a smooth target on a d-dimensional manifold."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, doubling, need, simulated


def resolution_limited(
    *, dimension: int = 2, smallest: int = 256, sizes: int = 5, queries: int = 400, repeats: int = 10, seed: int = 0
) -> Simulated:
    """Mean squared error from n samples on a d-dimensional manifold: ~ n^(-2/d) nearest, ~ n^(-4/d) piecewise linear.

    The manifold is a torus embedded in 2 d dimensions, the target a sum of one cosine a dimension. Part `nearest`
    copies the nearest sample; part `linear` fits a plane to the 2 (d + 1) nearest, as a piecewise linear network can.
    Neighbours are found in the embedding: its dimension does not count, the manifold's does.

    Source: Bahri et al. 2021 (arXiv 2102.06701), resolution-limited regime: a c-th order interpolant has a pointwise
    error of n^(-c/d), squared here. Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("resolution_limited", dimension=(dimension, 1), smallest=(smallest, 8 * (dimension + 1)), sizes=(sizes, 3),
         queries=(queries, 10), repeats=(repeats, 1))  # fmt: skip
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, float]]] = {"nearest": [], "linear": []}
    for draw in range(repeats):
        phases = rng.uniform(0, 2 * np.pi, dimension)
        for n in doubling(smallest, sizes):
            known, asked = rng.random((n, dimension)), rng.random((queries, dimension))
            for part, loss in zip(rows, _errors(known, asked, phases), strict=True):
                rows[part].append({"seed": draw, "samples": n, "loss": loss})
    claims = {
        "alpha_nearest": Claim(2 / dimension, "loss", "nearest", axis="samples", within=0.1 / dimension),
        "alpha_linear": Claim(4 / dimension, "loss", "linear", axis="samples", within=0.2 / dimension),
    }
    return simulated(
        "resolution_limited",
        {part: columns(made) for part, made in rows.items()},
        claims,
        source="arXiv 2102.06701",
        status="exponents re-derived and simulated by interpolation; no network is trained",
        settings=settings,
    )


def _errors(known: np.ndarray, asked: np.ndarray, phases: np.ndarray) -> tuple[float, float]:
    """Mean squared errors of the nearest sample and of a plane through the nearest ones."""
    values, truth = _target(known, phases), _target(asked, phases)
    near = np.argsort(-_embedded(asked) @ _embedded(known).T, axis=1)[:, : 2 * (known.shape[1] + 1)]
    away = known[near] - asked[:, None]
    away -= np.round(away)  # the short way round
    plane = np.concatenate([np.ones((*near.shape, 1)), away], axis=2)
    fitted = (np.linalg.pinv(plane) @ values[near][..., None])[:, 0, 0]
    return float(((values[near[:, 0]] - truth) ** 2).mean()), float(((fitted - truth) ** 2).mean())


def _embedded(place: np.ndarray) -> np.ndarray:
    return np.concatenate([np.cos(2 * np.pi * place), np.sin(2 * np.pi * place)], axis=1)


def _target(place: np.ndarray, phases: np.ndarray) -> np.ndarray:
    return np.asarray(np.cos(2 * np.pi * place + phases).sum(axis=1))
