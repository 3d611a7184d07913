import numpy as np

from isoflop import meter
from isoflop.meters._schedule import at_logged_steps


@meter("anneal_area", by_run=True)
def anneal_area(step, lr, run=None, *, decay=0.999):
    """S2(s) = sum over i <= s of m_i, with m_i = decay m_(i-1) + lr_(i-1) - lr_i

    The annealing area of a schedule: momentum-weighted decreases of the learning rate. Rises before the first peak
    (warm-up) count as none. From the logged `step` and `lr` of each `run`. Unit: learning rate x steps.

    Source: Tissue et al. 2024 (arXiv 2408.11029), eq. 3; decay .999 there.
    """

    def total(rates):
        drops = -np.diff(rates, prepend=rates[0])
        drops[: int(np.argmax(rates)) + 1] = 0.0
        return np.cumsum(_smoothed(drops, decay))

    return at_logged_steps(np.asarray(step, float), np.asarray(lr, float), run, total)


def _smoothed(x, decay, block=512):
    """y_i = decay y_(i-1) + x_i, a block at a time through one small triangular matrix."""
    lag = np.subtract.outer(np.arange(block), np.arange(block))
    kernel = np.where(lag >= 0, float(decay) ** np.maximum(lag, 0), 0.0)
    carry_over = float(decay) ** np.arange(1, block + 1)
    out, carry = np.empty_like(x), 0.0
    for start in range(0, len(x), block):
        part = x[start : start + block]
        m = len(part)
        y = kernel[:m, :m] @ part + carry * carry_over[:m]
        out[start : start + m], carry = y, y[-1]
    return out
