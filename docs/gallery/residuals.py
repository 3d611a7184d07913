"""What a law misses, along one of its columns: a trend here is an error of form."""

import isoflop
from isoflop import _figures


def draw():
    runs = isoflop.recorded("python_source")
    fit = isoflop.fit("chinchilla", runs, draws=0)
    return _figures.residuals(fit, runs, x="tokens")
