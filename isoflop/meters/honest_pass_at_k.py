from math import lgamma

import numpy as np

from isoflop import meter
from isoflop.meters._checks import level_setting, numbers, setting

_MEANS = np.concatenate([[0.001, 0.003, 0.01], np.linspace(0.03, 0.97, 32), [0.99, 0.997, 0.999]])
_SIZES = np.geomspace(0.01, 300, 24)  # far below 1: a problem's answers are all flawed, or none is


@meter("corrected", per="run")
def honest_pass_at_k(n, c, checked, flawed, *, k=1, level=90.0, draws=200, seed=0):
    """mean over problems of E[1 - C(n - c', k) / C(n, k)], c' = c less the answers whose reasoning is flawed

    Coverage without the false positives: answers that are right by a wrong way. One row a problem: `n` samples, `c` of
    them with the right answer, `checked` of these read by a person (or a judge), 0 where none was, and `flawed` of the
    checked found wrong. The share of flawed answers differs from problem to problem: it is taken as Beta, fitted to the
    checked ones, so that the unchecked answers of one problem are right or wrong together as the checked ones were. It
    is the problems where all are flawed that naive coverage counts most wrongly as k grows.

    Returns corrected with low and high (bootstrap over problems, the Beta refitted each time), naive, ceiling (problems
    with any truly right answer among n, as expected), flawed_share and problems.

    Source: Wang et al. 2025, false positives (arXiv 2502.06217): the question; the correction is this package's. Raises
    ValueError for counts that do not nest, k outside 1 to the least n, or fewer than 5 checked answers.
    """
    n, c, checked, flawed = numbers("honest_pass_at_k", n=n, c=c, checked=checked, flawed=flawed)
    if not ((flawed <= checked) & (checked <= c) & (c <= n) & (flawed >= 0) & (n >= 1)).all():
        raise ValueError("honest_pass_at_k: each row needs flawed <= checked <= c <= n, all 0 or more")
    if not all((v == np.round(v)).all() for v in (n, c, checked, flawed)):
        raise ValueError("honest_pass_at_k takes counts: n, c, checked and flawed are whole numbers")
    setting("honest_pass_at_k", 1 <= k <= n.min() and k == int(k), "k", f"whole, from 1 to {n.min():g}, the least n", k)
    level_setting("honest_pass_at_k", level)
    if checked.sum() < 5:
        raise ValueError(f"honest_pass_at_k needs at least 5 checked answers, got {checked.sum():g}")
    grid = _likelihoods(checked, flawed)
    rng = np.random.default_rng(seed)
    picks = [np.ones(len(n)), *(np.bincount(rng.integers(0, len(n), len(n)), minlength=len(n)) for _ in range(draws))]
    kept: dict[int, np.ndarray] = {}
    made = np.array([_means(w, grid, (n, c, checked, flawed), int(k), kept) for w in picks])
    tail = (100 - level) / 2
    low, high = np.percentile(made[1:, 0], [tail, 100 - tail]) if draws else (np.nan, np.nan)
    naive = 1.0 - _missed(n, c, int(k))
    return {
        "corrected": float(made[0, 0]), "low": float(low), "high": float(high), "naive": float(naive.mean()),
        "ceiling": float(made[0, 1]), "flawed_share": float(flawed.sum() / checked.sum()), "problems": len(n),
    }  # fmt: skip


def _means(weights, grid, counts, k, kept):
    """Corrected coverage and its ceiling under weights of the problems; `kept`: what each Beta gave, by its place."""
    place = int(np.argmax(weights @ grid))
    if place not in kept:
        mean, size = _MEANS[place // len(_SIZES)], _SIZES[place % len(_SIZES)]
        prior = (mean * size, (1 - mean) * size)
        rows, at = np.unique(np.stack(counts, axis=1), axis=0, return_inverse=True)
        kept[place] = np.array([_problem(row, prior, k) for row in rows])[at.ravel()]
    return weights @ kept[place] / weights.sum()


def _likelihoods(checked, flawed):
    """log likelihood (problems, Betas) of the flawed among the checked."""
    pairs, place = np.unique(np.stack([checked, flawed], axis=1), axis=0, return_inverse=True)
    rows = [[_log_beta(f + m * s, h - f + (1 - m) * s) - _log_beta(m * s, (1 - m) * s) for m in _MEANS for s in _SIZES]
            for h, f in pairs]  # fmt: skip
    return np.array(rows)[place.ravel()]


def _problem(counts, prior, k):
    """Expected coverage at k, and the chance that any answer is truly right, of one problem."""
    n, c, checked, flawed = counts
    rest, sure = int(c - checked), checked - flawed
    a, b = prior[0] + flawed, prior[1] + sure
    wrong = np.arange(rest + 1)
    log = [lgamma(rest + 1) - lgamma(w + 1) - lgamma(rest - w + 1) + _log_beta(w + a, rest - w + b) - _log_beta(a, b)
           for w in wrong]  # fmt: skip
    chance, right = np.exp(log), sure + rest - wrong
    return float(chance @ (1.0 - _missed(np.full(rest + 1, n), right, k))), float(chance @ (right > 0))


def _missed(n, c, k):
    """C(n - c, k) / C(n, k)"""
    out = np.ones(len(n))
    for i in range(k):
        out *= np.maximum(n - c - i, 0.0) / (n - i)
    return out


def _log_beta(a, b):
    return lgamma(a) + lgamma(b) - lgamma(a + b)
