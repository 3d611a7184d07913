"""At equal compute: each budget's runs, the law through them, and the parabolas' second opinion."""

import isoflop
from isoflop import _figures


def draw():
    runs = isoflop.recorded("python_source")
    fit = isoflop.fit("chinchilla", runs, draws=0)
    return _figures.isoflop_curves(fit, runs, isoflops=isoflop.isoflops(runs, draws=20))
