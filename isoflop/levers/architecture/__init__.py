"""Architecture: arms of one model against each other, at equal cost, over learning rates, sizes and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from isoflop.levers.train import Train
from isoflop.levers.train._check import known
from isoflop.levers.train._design import DESIGN_FIELDS, Design
from isoflop.levers.train._toml import declare, read

_LISTS = {"ladder": True}  # fields that only list settings: a sweep may be resumed with longer lists
MODELS = ("gpt", "digits", "denoiser")
KEYS = ("arms", "rates", "model", "held", "grid")
DIGITS = ("width", "depth", "steps", "batch", "warmup_steps", "dropout", "residual", "gain")
DENOISER = ("width", "depth", "steps", "batch", "warmup_steps", "skip", "kappa")
_SMALL = {"width": 16, "depth": 2, "steps": 20}


@dataclass(frozen=True)
class Architecture:
    """Train every arm at every rate, size and point of a grid.

    arms: {name: the fields it changes}; the first one is what the others are compared with. An arm may have `rates`
        of its own
    rates: peak learning rates, the same at every size
    model: "gpt", the ladder's transformer; "digits", an MLP on 8 x 8 digits; "denoiser", a net with long skips that
        takes noise off such digits (the last two need scikit-learn)
    held: fields that all arms share: of `train` ("gpt"); of `_mlp.DigitsRun` and `_design.Design` ("digits"); of
        `_denoiser.Denoiser` ("denoiser")
    grid: {field: values}, run in every combination, such as { width = [64, 512] }

    A row has arm, lr, the grid's fields, loss, start_loss (that of knowing nothing), flops and cpu_seconds. A run
    whose loss is not finite is a failed row.
    """

    axis: ClassVar[str] = "lr"

    arms: dict[str, dict[str, Any]] = field(default_factory=lambda: {"plain": {}})
    rates: Sequence[float] = field(default=(1e-3,), metadata=_LISTS)
    model: str = "digits"
    held: dict[str, Any] = field(default_factory=lambda: dict(_SMALL))
    grid: dict[str, Sequence[Any]] = field(default_factory=dict, metadata=_LISTS)

    def __post_init__(self) -> None:
        known(self.model, MODELS, what="model")
        if not self.arms or not all(isinstance(arm, dict) for arm in self.arms.values()):
            raise ValueError("arms is a table of tables, {name = {field = value}}, and none may be missing")
        rates = [lr for name in self.arms for lr in self.rates_of(name)]
        if not rates or not all(0 < lr < float("inf") for lr in rates):
            raise ValueError(f"rates hold {rates}; give positive numbers")
        changed = {*self.grid, *(key for arm in self.arms.values() for key in arm)}
        if "lr" in self.held or changed & {"lr", "sizes", "tokens", "budgets"}:
            raise ValueError("lr is swept by rates, and sizes, tokens and budgets are for all arms: held")
        if not all(self.grid.values()):
            raise ValueError("grid is a table {field = [values]}, and none may be empty")
        for setting in self._points():
            self.made(setting)

    def rates_of(self, arm: str) -> Sequence[float]:
        """The rates of an arm: its own, or those of all."""
        own: Sequence[float] = self.arms[arm].get("rates", self.rates)
        return own

    @cached_property
    def train(self) -> Train:
        """The ladder of model "gpt", before an arm changes it."""
        return declare(Train, self.held)

    def made(self, setting: dict[str, Any]) -> Any:
        """What trains a setting: a `Train`, a `DigitsRun` or a `Denoiser` without its rate.

        Raises ValueError for a field that the model has not.
        """
        changed = {k: v for k, v in self.arms[setting["arm"]].items() if k != "rates"}
        fields = {**self.held, **changed, **{k: setting[k] for k in self.grid}}
        if self.model == "gpt":
            return replace(declare(Train, fields), lr={"base": setting["lr"], "width": 1.0, "power": 0.0})
        own, design = (DENOISER, ()) if self.model == "denoiser" else (DIGITS, DESIGN_FIELDS)
        for key in fields:
            known(key, (*own, *design), what=f"field of model {self.model!r}")
        if self.model == "denoiser":
            return _needs_torch("isoflop.levers.architecture._denoiser").Denoiser(**fields)
        made = Design(**{k: v for k, v in fields.items() if k in design})
        own_fields = {k: v for k, v in fields.items() if k in own}
        return _needs_torch("isoflop.levers.train._mlp").DigitsRun(made, **own_fields)

    def _points(self) -> list[dict[str, Any]]:
        return [
            {"arm": arm, "lr": lr, **dict(zip(self.grid, point, strict=True))}
            for point in product(*self.grid.values())
            for arm in self.arms
            for lr in self.rates_of(arm)
        ]

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, size by size as they are listed."""
        sizes = self.train.ladder() if self.model == "gpt" else [{}]
        return [{**size, **point} for size in sizes for point in self._points()]

    def cost(self, setting: dict[str, Any]) -> float:
        """About the time of a run: what it multiplies, and what it takes beyond that."""
        if self.model == "gpt":
            return self.train.cost({k: v for k, v in setting.items() if k in ("width", "depth", "heads", "tokens")})
        run = self.made(setting)
        return float(run.steps * run.depth * (run.width + 100) ** 2)

    def facts(self) -> dict[str, Any]:
        """Where the text of model "gpt" came from."""
        return self.train.facts() if self.model == "gpt" else {}

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting and return its row; nothing is kept in `cache`."""
        row: dict[str, Any] = _needs_torch("isoflop.levers.architecture._run").run(self, setting, seed=seed)
        return row

    @classmethod
    def from_toml(cls, path: str | Path) -> Architecture:
        """Read a sweep file; an unknown key is refused with the closest known one."""
        return read(path, cls._of_table)

    @classmethod
    def _of_table(cls, table: dict[str, Any]) -> Architecture:
        for key in table:
            known(key, KEYS, what="key")
        return cls(**table)


def _needs_torch(module: str) -> Any:
    """A module that imports PyTorch."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise ImportError("the architecture lever needs PyTorch: pip install 'isoflop[torch]'") from error
