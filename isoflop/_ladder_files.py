"""Suggested runs as ladder files that `isoflop sweep train` takes: one a size, resumable into one folder."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoflop._design import NextRun

_OFF = 0.25  # share by which a shape may miss the parameters that are asked for
_REPLACED = ("sizes", "budgets", "tokens", "tokens_per_param", "min_steps", "repeats", "repeats_below")


def write_ladders(
    runs: Iterable[NextRun], base: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> list[Path]:  # fmt: skip
    """Ladder files for runs with params and tokens, everything else as in `base`, a ladder file of `train`.

    A size is the base's shape whose parameters are nearest, widened or narrowed in steps of 4 at its depth. Sweep all
    files into one folder: what they differ in may differ there. Raises ValueError where the runs are of other columns,
    no shape is within a quarter of a size, or the base is no ladder.
    """
    from isoflop.levers.train import Train

    path = Path(base)
    lever = Train.from_toml(path)
    kept = {k: v for k, v in tomllib.loads(path.read_text()).items() if k not in _REPLACED}
    sizes: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for run in runs:
        if not {"params", "tokens"} <= set(run.columns):
            raise ValueError(f"a ladder needs runs of params and tokens, and these are of {', '.join(run.columns)}")
        shape = _nearest(lever, run.columns["params"])
        sizes.setdefault(shape, []).append((round(run.columns["tokens"]), run.seeds))
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    return [
        _write(out, shape, seeds, rows, kept) for shape, rows in sizes.items() for seeds in sorted({s for _, s in rows})
    ]


def _nearest(lever: Any, params: float) -> tuple[int, int]:
    """Width and depth whose exact count is nearest."""
    shapes = [(w, size["depth"]) for size in lever.sizes for w in range(8, 4 * size["width"], 4)]
    built = {s: n for s in dict.fromkeys(shapes) if (n := _count(lever, s)) is not None}
    best = min(built, key=lambda s: abs(built[s] / params - 1))
    if abs(built[best] / params - 1) > _OFF:
        raise ValueError(
            f"no size near {params:.3g} parameters: the ladder's shapes reach up to {max(built.values()):.3g}"
        )
    return best


def _count(lever: Any, shape: tuple[int, int]) -> int | None:
    try:
        return int(lever.shape({"width": shape[0], "depth": shape[1]}).params)
    except ValueError:  # heads do not divide this width
        return None


def _write(
    folder: Path, shape: tuple[int, int], seeds: int, rows: list[tuple[int, int]], kept: Mapping[str, Any]
) -> Path:
    tokens = sorted({t for t, s in rows if s == seeds})
    told = dict(kept) | {"tokens": tokens, "repeats": seeds}
    text = "".join(f"{k} = {_toml(v)}\n" for k, v in told.items())
    text += f"\n[[sizes]]\nwidth = {shape[0]}\ndepth = {shape[1]}\n"
    path = folder / f"width{shape[0]}_depth{shape[1]}_seeds{seeds}.toml"
    path.write_text(text)
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
