import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, setting


@meter("width", per="run")
def multifractal(mass, step=None, *, q_max=5.0):
    """Z_q(r) = sum over boxes of size r of mu^q ~ r^tau(q); alpha = d tau / d q; f = q alpha - tau

    The multifractal spectrum of a measure on a line: `mass`, 0 or more, in rows that are even places in order; boxes
    are halved from the whole down to one row, so the number of rows is best a power of 2 (the end is cut to one).
    Returns width = alpha(-q_max) - alpha(q_max) (0 for a measure that is even at all scales), alpha0 at q = 0,
    asymmetry = (alpha0 - alpha(q_max)) / width, tau2 = tau(2), and r2, how straight log Z_q is in log r at the worst q.

    Source: the box-counting formalism behind Xiao et al. 2024, NeuroMFA (arXiv 2402.09099), for a measure that is
    given; its graph of neurons and its "degree of emergence" are not here. Raises ValueError for fewer than 64 rows.
    """
    (mu,) = numbers("multifractal", least=64, mass=mass)
    setting("multifractal", bool((mu >= 0).all() and mu.sum() > 0), "mass", "0 or more, and not all 0", mu.min())
    setting("multifractal", q_max > 0, "q_max", "above 0", q_max)
    levels = int(np.log2(len(mu)))
    boxes = mu[: 2**levels] / mu[: 2**levels].sum()
    qs = np.linspace(-q_max, q_max, 41)
    logs, sizes = [], []
    for level in range(levels, 2, -1):  # boxes of 2^(levels - level) rows; the few largest say little
        some = np.log(boxes[boxes > 0])
        logs.append([_log_sum(q * some) for q in qs])
        sizes.append(-level * np.log(2.0))
        boxes = boxes.reshape(-1, 2).sum(axis=1)
    z, r = np.array(logs), np.array(sizes) - np.mean(sizes)
    tau = r @ z / (r @ r)
    left = z - z.mean(axis=0) - np.outer(r, tau)
    spread = ((z - z.mean(axis=0)) ** 2).sum(axis=0)
    straight = 1.0 - (left**2).sum(axis=0)[spread > 1e-12] / spread[spread > 1e-12]
    alpha = np.gradient(tau, qs)
    width, middle = float(alpha[0] - alpha[-1]), float(alpha[len(qs) // 2])
    return {
        "width": width, "alpha0": middle, "asymmetry": (middle - float(alpha[-1])) / width if width > 1e-9 else np.nan,
        "tau2": float(np.interp(2.0, qs, tau)) if q_max >= 2 else np.nan, "r2": float(straight.min()),
    }  # fmt: skip


def _log_sum(x):
    top = x.max()
    return float(top + np.log(np.exp(x - top).sum()))
