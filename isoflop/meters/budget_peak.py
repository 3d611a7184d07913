import numpy as np

from isoflop import meter
from isoflop.meters._checks import level_setting, numbers, positive


@meter("best_budget", per="run")
def budget_peak(gen_tokens, accuracy, problem=None, *, level=90.0, draws=2000, seed=0):
    """accuracy = a + b u + c u^2, u = log2(gen_tokens): slope in u, and the budget -b / 2c of the peak

    Whether more thinking helps, and up to which budget. slope is of the straight line, accuracy a doubling of tokens,
    with its interval; verdict "rising" or "falling" where that is of one sign. Where the parabola opens downwards at
    this level and its peak lies between the smallest and the largest budget, the verdict is "peak" and best_budget
    holds it; else best_budget is nan. With `problem`, each problem has its own level, so that budgets are compared
    within problems. The intervals are of least squares (normal draws): give rows of single problems, not only their
    means.

    Source: the curve that m1 (arXiv 2504.00869) draws, best near 4K tokens, and the slope by which J1 (arXiv
    2505.11875, its number unverified) compares judges; both forms are this package's. Raises ValueError for fewer than
    4 rows or 3 budgets.
    """
    (tokens,), (y,) = positive("budget_peak", least=4, gen_tokens=gen_tokens), numbers("budget_peak", accuracy=accuracy)
    level_setting("budget_peak", level)
    if len(np.unique(tokens)) < 3:
        raise ValueError(f"budget_peak needs at least 3 budgets, got {len(np.unique(tokens))}")
    u = np.log2(tokens)
    middle = u.mean()
    group = (
        np.zeros(len(u), int) if problem is None else np.unique(np.asarray(problem).astype(str), return_inverse=True)[1]
    )
    rng, tail = np.random.default_rng(seed), (100 - level) / 2
    line = _draws((u - middle)[:, None], y, group, rng, draws)
    bend = _draws(np.stack([u - middle, (u - middle) ** 2], axis=1), y, group, rng, draws)
    low, high = np.percentile(line[1:, 0], [tail, 100 - tail])
    top = float(np.percentile(bend[1:, 1], 100 - tail))
    peaks = middle - bend[:, 0] / (2 * np.where(np.abs(bend[:, 1]) > 1e-15, bend[:, 1], 1e-15))
    inside = top < 0 and u.min() < peaks[0] < u.max()
    verdict = "peak" if inside else "rising" if low > 0 else "falling" if high < 0 else "undecided"
    ends = np.percentile(peaks[1:], [tail, 100 - tail]) if inside else (np.nan, np.nan)
    return {
        "best_budget": float(2.0 ** peaks[0]) if inside else np.nan, "low": float(2.0 ** ends[0]),
        "high": float(2.0 ** ends[1]), "slope": float(line[0, 0]), "slope_low": float(low), "slope_high": float(high),
        "verdict": verdict,
    }  # fmt: skip


def _draws(x, y, group, rng, draws):
    """Least-squares coefficients within groups, then normal draws of them."""
    x = x - np.stack([(np.bincount(group, c) / np.bincount(group))[group] for c in x.T], axis=1)
    y = y - (np.bincount(group, y) / np.bincount(group))[group]
    gram = np.linalg.inv(x.T @ x)
    best = gram @ x.T @ y
    left = y - x @ best
    free = len(y) - x.shape[1] - len(np.unique(group))
    if free < 1:
        raise ValueError(f"budget_peak: {len(y)} rows are too few for {x.shape[1]} coefficients and their levels")
    return np.vstack([best, rng.multivariate_normal(best, gram * float(left @ left) / free, draws)])
