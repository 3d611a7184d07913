"""Which law forecasts the largest runs best."""

import isoflop


def draw():
    runs = isoflop.recorded("python_source")
    return isoflop.compare(["chinchilla", "kaplan", "overtraining"], runs, draws=30).plot()
