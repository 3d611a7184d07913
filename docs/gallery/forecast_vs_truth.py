"""Forecasts of the largest model, which was not fitted, against what it measured."""

import isoflop
from isoflop import _figures


def draw():
    runs = isoflop.recorded("python_source")
    large = runs["params"] == runs["params"].max()
    fit = isoflop.fit("chinchilla", runs[~large], draws=60, by="trunk")
    return _figures.forecast_vs_truth(fit, runs[large])
