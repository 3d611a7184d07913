"""How sure a plan is: the interval of each quantity about its median."""

import isoflop


def draw():
    fit = isoflop.fit("chinchilla", isoflop.recorded("python_source"), draws=60, by="trunk")
    return isoflop.allocate(fit, flops=1e15, level=[90, 50]).plot()
