"""Activations: how sparse, how peaked and how good a ladder's models are while they train, by activation function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from isoflop.levers.train import Train
from isoflop.levers.train._toml import declare, filled, read

_LISTS = {"ladder": True}  # fields that only list settings: a sweep may be resumed with longer lists
FUNCTIONS = ("relu", "silu")


@dataclass(frozen=True)
class Activations:
    """Train the models of a ladder with each activation function, and measure activations at every checkpoint.

    train: fields of `Train` (source, sizes, tokens, lr, ...); what depends on its own transformer is not used
    functions: of the gate of the feed-forward blocks: "relu", "silu"
    start_units: sizes of one planted massive activation, added to the first number of the first token after the
        first block, during training too (0: none)
    perplexity_rise: the active share is that at which pruning raises perplexity by this share (.01: PPL-1 %)
    windows: held-out windows that a checkpoint is measured on

    A row holds the end of a run, `curve` the checkpoints: `loss`, `activation_ratio` (share of active neurons),
    `massive_ratio` (largest over median |h|, of the layer where that is largest), `massive` (how many are massive
    by the definition of the meter massive_activations), `sink_share` (attention on the first token); of what the
    layers' products read, `outliers` (meter outlier_dimensions) and `read_ratio`, and both again with the ending
    `_injected` for a copy of the same function in which three channels of every site are 20 times larger.
    """

    axis: ClassVar[str] = "tokens"

    train: dict[str, Any] = field(default_factory=dict)
    functions: Sequence[str] = field(default=FUNCTIONS, metadata=_LISTS)
    start_units: Sequence[float] = field(default=(0.0,), metadata=_LISTS)
    perplexity_rise: float = 0.01
    windows: int = 32

    def __post_init__(self) -> None:
        for name in self.functions:
            if name not in FUNCTIONS:
                raise ValueError(f"no activation function {name!r} here; there are {', '.join(FUNCTIONS)}")
        if not 0 < self.perplexity_rise < 1 or self.windows < 1:
            raise ValueError(f"perplexity_rise={self.perplexity_rise}, windows={self.windows}: a share and at least 1")
        _ = self.models

    @cached_property
    def models(self) -> Train:
        """The `train` lever whose sizes, text and rates are used. Raises ValueError as a ladder file's reader does."""
        return declare(Train, self.train)

    def facts(self) -> dict[str, Any]:
        """Where the text came from, with its sha256: a sweep is not resumed on another text."""
        return self.models.facts()

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, cheap to dear: size and tokens of the model, its function and its start unit."""
        return [
            {**{k: v for k, v in model.items() if k != "repeats"}, "function": function, "start_unit": unit}
            for model in self.models.ladder()
            for unit in self.start_units
            for function in self.functions
        ]

    def cost(self, setting: dict[str, Any]) -> float:
        """FLOPs of a setting, for the time left."""
        return 6.0 * self.models.shape(setting).params * float(setting["tokens"])

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting from its start and return its row; nothing is kept in `cache`."""
        try:
            from isoflop.levers.activations import _run
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            raise ImportError("the activations lever needs PyTorch: pip install 'isoflop[torch]'") from error
        return _run.run(self, setting, seed=seed)

    @classmethod
    def from_toml(cls, path: str | Path) -> Activations:
        """Read a sweep file; an unknown key is refused with the closest known one."""
        return read(path, partial(filled, cls))
