"""The main job on recorded runs: fit, forecast the largest model that was held out, plan, report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._fit import fit
from isoflop._recorded import recorded
from isoflop._report import Report, report

TITLES = {
    "python_source": "Transformers of 7 thousand to 0.8 million parameters on Python's own source, byte by byte",
    "zipf_words": "The same on random words of known entropy",
}


def demo_report(name: str, *, draws: int = 400, seed: int = 0) -> Report:
    """Fit chinchilla to all sizes of a recorded ladder but the largest, forecast that one, and plan three budgets.

    Runs that went on from one trunk are resampled together.
    """
    runs: Any = recorded(name)
    largest = runs["params"].max()
    rest, held = runs[runs["params"] < largest], runs[runs["params"] == largest]
    top = float(rest["flops"].max())
    fitted = fit("chinchilla", rest.reset_index(drop=True), by="trunk", draws=draws, seed=seed)
    return report(
        fitted,
        rest.reset_index(drop=True),
        held_out=held.reset_index(drop=True),
        budgets=(top, 10 * top, 100 * top),
        title=TITLES.get(name, name),
    )


def truth_about_E(name: str, made: Report) -> str:
    """For a source of known entropy: the fitted irreducible loss against it, in a sentence; empty for others."""
    runs: Any = recorded(name)
    rate = float(runs["entropy_rate"].iloc[0]) if "entropy_rate" in runs.columns else float("nan")
    if not math.isfinite(rate):
        return ""
    low, high = made.fit.interval()["E"]
    held = "inside" if low <= rate <= high else "outside"
    return (
        f"The source's entropy rate is {rate:.4f} nats per token in closed form; the fitted E is "
        f"{made.fit.coef['E']:.4f} [{low:.4f}, {high:.4f}]: the truth lies {held} the 90 % interval."
    )


def demo(folder: Path) -> Iterator[tuple[str, Report, str]]:
    """Each recorded ladder's report, written into `folder` as it is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TITLES:
        made = demo_report(name)
        first = name == next(iter(TITLES))
        made.figures(folder if first else folder / name)
        made.html(folder / ("report.html" if first else f"{name}.html"))
        yield name, made, truth_about_E(name, made)
