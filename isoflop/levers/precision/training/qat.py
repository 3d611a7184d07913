"""Quantisation-aware training, and grids of it over width, tokens, bits and group: a ladder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from isoflop.levers.train import Train
from isoflop.levers.train._toml import filled

if TYPE_CHECKING:
    import pandas as pd

    from isoflop.levers.precision.training._layers import Recipe

_LISTS = {"ladder": True}


def qat(*, weights: int = 4, acts: int = 4, group: int = 32) -> Recipe:
    """Weights and inputs of every linear layer but the last rounded to whole numbers of so many bits (16: not), with
    the largest value of each `group` along the summed axis as scale; gradients go straight through.

    Source: the setting of Chen et al. 2025 (arXiv:2505.14302), which learns the weights' clipping besides.
    """
    from isoflop.levers.precision.training._cast import Cast
    from isoflop.levers.precision.training._layers import Recipe

    wanted = [Cast(f"int{bits}", group) if bits < 16 else None for bits in (weights, acts)]
    return Recipe(weights=wanted[0], acts=wanted[1])


@dataclass(frozen=True)
class Qat:
    """Train every model of a ladder from its start with quantisation, once for each cell.

    train: fields of `Train`: source, sizes, tokens, lr, ...
    cells: triples (bits of weights, bits of inputs, group); 16 leaves that operand as it is, and (16, 16, 0) is the
        plain training that `increases` compares with
    """

    axis: ClassVar[str] = "params"

    train: dict[str, Any]
    cells: Sequence[tuple[int, int, int]] = field(metadata=_LISTS)

    def __post_init__(self) -> None:
        for cell in self.cells:
            if len(cell) != 3 or min(cell[:2]) < 2 or any(8 < bits != 16 for bits in cell[:2]) or cell[2] < 0:
                raise ValueError(
                    f"cells holds {list(cell)}; give triples such as [4, 16, 32]: 2 to 8 or 16 bits, group"
                )
        _ = self.ladder_of_models

    @cached_property
    def ladder_of_models(self) -> Train:
        """The `train` lever that makes the models."""
        return filled(Train, self.train, what="key in train")

    def facts(self) -> dict[str, Any]:
        """Where the text came from, with its sha256."""
        return self.ladder_of_models.facts()

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, cheap to dear: each size and token count with each cell."""
        return [
            {**model, "bits_weights": w, "bits_acts": a, "group_size": g}
            for model in self.ladder_of_models.ladder()
            for w, a, g in self.cells
        ]

    def cost(self, setting: dict[str, Any]) -> float:
        """FLOPs of the training, for the time left."""
        return 6.0 * self.ladder_of_models.shape(setting).params * setting["tokens"]

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting and return its row; `bits_params` is what the model takes, in bits, with its scales."""
        try:
            from isoflop.levers.precision.training import _train
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            raise ImportError("training needs PyTorch: pip install 'isoflop[torch]'") from error
        w, a, g = setting["bits_weights"], setting["bits_acts"], setting["group_size"]
        own = {k: v for k, v in setting.items() if k in ("width", "depth", "heads", "tokens", "budget_flops")}
        _, row = _train.trained(self.ladder_of_models, own, qat(weights=w, acts=a, group=g), seed=seed)
        return {**row, "bits_params": self._bits(setting), "seconds": row["cpu_seconds"]}

    def _bits(self, setting: dict[str, Any]) -> float:
        shape, group = self.ladder_of_models.shape(setting), setting["group_size"]
        gains = (2 * shape.depth + 1) * shape.width
        matrices = shape.params_nonembed - gains
        each = setting["bits_weights"] + (16 / group if group and setting["bits_weights"] < 16 else 0)
        return matrices * each + 16.0 * (shape.params - matrices)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Qat:
        """From the table of a sweep file. Raises ValueError for a key that is none."""
        if "train" not in table:
            raise ValueError("a grid of trainings needs [train], the fields of the ladder")
        return filled(cls, {**table, "cells": [tuple(c) for c in table["cells"]]})


def increases(rows: pd.DataFrame) -> pd.DataFrame:
    """The quantised rows with `loss_plain` of the same model, tokens and seed, and `loss_increase` over it.

    Raises ValueError where a quantised row has no plain one.
    """
    same = ["width", "depth", "tokens", "seed"]
    off = (rows["bits_weights"] == 16) & (rows["bits_acts"] == 16)
    joined = rows[~off].merge(rows[off][[*same, "loss"]].rename(columns={"loss": "loss_plain"}), on=same, how="left")
    if joined["loss_plain"].isna().any():
        raise ValueError(
            "some quantised runs have no plain run of the same size, tokens and seed: add the cell 16, 16, 0"
        )
    return joined.assign(loss_increase=joined["loss"] - joined["loss_plain"])
