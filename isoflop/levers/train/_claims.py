"""What an activation function is said to be, and what is found when it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Activation = Callable[..., Tensor]

WORDS = ("monotone", "odd", "even", "smooth", "step", "rowwise")
UNSAID = {"step": "jumps", "rowwise": "reads its row"}  # what may not go unsaid
FAR = 30.0  # how far from zero a function is looked at


@dataclass(frozen=True)
class Claims:
    """words: "monotone" (never falls), "odd", "even", "smooth" (derivative continuous), "step" (jumps),
        "rowwise" (reads the size of its row, the last axis, too: all else is said of rows of size 1).

    low, high: bounds that it does not leave; zero: its value at 0.
    """

    words: frozenset[str]
    low: float
    high: float
    zero: float


def claims(
    words: str, *, low: float = -math.inf, high: float = math.inf, zero: float = 0.0
) -> Callable[[Activation], Activation]:
    """Write on an activation function what it is said to be. Raises ValueError for a word that is not known."""
    if unknown := set(words.split()) - set(WORDS):
        raise ValueError(f"claims {sorted(unknown)} are not known; known: {', '.join(WORDS)}")

    def write(f: Activation) -> Activation:
        f.claims = Claims(frozenset(words.split()), low, high, zero)  # type: ignore[attr-defined]
        return f

    return write


def pointwise(f: Activation) -> Activation:
    """f, or, where it reads its row too, f as it is in rows of size 1."""
    said: Claims | None = getattr(f, "claims", None)
    return partial(f, size=1.0) if said and "rowwise" in said.words else f


@dataclass(frozen=True)
class Looked:
    """What was found of a function on [-FAR, FAR], and under N(0, 1): E f, (E f^2)^1/2 and (E f'^2)^1/2."""

    words: frozenset[str]
    low: float
    high: float
    zero: float
    mean: float
    size: float
    slope: float


def look(f: Activation) -> Looked:
    """Look at a function: values on a fine grid, derivatives by autograd, expectations by quadrature.

    A jump shows where the largest step between neighbours does not shrink as the grid is refined; "smooth" the same
    of the derivative. Raises ValueError where a value or derivative is not finite.
    """
    from isoflop.levers.train._activations import gauss_rule

    rows = _reads_rows(f)
    f = pointwise(f)
    (_, y, slope), (_, fine, fine_slope) = _values(f, 2000), _values(f, 8000)
    if not (np.isfinite(y).all() and np.isfinite(slope).all()):
        raise ValueError("a value or derivative is not finite")
    found, scale = {"rowwise"} if rows else set(), 1e-9 * (1 + np.abs(y))
    found |= {"monotone"} if (np.diff(y) >= -scale[1:]).all() else set()
    found |= {"odd"} if np.allclose(y, -y[::-1], atol=1e-12) else set()
    found |= {"even"} if np.allclose(y, y[::-1], atol=1e-12) else set()
    found |= {"step"} if _jumps(y, fine) else set()
    found |= {"smooth"} if not _jumps(y, fine) and not _jumps(slope, fine_slope) else set()
    nodes, weight = gauss_rule(2000)
    _, values, slopes = _values(f, 0, at=nodes)
    mean, size, gain = (weight * values).sum(), (weight * values**2).sum() ** 0.5, (weight * slopes**2).sum() ** 0.5
    return Looked(frozenset(found), float(fine.min()), float(fine.max()), float(_values(f, 0, at=np.zeros(1))[1][0]),
                  float(mean), float(size), float(gain))  # fmt: skip


def _values(f: Activation, half: int, *, at: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, f(x), f'(x); points fall off the kinks that sit at round numbers."""
    import torch

    grid = np.linspace(-FAR, FAR, 2 * half + 2) if at is None else at
    x = torch.tensor(grid, dtype=torch.float64, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x) if y.requires_grad else (torch.zeros_like(x),)
    return grid, y.detach().numpy(), slope.numpy()


def _reads_rows(f: Activation) -> bool:
    """Whether f(1) is another number beside 1 than beside 3."""
    import torch

    beside = f(torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=torch.float64))[:, 0]
    return not torch.allclose(beside[0], beside[1], rtol=1e-9)


def _jumps(coarse: np.ndarray, fine: np.ndarray) -> bool:
    """Whether the largest step between neighbours stays when there are four times as many."""
    a, b = np.abs(np.diff(coarse)).max(), np.abs(np.diff(fine)).max()
    return bool(b > 1e-9 and b > 0.6 * a)


def broken(f: Activation) -> list[str]:
    """Claims of a function that do not hold, in words; bounds are allowed 1e-3 beyond what was written."""
    said: Claims = f.claims  # type: ignore[attr-defined]
    seen = look(f)
    missing = [f"is not {word}" for word in sorted(said.words - seen.words)]
    missing += [text for word, text in UNSAID.items() if word in seen.words - said.words]
    if seen.low < said.low - 1e-3 or seen.high > said.high + 1e-3:
        missing.append(f"leaves [{said.low:g}, {said.high:g}]: [{seen.low:g}, {seen.high:g}]")
    loose = [abs(a - b) for a, b in ((seen.low, said.low), (seen.high, said.high)) if math.isfinite(b)]
    if loose and max(loose) > 0.05:
        missing.append(f"keeps well inside [{said.low:g}, {said.high:g}]: [{seen.low:g}, {seen.high:g}]")
    if abs(seen.zero - said.zero) > 1e-5:
        missing.append(f"is {seen.zero:g} at 0, not {said.zero:g}")
    return missing


def self_normalising(*, mean: float = 0.0, variance: float = 1.0) -> tuple[float, float]:
    """(lambda, alpha) of the scaled exponential linear unit that keeps this mean and variance.

    Solves E f(z) = mean, E f(z)^2 = variance + mean^2 for z ~ N(mean, variance), where f(z) = lambda z above zero and
    lambda alpha (exp(z) - 1) below: weights of sum 0 and of squares 1 need mean 0, and others move z accordingly.
    Source: arXiv:1706.02515, eqs. 4 to 5 and 14. Raises ValueError where no positive pair does so.
    """

    def part(k: float) -> float:
        """E[exp(k z); z < 0]."""
        at = (mean + k * variance) / math.sqrt(2 * variance)
        return 0.5 * math.exp(k * mean + k * k * variance / 2) * math.erfc(at)

    below = 0.5 * math.erfc(mean / math.sqrt(2 * variance))
    density = math.sqrt(variance / (2 * math.pi)) * math.exp(-mean * mean / (2 * variance))
    first, second = mean * (1 - below) + density, (mean**2 + variance) * (1 - below) + mean * density
    one, two = part(1.0) - below, part(2.0) - 2 * part(1.0) + below
    return _solve(first, second, one, two, mean=mean, square=variance + mean * mean)


def _solve(first: float, second: float, one: float, two: float, *, mean: float, square: float) -> tuple[float, float]:
    """lambda (first + alpha one) = mean and lambda^2 (second + alpha^2 two) = square, both numbers positive."""
    if mean == 0:
        alpha = -first / one
        return math.sqrt(square / (second + alpha**2 * two)), alpha
    # lambda gone: square (first + alpha one)^2 = mean^2 (second + alpha^2 two)
    roots = np.roots([square * one**2 - mean**2 * two, 2 * square * first * one, square * first**2 - mean**2 * second])
    for alpha in sorted(float(r.real) for r in roots if abs(r.imag) < 1e-6 * (1 + abs(r)) and r.real > 0):
        scale = math.sqrt(square / max(second + alpha**2 * two, 1e-300))
        if abs(scale * (first + alpha * one) - mean) < 1e-6:
            return scale, alpha
    raise ValueError(f"no scaled exponential linear unit keeps mean {mean:g} with that variance")
