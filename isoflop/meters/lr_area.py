import numpy as np

from isoflop import meter
from isoflop.meters._schedule import at_logged_steps


@meter("lr_area", by_run=True)
def lr_area(step, lr, run=None):
    """S1(s) = sum of the learning rate over steps 1..s

    The forward area of a schedule, from the logged `step` and `lr` of each `run` (straight lines between logged steps).
    Unit: learning rate x steps. Source: Tissue et al. 2024 (arXiv 2408.11029), eq. 2.
    """
    return at_logged_steps(np.asarray(step, float), np.asarray(lr, float), run, np.cumsum)
