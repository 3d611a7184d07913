"""Several laws in one forecast, along compute: the lowest loss of each budget, and where the next two decades lead."""

import isoflop


def draw():
    runs = isoflop.recorded("zipf_words")
    best = runs.loc[runs.groupby("budget_flops")["loss"].idxmin()]
    return isoflop.fit("auto", best, axis="flops").plot(best)
