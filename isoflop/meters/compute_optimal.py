import numpy as np

from isoflop import meter
from isoflop.meters._checks import between, numbers, positive, setting


@meter("saving", per="run")
def compute_optimal(problem, strategy, gen_tokens, accuracy, difficulty, *, baseline="", bins=5, folds=2, seed=0):
    """saving = largest budget / budget at which the policy equals the baseline there

    What it is worth to choose the strategy by the problem's difficulty. One row a problem, strategy and budget
    (`gen_tokens`, the same budgets for all): `accuracy` there, 0 to 1, and the problem's `difficulty` (any number,
    higher for harder: a level, or 1 - the pass rate over samples that are not in these rows). Problems are put in
    `bins` of equal size by it. In each bin the strategy that is best on one part of the problems is used on the other
    part (`folds`), at every budget anew, so that no choice sees what it is scored on. baseline: the strategy that every
    problem gets, by default the best single one at the largest budget.

    Returns policy and baseline_accuracy at the largest budget; least_tokens, at which the policy first equals the
    baseline there (straight lines in log tokens between budgets; nan where it never does), and saving = largest budget
    / least_tokens; baseline (its name).

    Source: Snell et al. 2024 (arXiv 2408.03314), section 3.2: five bins by pass rate, two-fold cross-validation. Raises
    ValueError where a problem lacks a strategy or a budget.
    """
    (tokens,) = positive("compute_optimal", gen_tokens=gen_tokens)
    (score,) = between("compute_optimal", 0, 1, accuracy=accuracy)
    setting("compute_optimal", bins >= 1 and folds >= 2, "bins, folds", "at least 1 and 2", (bins, folds))
    cube, names, budgets, first = _cube(problem, strategy, tokens, score)
    if len(cube) < folds * bins:
        raise ValueError(f"compute_optimal needs at least {folds * bins} problems for {bins} bins, got {len(cube)}")
    hard = numbers("compute_optimal", difficulty=difficulty)[0][first]
    part = np.argsort(np.argsort(hard, kind="stable"), kind="stable") * bins // len(hard)
    curve = _crossed(cube, part, np.random.default_rng(seed).permutation(len(cube)) % folds)
    single = cube.mean(axis=0)
    if baseline and baseline not in names:
        raise ValueError(f"compute_optimal: no strategy {baseline!r}; there are {', '.join(names)}")
    base = names.index(baseline) if baseline else int(np.argmax(single[:, -1]))
    least = _reach(budgets, curve, single[base, -1])
    return {
        "saving": float(budgets[-1] / least), "policy": float(curve[-1]), "baseline_accuracy": float(single[base, -1]),
        "least_tokens": least, "baseline": names[base], "problems": len(cube),
    }  # fmt: skip


def _cube(problem, strategy, tokens, score):
    """Accuracy (problems, strategies, budgets), names of strategies, budgets, and a row of each problem."""
    of, names = np.asarray(problem).astype(str), np.asarray(strategy).astype(str)
    (_, first, i), (kinds, j) = (
        np.unique(of, return_index=True, return_inverse=True),
        np.unique(names, return_inverse=True),
    )
    budgets, k = np.unique(tokens, return_inverse=True)
    cube = np.full((len(first), len(kinds), len(budgets)), np.nan)
    cube[i, j, k] = score
    if np.isnan(cube).any() or cube.size != len(score):
        raise ValueError(
            f"compute_optimal: {len(first)} problems, {len(kinds)} strategies and {len(budgets)} budgets need "
            f"{cube.size} rows, one each; there are {len(score)}"
        )
    return cube, kinds.tolist(), budgets, first


def _crossed(cube, part, fold):
    """The policy's accuracy by budget: in each bin, the strategy that was best on the problems of the other folds."""
    out = np.empty((len(cube), cube.shape[2]))
    for f in np.unique(fold):
        for b in np.unique(part):
            seen, used = (fold != f) & (part == b), (fold == f) & (part == b)
            means = (cube[seen] if seen.any() else cube[fold != f]).mean(axis=0)
            best = np.argmax(means, axis=0)
            out[used] = np.take_along_axis(cube[used], best[None, None, :], axis=1)[:, 0]
    return out.mean(axis=0)


def _reach(budgets, curve, level):
    """The least budget at which a curve is at a level, straight in log budget between points; nan where it never is."""
    above = np.flatnonzero(curve >= level - 1e-12)
    if not len(above):
        return float("nan")
    k = int(above[0])
    if k == 0 or curve[k] <= curve[k - 1]:
        return float(budgets[k])
    share = min((level - curve[k - 1]) / (curve[k] - curve[k - 1]), 1.0)
    return float(budgets[k - 1] * (budgets[k] / budgets[k - 1]) ** share)
