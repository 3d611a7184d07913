"""Runs that isoflop's own ladders produced, shipped with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isoflop import _runs

if TYPE_CHECKING:
    import pandas

_HERE = Path(__file__).parent / "recorded"


def recorded(name: str | None = None, *, curves: bool = False) -> pandas.DataFrame | list[str]:
    """Recorded runs by name as a frame (`curves`: their loss curves instead); without a name, which there are.

    Each folder in isoflop/recorded holds the ladder file that made the runs and a README. Raises LookupError for an
    unknown name.
    """
    names = sorted(p.parent.name for p in _HERE.glob("*/ladder.toml"))
    if name is None:
        return names
    if name not in names:
        raise LookupError(f"no recorded ladder {name!r}; there are {', '.join(names)}")
    return _runs.read(_HERE / name / ("curves.csv" if curves else "runs.csv"))
