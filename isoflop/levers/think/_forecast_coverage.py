"""pass@k far beyond the samples that were drawn: two forms that err in opposite ways, averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoflop._answer import Answer, Quantity
from isoflop.levers.think._estimators import counts, pass_at_k

Array = np.ndarray

# Success rates are exp(u), u on this grid; the lowest stands for all below, which no budget reaches.
_U = np.linspace(-40.0, 4.0, 353)
_RATE = np.exp(_U)
# (mu, ln d, ln(c / d)) of the tail form over sets of problems. Mean and spread of d and c / d: the middle of the two
# benchmarks of checkpoints.csv (79 sets of GSM8K .38 and 2.3, 38 of MATH .25 and 4.2; Pythia models), fitted by
# hierarchical maximum likelihood and widened to the spread between them; mu is left free.
_MEAN = np.array([-6.0, np.log(0.31), 1.1])
_SD = np.array([4.0, 0.35, 0.6])
_LINE, _REACHED = 0.85, 0.02  # most weight of the line, and the coverage at which it has half of that
_FORMS = 1.0  # how sure that weight is: it is drawn from Beta(w, 1 - w)
_ROUNDS = 4


def forecast_coverage(
    n: Any, c: Any, k: Any = (1000, 10000), *, level: float = 90, draws: int = 1000, seed: int = 0
) -> Answer:  # fmt: skip
    """pass@k at k beyond n, with intervals, from n samples of each problem of which c are right

    ln(-ln pass@k) is the mean of two forecasts, by weights w and 1 - w:

    - the straight line in ln k, pass@k = exp(-a k^-b) (Brown et al. 2024, arXiv 2407.21787), by least squares over
      k <= n, with draws by resampling problems. Steady, but it needs coverage to have left the part where it grows in
      proportion to k: w = .85 C / (C + .02), C the coverage reached within the n samples.
    - a distribution of success rates over problems with a power law at its lower end (Schaeffer et al. 2025, arXiv
      2502.17578): -ln(1 - p) generalised gamma, exponent d at the lower end and cut off at the upper, with a prior on
      its shape learnt from other sets of problems; by the likelihood of the counts, for these very problems.

    The intervals hold sampling error, the problems not solved yet, and the spread of the two forms (w is drawn).
    The likelihood p^c (1 - p)^(n - c) holds under every stopping rule; where n is seen to depend on the outcome
    (sampling until success), pass@k from counts is biased, the line is left out, and a warning says so. n, c: one
    number a problem. k: budgets. Returns quantities pass_at_<k>. Raises ValueError for counts that are none.
    """
    n, c = counts(n, c)
    best, drawn = coverage_draws(n, c, k, draws=draws, seed=seed)
    names = [f"pass_at_{int(x)}" for x in np.atleast_1d(k)]
    quantities = {name: Quantity(float(b), d) for name, b, d in zip(names, best, drawn.T, strict=True)}
    return Answer(quantities, (level,), tuple(_doubts(n, c)))


def _doubts(n: Array, c: Array) -> list[str]:
    out = []
    if stops_on_success(n, c):
        out.append(
            "n depends on the outcome (more samples where successes were rarer): c / n is biased, and was not used"
        )
    if c.sum() < 10:
        out.append(f"only {int(c.sum())} right samples in all: the forecast is mostly what other problem sets showed")
    if len(n) < 30:
        out.append(f"only {len(n)} problems: the interval is for these problems, not for others like them")
    return out


def stops_on_success(n: Any, c: Any) -> bool:
    """Whether sampling went on longer where successes were rarer: right samples do not keep up with n

    The covariance of n with c - n p, p = sum c / sum n, is 0 where n was chosen beforehand; True where it is below -3
    of its standard errors. One n for all problems is never that, nor are problems nobody solved.
    """
    n, c = counts(n, c)
    parts = (n - n.mean()) * (c - n * c.sum() / n.sum())
    return bool(parts.sum() < -3 * np.sqrt((parts**2).sum()) and len(n) >= 5)


def coverage_draws(n: Any, c: Any, k: Any, *, draws: int = 1000, seed: int = 0) -> tuple[Array, Array]:
    """(best, draws): pass@k at each k, and `draws` draws of it, (draws, budgets); see `forecast_coverage`."""
    n, c = counts(n, c)
    k = np.atleast_1d(np.asarray(k, float))
    if not (k >= 1).all():
        raise ValueError(f"k must be at least 1; got {k.min():g}")
    rng = np.random.default_rng(seed)
    tail, _ = tail_draws(n, c, k, draws=draws, rng=rng)
    bends = _log_log(tail)
    if stops_on_success(n, c) or n.min() < 2 or not c.any():
        return np.exp(-np.exp(np.median(bends, 0))), tail
    line_best, line = _line_draws(n, c, k, draws, rng)
    reached = float(pass_at_k(n, c, [n.min()]).mean())
    weight = _LINE * reached / (reached + _REACHED)
    w = rng.beta(_FORMS * weight + 1e-9, _FORMS * (1 - weight) + 1e-9, (draws, 1))
    best = (1 - weight) * np.median(bends, 0) + weight * line_best
    drawn = (1 - w) * bends + w * line
    known = k <= n.min()  # there the counts say it without a form; the spread is that of these very problems
    if known.any():
        best[known] = _log_log(pass_at_k(n, c, k[known]).mean(0))
        drawn[:, known] = bends[:, known] - np.median(bends[:, known], 0) + best[known]
    return np.exp(-np.exp(best)), np.exp(-np.exp(drawn))


def _log_log(coverage: Array) -> Array:
    return np.log(-np.log(np.clip(coverage, 1e-12, 1 - 1e-12)))


# ---- the straight line -----------------------------------------------------------------------------------------------


def _line_draws(n: Array, c: Array, k: Array, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """ln(-ln pass@k) by the line through k <= n: at the fit, and over resampled problems."""
    most = n.min()
    ks = np.unique(np.round(np.geomspace(1, most, max(2, int(np.ceil(np.log10(most) * 8)) + 1))))
    by_problem = pass_at_k(n, c, ks)
    share = np.full(len(n), 1 / len(n))
    resampled = rng.multinomial(len(n), share, draws) / len(n)
    y = _log_log(np.vstack([share, resampled]) @ by_problem)
    x = np.log(ks) - np.log(ks).mean()
    slope = y @ x / (x @ x)
    out = y.mean(1)[:, None] + slope[:, None] * (np.log(k) - np.log(ks).mean())
    return out[0], out[1:]


# ---- the distribution of success rates -------------------------------------------------------------------------------


def tail_draws(
    n: Array, c: Array, k: Array, *, draws: int, rng: np.random.Generator
) -> tuple[Array, Array]:  # fmt: skip
    """pass@k of these problems under the tail form, (draws, budgets), and the draws of its (mu, ln d, ln(c / d))."""
    pairs, repeats = np.unique(np.stack([n, c]), axis=1, return_counts=True)
    like = _likelihood(*pairs)
    theta = _posterior(like, repeats, draws, rng)
    weight = _weights(theta)
    solved = -np.expm1(-np.outer(_RATE, k))
    mean, spread = np.zeros((draws, len(k))), np.zeros((draws, len(k)))
    for row, times in zip(like, repeats, strict=True):
        at = weight * row
        chance = (at @ solved) / at.sum(1, keepdims=True)
        mean += times * chance
        spread += times * chance * (1 - chance)
    total = repeats.sum()
    noise = np.sqrt(spread) * rng.standard_normal((draws, 1))  # whether each problem is one that k samples solve
    return np.clip((mean + noise) / total, 1e-12, 1 - 1e-12), theta


def _likelihood(n: Array, c: Array) -> Array:
    """p^c (1 - p)^(n - c) on the grid, each row at most 1."""
    log = c[:, None] * np.log(-np.expm1(-_RATE)) - (n - c)[:, None] * _RATE
    return np.exp(log - log.max(1, keepdims=True))


def _weights(theta: Array) -> Array:
    """The density d (u - mu) - e^(c (u - mu)) of u on the grid, up to its norm, as weights."""
    mu, d, ratio = theta[:, :1], np.exp(theta[:, 1:2]), np.exp(theta[:, 2:])
    z = _U - mu
    log = d * z - np.exp(np.minimum(d * ratio * z, 60.0))
    weight = np.exp(log - log.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)


def _posterior(like: Array, repeats: Array, draws: int, rng: np.random.Generator) -> Array:
    """Draws of theta by importance sampling from a t distribution, moved to the posterior in a few rounds."""
    mean, cov = _MEAN, np.diag(_SD**2)
    for last in [False] * (_ROUNDS - 1) + [True]:
        scale = np.linalg.cholesky(cov)
        t = rng.standard_normal((draws, 3)) / np.sqrt(rng.chisquare(6, (draws, 1)) / 6)
        theta = mean + t @ scale.T
        log = np.log(_weights(theta) @ like.T + 1e-300) @ repeats
        log -= 0.5 * (((theta - _MEAN) / _SD) ** 2).sum(1) - 4.5 * np.log1p((t**2).sum(1) / 6)
        weight = _tempered(log, 0 if last else min(50, draws // 4))
        mean = weight @ theta
        cov = 1.3 * ((weight[:, None] * (theta - mean)).T @ (theta - mean)) + 1e-6 * np.eye(3)
    place = np.searchsorted(np.cumsum(weight), (np.arange(draws) + rng.random()) / draws)
    return theta[rng.permutation(place.clip(0, draws - 1))]


def _tempered(log: Array, least: float) -> Array:
    """exp(log), flattened by powers until no fewer than `least` draws carry the weight; sums to 1."""
    for power in (1.0, 0.5, 0.25, 0.1, 0.03, 0.01):
        weight = np.exp(power * (log - log.max()))
        weight /= weight.sum()
        if 1 / (weight**2).sum() >= least:
            break
    return weight
