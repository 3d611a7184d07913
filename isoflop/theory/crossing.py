"""Two recipes whose curves cross beyond the rows: how often the interval of the crossing holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated

if TYPE_CHECKING:
    from isoflop._crossover import Crossing


def crossing(
    *, beyond: float = 10.0, noise: float = 0.002, rows: int = 14, tables: int = 40, draws: int = 100, seed: int = 0
) -> Simulated:
    """Share of planted crossings in their 90 % interval, and of parallel curves that are not said to cross.

    Two recipes, L = 3 (x / 1e18)^-.10 and A (x / 1e18)^-.12, have `rows` runs each from x = 1e18 to 1e21, with
    log-normal `noise`; A puts the crossing `beyond` times above the largest. Both are fitted by `power`, and the
    crossing's interval comes from pairs of `draws`. Part `crossing`: inside, 1 where the 90 % interval holds it, .9 on
    average; early, 1 where the first recipe is found to win below it, as planted. Part `parallel`, half as many: the
    same exponent, the second 5 % worse; quiet, 1 unless both ends of a crossing's interval lie within three decades of
    the rows.

    Source: Xiao 2024 (arXiv 2409.15156), which names the crossover; the coverage is by construction of the interval.
    Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("crossing", beyond=(beyond, 1e-3), noise=(noise, 1e-6), rows=(rows, 4), tables=(tables, 2), draws=(draws, 20))
    at = 1e21 * beyond
    made: dict[str, list[dict[str, float]]] = {"crossing": [], "parallel": []}
    for table in range(tables):
        rng = np.random.default_rng([seed, table])
        found = _crossing((3.0, 0.10), (3.0 * (at / 1e18) ** 0.02, 0.12), noise, rows, draws, rng)
        low, high = found.roots[0].interval(90) if found.roots else (np.inf, 0.0)
        first = bool(found.roots) and found.roots[0].before == "first"
        made["crossing"].append({"seed": table, "inside": float(low <= at <= high), "early": float(first)})
        if table % 2:
            continue
        level = _crossing((3.0, 0.10), (3.15, 0.10), noise, rows, draws, rng)
        ends = [root.interval(90) for root in level.roots]
        sure = any(low > 0 and np.isfinite(high) for low, high in ends)
        made["parallel"].append({"seed": table, "quiet": float(not sure)})
    return simulated(
        "crossing",
        {part: columns(lines) for part, lines in made.items()},
        {
            "inside": Claim(0.9, "inside", "crossing", within=0.15),
            "early": Claim(1.0, "early", "crossing", within=0.05),
            "quiet": Claim(1.0, "quiet", "parallel", within=0.1),
        },
        source="arXiv 2409.15156",
        status="planted; checks the interval of `isoflop crossover`, not a fact about networks",
        settings=settings,
    )


def _crossing(
    one: tuple[float, float], other: tuple[float, float], noise: float, rows: int, draws: int, rng: np.random.Generator
) -> Crossing:
    from isoflop._crossover import crossover
    from isoflop._fit import fitted, prepare

    x = np.geomspace(1e18, 1e21, rows)
    fits = []
    for k, (a, alpha) in enumerate((one, other)):
        loss = a * (x / 1e18) ** -alpha * np.exp(noise * rng.standard_normal(rows))
        setup = prepare("power", {"flops": x, "loss": loss}, axis="flops", objective="squares_log")
        fits.append(fitted(setup, law="power", draws=draws, seed=k, by=None))
    return crossover(*fits, names=("first", "second"))
