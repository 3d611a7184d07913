import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, positive, setting


@meter("lr_sensitivity", per="run")
def lr_sensitivity(lr, loss, *, start=None):
    """mean over learning rates of min(loss, start) - min over learning rates of loss

    How much is lost by a learning rate that is not the best, averaged over a sweep: space its rates evenly in the log,
    and take the same rates for whatever is compared. Rows of one rate (seeds, other settings) are averaged first.
    start: the loss before training, at which runs that did worse are cut; a run without a loss diverged and counts as
    `start`.

    Returns lr_sensitivity, best_lr, best_loss, rates and diverged.

    Source: Wortsman et al. 2023 (arXiv 2309.14322), LR sensitivity. Raises ValueError for fewer than 3 rates, or for
    rows without a loss where start is not given.
    """
    (rate,), y = positive("lr_sensitivity", lr=lr), np.asarray(loss, float)
    gone = ~np.isfinite(y)
    if start is None and gone.any():
        raise ValueError(
            f"lr_sensitivity: {int(gone.sum())} rows have no loss; give start, the loss that stands for them"
        )
    setting("lr_sensitivity", start is None or np.isfinite(start), "start", "a loss", start)
    cut = y if start is None else np.minimum(np.where(gone, start, y), start)
    rates, group = np.unique(rate, return_inverse=True)
    if len(rates) < 3:
        raise ValueError(f"lr_sensitivity needs at least 3 learning rates, got {len(rates)}")
    (cut,) = numbers("lr_sensitivity", loss=cut)
    each = np.bincount(group, cut) / np.bincount(group)
    best = int(np.argmin(each))
    return {
        "lr_sensitivity": float(each.mean() - each[best]), "best_lr": float(rates[best]),
        "best_loss": float(each[best]), "rates": len(rates), "diverged": int(gone.sum()),
    }  # fmt: skip
