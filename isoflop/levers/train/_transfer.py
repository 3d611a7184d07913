"""Does the best learning rate stay where it is when the width grows? Runs for it, and the answer from their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from isoflop.levers.train import Train
from isoflop.levers.train._check import known
from isoflop.levers.train._design import Design
from isoflop.levers.train._toml import declare, read

MODELS = ("gpt", "digits")
KEYS = ("rates", "model", "widths", "depth", "steps", "batch", "activation", "base_width")
_LISTS = {"ladder": True}


@dataclass(frozen=True)
class Transfer:
    """Runs over parametrisations, widths and learning rates.

    rates: {parametrisation: learning rates}, peak rates of the base width's rule; a rate is the same for every width
    model: "gpt", the sizes and all else of `train`; or "digits", an MLP on 8 x 8 digits (needs scikit-learn), with
        widths, depth (hidden layers), steps, batch, activation, base_width
    """

    axis: ClassVar[str] = "width"

    rates: dict[str, Sequence[float]] = field(metadata=_LISTS)
    train: Train | None = field(default=None, metadata=_LISTS)  # what it holds is in facts()
    model: str = "gpt"
    widths: Sequence[int] = field(default=(), metadata=_LISTS)
    depth: int = 2
    steps: int = 60
    batch: int = 128
    activation: str = "relu"
    base_width: int = 64

    def __post_init__(self) -> None:
        known(self.model, MODELS, what="model")
        if not self.rates or not all(self.rates.values()):
            raise ValueError("rates is a table {parametrisation = [learning rates]}, and none may be empty")
        if bad := [lr for rates in self.rates.values() for lr in rates if not 0 < lr < float("inf")]:
            raise ValueError(f"rates hold {bad[0]!r}; give positive numbers")
        if (self.model == "gpt") != (self.train is not None) or (self.model == "digits" and not self.widths):
            raise ValueError("model 'gpt' needs a ladder's sizes, model 'digits' needs widths")
        for name in self.rates:
            self._train(name) if self.train else self._design(name)

    def _design(self, name: str) -> Design:
        return Design(parametrisation=name, base_width=self.base_width, activation=self.activation)

    def _train(self, name: str, *, lr: float = 1.0) -> Train:
        if self.train is None:
            raise ValueError("model 'digits' has no ladder to train")
        return replace(self.train, parametrisation=name, lr={"base": lr, "width": 1.0, "power": 0.0})

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, narrow to wide."""
        sizes = self.train.ladder() if self.train else [{"width": w, "depth": self.depth} for w in self.widths]
        made = [{**s, "parametrisation": n, "lr": lr} for s in sizes for n, rates in self.rates.items() for lr in rates]
        return sorted(made, key=lambda s: s["width"])

    def cost(self, setting: dict[str, Any]) -> float:
        """About the time of a run: what it multiplies, and what it takes beyond that."""
        return float(setting["width"] ** 2 + 100**2)

    def facts(self) -> dict[str, Any]:
        """What the ladder holds fixed, but for what is swept here."""
        if self.train is None:
            return {}
        held = {f.name: getattr(self.train, f.name) for f in fields(self.train) if not f.metadata.get("ladder")}
        return {k: v for k, v in held.items() if k not in ("lr", "parametrisation")} | self.train.facts()

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting; nothing is shared between rates, so the cache is not used."""
        own = {key: setting[key] for key in ("parametrisation", "lr")}
        if self.train:
            size = {k: v for k, v in setting.items() if k not in own}
            return self._train(own["parametrisation"], lr=own["lr"]).run(size, seed=seed) | own
        from isoflop.levers.train._mlp import DigitsRun

        run = DigitsRun(self._design(own["parametrisation"]), setting["width"], self.depth, self.steps, self.batch)
        return {**setting, "source": "isoflop sweep train, digits"} | run.train(lr=own["lr"], seed=seed)

    @classmethod
    def from_toml(cls, path: str | Path) -> Transfer:
        """Read a ladder file with a table [transfer]; for model "digits" that table is all there is in it."""
        return read(path, cls._of_table, what="ladder file")

    @classmethod
    def _of_table(cls, table: dict[str, Any]) -> Transfer:
        own = table.pop("transfer", None)
        if not isinstance(own, dict):
            raise ValueError("--transfer and --coordinates need a table [transfer] with rates in it")
        for key in own:
            known(key, KEYS, what="key in transfer")
        return cls(train=declare(Train, table) if own.get("model", "gpt") == "gpt" else None, **own)
