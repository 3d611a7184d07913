"""What limits a run, and what a run takes: the arithmetic of cost, time, data and memory, without any law."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from isoflop._prices import Device, Prices, get_device

TOTALS = ("flops", "usd", "gpu_hours")  # limits on training and serving together
_USABLE = 0.9  # of a device's memory; the rest is buffers and fragments
_ASPECT = 128.0  # width / depth of the transformer that activations are counted for: GPT-3's 12288 / 96


@dataclass(frozen=True)
class Limits:
    """One set of constraints, checked; names and units as in `plan_at`. None: no such limit."""

    device: Device
    flops: float | None = None
    usd: float | None = None
    gpu_hours: float | None = None
    hours: float | None = None
    goal: float | None = None
    cheapest: str = "flops"
    served_tokens: float = 0.0
    unique_tokens: float | None = None
    repeat_worth: float = 15.387756  # R_D of Muennighoff et al. 2023 (arXiv 2305.16264), fitted there
    epochs: float | None = None
    precision: str = "bf16"
    mfu: float = 0.4
    serve_mfu: float = 0.4
    devices: float | None = None
    batch_crit: float | None = None
    tokens_per_device: float = 8192.0
    memory_gb: float | None = None
    shard: float | None = None
    bytes_per_param: float = 16.0  # mixed-precision Adam: 2 + 2 + 12 (Rajbhandari et al. 2019, arXiv 1910.02054)
    active_share: float = 1.0
    held: Mapping[str, float] = field(default_factory=dict)

    def but(self, name: str, value: float) -> Limits:
        """The same limits with one number changed."""
        change: dict[str, Any] = {name: value}
        return replace(self, **change)

    # -- what a run takes: N active parameters, D tokens ---------------------------------------------------------------

    @property
    def speed(self) -> float:
        """FLOPs that one device does in an hour of training."""
        return 3600.0 * self.mfu * self.device.flops_per_second(self.precision)

    @property
    def serve_speed(self) -> float:
        """FLOPs that one device does in an hour of serving."""
        return 3600.0 * self.serve_mfu * self.device.flops_per_second(self.precision)

    def weights(self, what: str) -> tuple[float, float]:
        """What one FLOP of training and one of serving count in "flops", "gpu_hours" or "usd"."""
        price = self.device.usd_per_hour if what == "usd" else 1.0
        return (1.0, 1.0) if what == "flops" else (price / self.speed, price / self.serve_speed)

    def total(self, what: str, active: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Training 6 N D and serving 2 N D_inf, counted as `what` (Sardana and Frankle, arXiv 2401.00448, eq. 1)."""
        train, serve = self.weights(what)
        return 6.0 * active * tokens * train + 2.0 * active * self.served_tokens * serve

    def most_tokens(self, active: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """The most training tokens that a model may see under every limit; 0 where it may not be trained at all."""
        cap = np.full(np.shape(active), np.inf)
        for what in TOTALS:
            limit = getattr(self, what)
            if limit is not None:
                train, serve = self.weights(what)
                cap = np.minimum(cap, (limit - 2.0 * active * self.served_tokens * serve) / (6.0 * active * train))
        if self.hours is not None and self.devices is not None:
            cap = np.minimum(cap, self.hours * self.speed * self.devices / (6.0 * active))
        if self.epochs is not None and self.unique_tokens is not None:
            cap = np.minimum(cap, self.epochs * self.unique_tokens)
        if self.room is not None:
            cap = np.where(self.sharding(active, whole) > self.room, 0.0, cap)
        return np.maximum(cap, 0.0)

    @property
    def room(self) -> float | None:
        """Over how many devices states may be split; None where nothing says."""
        given = [v for v in (self.shard, self.devices) if v is not None]
        return min(given) if given else None

    def memory(self, active: np.ndarray, whole: np.ndarray, shard: np.ndarray) -> np.ndarray:
        """Gigabytes that training takes on one device: states split over `shard` devices, activations recomputed.

        States: bytes_per_param a parameter. Activations, 2 bytes each: an input a layer and token, and 34 h bytes a
        token for the one layer that is being recomputed (Korthikanti et al. 2022, arXiv 2205.05198, table 2, without
        the attention scores, which fused kernels do not store), for a transformer of N = 12 L h^2 and h = 128 L.
        """
        return (whole * self.bytes_per_param / shard + self._activations(active)) / 1e9

    def _activations(self, active: np.ndarray) -> np.ndarray:
        depth = np.maximum((active / (12.0 * _ASPECT**2)) ** (1 / 3), 1.0)
        return self.tokens_per_device * _ASPECT * depth * (2.0 * depth + 34.0)

    def sharding(self, active: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Over how many devices states must be split to fit, 1 or more, not rounded; inf where none is enough."""
        usable = _USABLE * 1e9 * (self.memory_gb or self.device.memory_gb)
        left = usable - self._activations(active)
        need = whole * self.bytes_per_param / np.where(left > 0, left, np.nan)
        return np.where(left > 0, np.fmax(need, 1.0), np.inf)

    def running(self, active: np.ndarray, whole: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Devices that run at once: as few as `hours` takes, else all; at least as many as states are split over."""
        if self.hours is not None:
            need = 6.0 * active * tokens / (self.speed * self.hours)
        else:
            need = np.full(np.shape(tokens), self.devices or 1.0)
        least = self.sharding(active, whole) if self.room is not None else 1.0
        return np.maximum(need, least)

    def effective(self, active: np.ndarray, whole: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """What D tokens are worth at the batch that keeps the devices busy: D / (1 + B / B_crit).

        Source: McCandlish et al. 2018 (arXiv 1812.06162), section 2: D = D_min (1 + B / B_crit).
        """
        if self.batch_crit is None:
            return tokens
        batch = self.tokens_per_device * self.running(active, whole, tokens)
        return tokens / (1.0 + batch / self.batch_crit)

    def repeated(self, tokens: np.ndarray) -> np.ndarray:
        """D' = U + U R (1 - exp(-(D/U - 1) / R)): fresh tokens that repeats are worth (arXiv 2305.16264, eq. 5)."""
        if self.unique_tokens is None:
            return tokens
        repeats = np.maximum(tokens / self.unique_tokens - 1.0, 0.0)
        worth = self.unique_tokens * (1.0 - self.repeat_worth * np.expm1(-repeats / self.repeat_worth))
        return np.where(repeats > 0, worth, tokens)


_TEXTS = ("cheapest", "precision")
_NUMBERS = tuple(f.name for f in fields(Limits) if f.name not in ("device", "held", *_TEXTS))


def limits(given: Mapping[str, Any], columns: tuple[str, ...], prices: Prices) -> Limits:
    """Constraints as they are given, checked. columns: of the law, which may be held.

    Raises ValueError for an unknown name or a number that is none or not above zero, LookupError for a device.
    """
    read: dict[str, Any] = {"device": get_device(prices, given.get("device"))}
    held = {}
    for name, value in given.items():
        name = "unique_tokens" if name == "unique" and "unique" in columns else name
        if value is None or name in ("device", "choices"):
            continue
        if name in _TEXTS:
            read[name] = str(value)
        elif name in _NUMBERS:
            read[name] = _number(name, value)
        elif name in (*columns, "tokens"):
            held[name] = _number(name, value)
        else:
            raise ValueError(_unknown(name, columns))
    made = Limits(**read, held=held)
    if made.cheapest not in TOTALS:
        raise ValueError(f"cheapest is one of {', '.join(TOTALS)}, got {made.cheapest!r}")
    for name in ("mfu", "serve_mfu", "active_share"):
        if getattr(made, name) > 1:
            raise ValueError(f"{name} is a share, at most 1; got {getattr(made, name):g}")
    if made.epochs is not None and made.unique_tokens is None:
        raise ValueError("epochs counts passes over unique_tokens: give these too")
    made.device.flops_per_second(made.precision)
    return made


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if value < 0 or (value == 0 and name != "served_tokens"):
        raise ValueError(f"{name} must be above zero, got {value:g}")
    return float(value)


def _unknown(name: str, columns: tuple[str, ...]) -> str:
    known = [*_NUMBERS, *_TEXTS, "device", "choices", *columns]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; the law's columns are {', '.join(columns)}"
    return f"no constraint or column {name!r}{hint}"
