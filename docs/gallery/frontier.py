"""Loss against compute: runs joined by size, and the best that each budget buys by the fitted law."""

import isoflop
from isoflop import _figures


def draw():
    runs = isoflop.recorded("python_source")
    fit = isoflop.fit("chinchilla", runs, draws=60, by="trunk")
    return _figures.loss_vs_compute(fit, runs)
