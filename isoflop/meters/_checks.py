"""What a meter takes: columns as finite numbers, or a sentence that says which is not."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np


def numbers(meter: str, *, least: int = 1, **columns: Any) -> list[np.ndarray]:
    """Columns as finite float arrays of one length. Raises ValueError for missing cells, or fewer than `least` rows."""
    out = []
    for name, values in columns.items():
        array = _floats(meter, name, values)
        bad = ~np.isfinite(array)
        if bad.any():
            raise ValueError(
                f"{meter}: column {name!r} has no number in {int(bad.sum())} of {array.shape[0]} rows; "
                "leave them out with where"
            )
        out.append(array)
    lengths = {len(a) for a in out}
    if len(lengths) > 1:
        raise ValueError(f"{meter}: columns of different lengths, {', '.join(map(str, sorted(lengths)))}")
    if out and len(out[0]) < least:
        raise ValueError(f"{meter} needs at least {least} rows, got {len(out[0])}")
    return out


def positive(meter: str, *, least: int = 1, **columns: Any) -> list[np.ndarray]:
    """As `numbers`, and above 0."""
    out = numbers(meter, least=least, **columns)
    for name, array in zip(columns, out, strict=True):
        if not (array > 0).all():
            raise ValueError(f"{meter}: column {name!r} must be above 0, got {array.min():g}")
    return out


def between(meter: str, low: float, high: float, **columns: Any) -> list[np.ndarray]:
    """As `numbers`, and from low to high."""
    out = numbers(meter, **columns)
    for name, array in zip(columns, out, strict=True):
        if not ((array >= low) & (array <= high)).all():
            raise ValueError(f"{meter}: column {name!r} lies from {low:g} to {high:g}, got {array.min():g} to "
                             f"{array.max():g}")  # fmt: skip
    return out


def flags(meter: str, **columns: Any) -> list[np.ndarray]:
    """Columns of 0 and 1, or of True and False, as booleans."""
    out = []
    for name, values in columns.items():
        array = np.asarray(values)
        if array.dtype == object and set(array.tolist()) <= {"True", "False", True, False}:
            array = np.array([str(v) == "True" for v in array.tolist()], float)
        array = _floats(meter, name, array)
        if not np.isin(array, (0.0, 1.0)).all():
            raise ValueError(f"{meter}: column {name!r} holds 0 or 1 (False or True) in every row")
        out.append(array > 0)
    return out


def matrix(meter: str, *, least: int = 1, **columns: Any) -> list[np.ndarray]:
    """Columns or (rows, columns) arrays as finite (rows, columns) floats."""
    return [a[:, None] if a.ndim == 1 else a for a in numbers(meter, least=least, **columns)]


def setting(meter: str, ok: bool, name: str, allowed: str, value: Any) -> None:
    """Raise ValueError where a setting is out of range."""
    if not ok:
        raise ValueError(f"{meter}: {name} is {allowed}, got {value}")


def level_setting(meter: str, level: float) -> None:
    """Raise ValueError for a level that is not in per cent."""
    setting(meter, 0 < level < 100, "level", "in per cent, between 0 and 100", level)


def z_of(level: float) -> float:
    """Half width of the central normal interval at a level in per cent, in standard deviations."""
    return NormalDist().inv_cdf(0.5 + level / 200)


def t_of(level: float, degrees: float) -> float:
    """As `z_of` for Student's t: the expansion of Abramowitz and Stegun 26.7.5, to 1 % from 4 degrees of freedom."""
    z, v = z_of(level), float(degrees)
    return z + (
        (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def wilson(hits: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's interval of a share; (nan, nan) for no trials."""
    if n == 0:
        return (float("nan"), float("nan"))
    z, share = z_of(level), hits / n
    middle, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _floats(meter: str, name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{meter}: column {name!r} must hold numbers") from None
    return array
