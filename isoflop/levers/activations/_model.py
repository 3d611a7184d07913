"""The ladder's transformer with a chosen activation function, and with a massive activation planted in it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._plain import PlainGPT, from_ladder
from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._shape import Shape

_FUNCTIONS = {"relu": F.relu, "silu": F.silu}


class Gated(nn.Module):
    """down(f(gate(x)) up(x)) with the three layers of a feed-forward block and another f."""

    def __init__(self, mlp: Any, function: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.function = _FUNCTIONS[function]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.function(self.gate_proj(x)) * self.up_proj(x))
        return out


class StartUnit(nn.Module):
    """A block whose output gets `size` added to number 0 of token 0: a massive activation that is known."""

    def __init__(self, block: nn.Module, size: float) -> None:
        super().__init__()
        self.block, self.size = block, size

    @property
    def self_attn(self) -> nn.Module:
        """The block's attention, where hooks look for it."""
        return self.block.get_submodule("self_attn")

    def forward(self, *args: Tensor) -> Tensor:
        x: Tensor = self.block(*args)
        added = torch.zeros_like(x)
        added[:, 0, 0] = self.size
        return x + added


def make(shape: Shape, *, context: int, seed: int, function: str = "silu", start_unit: float = 0.0) -> PlainGPT:
    """A model at its start, a pure function of the arguments; with "silu" the same function as the ladder's."""
    model = from_ladder(GPT(shape, context=context, seed=seed))
    layers: Any = model.layers
    for layer in layers:
        layer.mlp = Gated(layer.mlp, function)
    if start_unit:
        layers[0] = StartUnit(layers[0], start_unit)
    return model.requires_grad_(True)
