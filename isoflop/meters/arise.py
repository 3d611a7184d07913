import numpy as np

from isoflop import meter


@meter("arise", by_run=True)
def arise(accuracy, gen_tokens, run=None):
    """sum over steps j of (a_j - a_(j-1)) (t_(j-1) / t_j)^sign(a_j - a_(j-1))

    How well more thinking pays, summed up to each row: a gain is discounted by the growth in tokens, a loss is made
    larger by it. Rows of one `run` (one problem) in order of budget: accuracy 0 to 1, gen_tokens above 0. The last row
    of a run is its score; the mean over runs is the model's.

    Source: Yin et al. 2025 (arXiv 2510.06014); as in the authors' code.
    """
    a, t = np.asarray(accuracy, float), np.asarray(gen_tokens, float)
    if (t <= 0).any():
        raise ValueError("arise needs gen_tokens above 0 in every row")
    runs = np.zeros(len(a)) if run is None else np.unique(np.asarray(run), return_inverse=True)[1]
    out = np.empty(len(a))
    for r in np.unique(runs):
        rows = np.flatnonzero(runs == r)
        change = np.diff(a[rows])
        growth = t[rows][:-1] / t[rows][1:]
        out[rows] = np.concatenate([[0.0], np.cumsum(change * growth ** np.sign(change))])
    return out
