import numpy as np

from isoflop import meter
from isoflop.meters._checks import level_setting, matrix, numbers, t_of


@meter("estimate", per="run", stack=("cheap",))
def control_variate(score, cheap, *, finite=False, level=90.0):
    """mean(y) - b (mean(x over the labelled) - mean(x over all)), b by least squares

    An evaluation with fewer labels or rollouts: `score` is the costly outcome, empty in the rows that were not paid
    for, and `cheap` (or cheap_1, cheap_2, ...) a score that every row has, of a smaller judge or a simulator. Which
    rows are labelled must have been left to chance. Variance: s^2 / n + b' S b / N for n labelled rows of N, s^2 that
    of the residuals, S that of x; with finite=True the target is the mean over these N rows themselves, and it is (1 -
    n / N) s^2 / n. The interval is Student's with n - 1 - (cheap scores) degrees of freedom; b is fitted to the same
    rows, a bias of order 1 / n.

    Returns estimate, low, high, se; plain and plain_se of the labelled rows alone; variance_ratio = se^2 / plain_se^2,
    1 minus R^2 in the limit; effective_n, the labels that the plain mean would need; r2; labelled; rows.

    Source: the regression estimator of sampling theory, as control variates in the testing of automated vehicles
    (catalogue entry `sparse_control_variates_testing`, form from its abstract; its sparse choice of variables and its
    online recalibration are not here). Raises ValueError for fewer labels than cheap scores and 3 more.
    """
    (x,) = matrix("control_variate", least=4, cheap=cheap)
    y = np.asarray(score, float)
    known = ~np.isnan(y)
    level_setting("control_variate", level)
    n, whole, p = int(known.sum()), len(y), x.shape[1]
    if n < p + 3:
        raise ValueError(f"control_variate needs at least {p + 3} rows with a score for {p} cheap ones, got {n}")
    (y,) = numbers("control_variate", score=y[known])
    here = x[known] - x[known].mean(axis=0)
    slope = np.linalg.lstsq(here, y - y.mean(), rcond=None)[0]
    left = y - y.mean() - here @ slope
    noise, total = float(left @ left / (n - 1 - p)), float(y.var(ddof=1))
    estimate = float(y.mean() - slope @ (x[known].mean(axis=0) - x.mean(axis=0)))
    share = 1.0 - n / whole if finite else 1.0
    carried = 0.0 if finite else float(np.mean(((x - x.mean(axis=0)) @ slope) ** 2)) / whole
    variance, plain = share * noise / n + carried, share * total / n
    half = t_of(level, n - 1 - p) * variance**0.5
    ratio = variance / plain if plain > 0 else np.nan
    return {
        "estimate": estimate, "low": estimate - half, "high": estimate + half, "se": variance**0.5,
        "plain": float(y.mean()), "plain_se": plain**0.5, "variance_ratio": ratio,
        "effective_n": n / ratio if ratio > 0 else np.inf, "r2": 1.0 - noise / total if total > 0 else np.nan,
        "labelled": n, "rows": whole,
    }  # fmt: skip
