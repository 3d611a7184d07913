import numpy as np

from isoflop import meter
from isoflop.meters._checks import level_setting, matrix, numbers, positive, setting, t_of


@meter("lost", per="run", stack=("wrong",))
def metric_chain(question, flops, right, wrong, *, ranks=False, level=90.0):
    """lost = mean over questions of corr(log p, ln C) - corr(right or not, ln C)

    Where the link to compute is lost on the way from likelihood to accuracy. One row a question and model: the model's
    training `flops`, the log-probability of the `right` choice in nats, and of the others (wrong_1, wrong_2, ...). For
    each question, over the models, the correlation with ln flops of log p, of p, of p_choice = p / sum over the
    choices, and of accuracy: whether the right choice is likelier than all others. A step that is the same for all
    models says nothing, and its correlation counts as 0. ranks: Spearman's correlation in place of Pearson's.

    Returns lost with its interval over questions (low, high), the mean of each step (log_p, p, p_choice, accuracy),
    constant: the share of questions that all models or none get right, and the numbers of questions and rows.

    Source: Schaeffer et al. 2024 (arXiv 2406.04391): the chain and its correlations question by question. Raises
    ValueError where a question has fewer than three rows, or all of them one budget.
    """
    logs, compute = (*numbers("metric_chain", right=right), *positive("metric_chain", flops=flops))
    (others,) = matrix("metric_chain", wrong=wrong)
    level_setting("metric_chain", level)
    asked = np.asarray(question)
    found = np.array([_links(logs[k], others[k], np.log(compute[k]), ranks) for k in _groups(asked)])
    steps = dict(zip(("log_p", "p", "p_choice", "accuracy"), found[:, :4].mean(axis=0).tolist(), strict=True))
    ends, n = found[:, 0] - found[:, 3], len(found)
    half = t_of(level, n - 1) * float(ends.std(ddof=1)) / n**0.5 if n > 1 else np.nan
    lost = float(ends.mean())
    return {"lost": lost, "low": lost - half, "high": lost + half, **steps, "constant": float(found[:, 4].mean()),
            "questions": n, "rows": len(logs)}  # fmt: skip


def _groups(question):
    """Rows of each question."""
    _, of = np.unique(question, return_inverse=True)
    rows = [np.flatnonzero(of == k) for k in range(of.max() + 1)]
    fewest = min(map(len, rows))
    setting("metric_chain", fewest >= 3, "question", "in three rows or more each", fewest)
    return rows


def _links(right, wrong, compute, ranks):
    """The four correlations of one question, and whether accuracy is the same in all rows."""
    setting("metric_chain", np.ptp(compute) > 0, "flops", "of two budgets or more for each question", "one")
    top = np.maximum(right, wrong.max(axis=1))
    choice = np.exp(right - top) / (np.exp(right - top) + np.exp(wrong - top[:, None]).sum(axis=1))
    hit = (right > wrong.max(axis=1)).astype(float)
    steps = (right, np.exp(right - right.max()), choice, hit)
    return (*(_correlation(s, compute, ranks) for s in steps), float(np.ptp(hit) == 0))


def _correlation(x, y, ranks):
    if np.ptp(x) == 0:
        return 0.0
    if ranks:
        x, y = (((v[:, None] > v).sum(axis=1) - (v[:, None] < v).sum(axis=1)).astype(float) for v in (x, y))
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
