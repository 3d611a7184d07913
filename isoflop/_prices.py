"""The table of devices: peak, memory and price by name, from prices.toml or a file of the user's."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_OURS = Path(__file__).parent / "prices.toml"


@dataclass(frozen=True)
class Device:
    """peak: FLOP/s by precision, dense; memory_gb: 10^9 bytes; date: of the table, as it says itself."""

    name: str
    memory_gb: float
    usd_per_hour: float
    peak: Mapping[str, float]
    date: str

    def flops_per_second(self, precision: str) -> float:
        """Peak at a precision. Raises ValueError where the table has none."""
        if precision not in self.peak:
            raise ValueError(f"device {self.name!r} has no peak for {precision!r}; it has {', '.join(self.peak)}")
        return self.peak[precision]


Prices = Mapping[str, Device]


def read_prices(source: str | os.PathLike[str] | Prices | None = None) -> Prices:
    """The table of devices: isoflop's own, a TOML file of the same shape, or as it is.

    Raises ValueError where the file has no devices or a device lacks a number above zero.
    """
    if source is None:
        return _ours()
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    try:
        return _parse(tomllib.loads(path.read_text()), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML ({error}); isoflop/prices.toml shows the shape") from error


def get_device(prices: Prices, name: str | None) -> Device:
    """A device by name; the table's first where there is none. Raises LookupError for a name that is not there."""
    if name is None:
        return next(iter(prices.values()))
    if name not in prices:
        close = difflib.get_close_matches(name, prices, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(prices)}"
        raise LookupError(f"the table of prices has no device {name!r}{hint}")
    return prices[name]


@lru_cache(maxsize=1)
def _ours() -> Prices:
    return _parse(tomllib.loads(_OURS.read_text()), _OURS.name)


def _parse(whole: Mapping[str, Any], where: str) -> Prices:
    devices = whole.get("device")
    if not isinstance(devices, Mapping) or not devices:
        raise ValueError(f"{where} has no [device.NAME]; isoflop/prices.toml shows the shape")
    return {name: _device(name, row, str(whole.get("date", "")), where) for name, row in devices.items()}


def _device(name: str, row: Any, date: str, where: str) -> Device:
    if not isinstance(row, Mapping) or not isinstance(row.get("peak"), Mapping) or not row["peak"]:
        raise ValueError(f"{where}, device {name!r}: write peak = {{ bf16 = ... }}, in FLOP/s")
    peak = {str(p): _positive(v, f"{where}, device {name!r}, peak {p}") for p, v in row["peak"].items()}
    memory, price = (_positive(row.get(k), f"{where}, device {name!r}, {k}") for k in ("memory_gb", "usd_per_hour"))
    return Device(name, memory, price, peak, date)


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be a number above zero, got {value!r}")
    return float(value)
