"""Precision: the loss of trained models against the bits of their weights and activations, by method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from isoflop import _find
from isoflop.levers.precision.training.qat import Qat
from isoflop.levers.train import Train
from isoflop.levers.train._toml import filled, read

_LISTS = {"ladder": True}  # fields that only list settings: a sweep may be resumed with longer lists
_ALL = ("round_nearest", "awq", "smoothquant", "aqas", "smooth_rot", "runtime_smooth", "outlier_tune")
_NEEDS_ACTS = ("runtime_smooth", "outlier_tune", "granq")
_FLOAT_BITS = (4, 6, 8)
_PAIRS = ((8, 8), (4, 16), (4, 8), (4, 4))


@dataclass(frozen=True)
class Precision:
    """Train the models of a ladder once per seed, then quantise each with every method at every precision.

    train: fields of `Train` (source, sizes, tokens or budgets, lr, ...); folder: instead, a trained model's folder
    methods: names of quantisers, or tables {name = ..., label = ..., bits = ..., own settings}
    bits: pairs (bits of weights, bits of activations); 16 leaves activations as they are. Methods that only round
        activations are left out there, and methods of floats where there is no such float
    outliers: factors of function-preserving outlier channels put in before (1: none), `channels` of them at each site
    floats: methods that take floats of so many bits, not whole numbers
    group, symmetric, act_range: see `Target`
    calibration_windows, heldout_windows: windows of the training text that calibrate, of the held-out text that measure
    """

    axis: ClassVar[str] = "bits_weights"

    train: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    text: str = ""
    methods: Sequence[str | dict[str, Any]] = field(default=_ALL, metadata=_LISTS)
    bits: Sequence[tuple[int, int]] = field(default=_PAIRS, metadata=_LISTS)
    outliers: Sequence[float] = field(default=(1.0,), metadata=_LISTS)
    floats: Sequence[str] = ("llm_fp4",)
    channels: int = 3
    group: int = 32
    symmetric: bool = False
    act_range: str = "token"
    calibration_windows: int = 16
    heldout_windows: int = 256

    def __post_init__(self) -> None:
        if bool(self.train) == bool(self.folder):
            raise ValueError(
                "give either train (a table of the ladder's fields) or folder (a trained model), one of the two"
            )
        if self.folder and not self.text:
            raise ValueError("a model's folder needs text, a file to calibrate on and measure with")
        for one in self.methods:
            _find.get("levers/precision", _named(one)["name"])
        for pair in self.bits:
            if len(pair) != 2 or min(pair) < 2:
                raise ValueError(f"bits holds {pair!r}; give pairs such as [4, 16]: weights, activations")
        if self.train:
            _ = self.ladder_of_models

    @cached_property
    def ladder_of_models(self) -> Train:
        """The `train` lever that makes the models. Raises ValueError for a field it has not."""
        return filled(Train, self.train, what="key in train")

    def facts(self) -> dict[str, Any]:
        """Where the text came from, with its sha256: a sweep is not resumed on another text."""
        if self.train:
            return self.ladder_of_models.facts()
        files = [Path(self.text), *sorted(Path(self.folder).glob("*.safetensors"))]
        return {"files": [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]}

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, low precision to high: bits, method, outliers, and the size and tokens of the model."""
        models = self.ladder_of_models.ladder() if self.train else [{}]
        rows = [
            {
                **{k: v for k, v in model.items() if k != "repeats"},
                **_named(one)["setting"],
                **_bits(pair),
                "outliers": f,
            }
            for model in models
            for pair in self.bits
            for f in self.outliers
            for one in self.methods
            if self._applies(one, pair)
        ]
        return sorted(rows, key=lambda r: (r["bits_weights"], r["bits_acts"]))

    def _applies(self, one: str | dict[str, Any], pair: Sequence[int]) -> bool:
        """Whether a method is tried at these bits."""
        name, only = _named(one)["name"], () if isinstance(one, str) else one.get("bits", ())
        if only and list(pair) not in [list(p) for p in only]:
            return False
        if name in self.floats and (pair[0] not in _FLOAT_BITS or pair[1] not in (*_FLOAT_BITS, 16)):
            return False
        return pair[1] < 16 or name not in _NEEDS_ACTS

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Quantise the model of a setting and return its row: loss, loss_before, loss_increase, bits, bytes, seconds.

        The model is trained on first need and kept in `cache`; without a cache it is trained for every row.
        """
        try:
            from isoflop.levers.precision import _run
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            raise ImportError("the precision lever needs PyTorch: pip install 'isoflop[torch]'") from error
        return _run.run(self, setting, seed=seed, cache=cache)

    @classmethod
    def from_toml(cls, path: str | Path) -> Precision | Qat:
        """Read a sweep file, one with `cells` as `Qat`; an unknown key is refused with the closest known."""
        return read(path, cls._of_table)

    @classmethod
    def _of_table(cls, table: dict[str, Any]) -> Precision | Qat:
        if "cells" in table:
            return Qat.from_table(table)
        return filled(cls, table | {"bits": [tuple(p) for p in table["bits"]]} if "bits" in table else table)


def _named(one: str | dict[str, Any]) -> dict[str, Any]:
    """Name of a method, and what a row says of it: its label, and its own settings as JSON where there are any."""
    if isinstance(one, str):
        return {"name": one, "setting": {"method": one, "label": one, "knobs": "{}"}}
    own = {k: v for k, v in one.items() if k not in ("name", "label", "bits")}
    if "name" not in one:
        raise ValueError(f"a method lacks its name: {one}")
    setting = {"method": one["name"], "label": one.get("label", one["name"]), "knobs": json.dumps(own, sort_keys=True)}
    return {"name": one["name"], "setting": setting}


def _bits(pair: Sequence[int]) -> dict[str, int]:
    return {"bits_weights": int(pair[0]), "bits_acts": int(pair[1])}
