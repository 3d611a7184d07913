"""Learning how to round, block by block: blocks of a model, what they read, and layers with learned divisors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._blocks import Scheme, scales, split, stored_scale
from isoflop.levers.precision._formats import get_format
from isoflop.levers.precision._linear import Acts, QuantLinear
from isoflop.levers.precision._plain import part
from isoflop.levers.precision._sites import linear_names, outputs

Call = tuple[tuple[Any, ...], dict[str, Any]]


def find_blocks(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, list[str]]:
    """Block -> names of its linear layers: entries of the module list with most of them; other layers each alone."""
    names = linear_names(model, skip)
    lists = [prefix for prefix, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    inside = {prefix: [n for n in names if n.startswith(f"{prefix}.")] for prefix in lists}
    best = max(inside, key=lambda prefix: len(inside[prefix]), default=None)
    blocks: dict[str, list[str]] = {}
    for name in names:
        taken = best is not None and name in inside[best]
        key = ".".join(name.split(".")[: best.count(".") + 2]) if taken and best is not None else name
        blocks.setdefault(key, []).append(name)
    return blocks


@torch.no_grad()
def calls(model: nn.Module, block: str, calibration: Sequence[Any]) -> list[Call]:
    """The arguments that a block is called with on each batch."""
    seen: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((args, named))
        raise _Reached

    hook = part(model, block).register_forward_pre_hook(note, with_kwargs=True)
    try:
        for batch in calibration:
            try:
                outputs(model, batch)
            except _Reached:
                continue
            raise ValueError(f"calibration never reached {block}; skip that layer, or give other inputs")
    finally:
        hook.remove()
    return seen


class _Reached(Exception):
    """The block has been called; what comes after it need not run."""


def first(output: Any) -> Tensor:
    """The hidden state of what a block returns."""
    made: Tensor = output[0] if isinstance(output, tuple) else output
    return made


def round_through(x: Tensor) -> Tensor:
    """Rounding with the gradient of the identity."""
    return x + (x.round() - x).detach()


class Learned(nn.Module):
    """A linear layer whose weights are rounded after a learned division: W_q = d (clamp(round(W / (d e^S)) + z) - z).

    S = L U + r + c with L (out, rank) and r (out, 1), c (1, in) from zero, so that learning starts at rounding to
    nearest; rank 0: one full matrix from zero (FlexRound). d: scale of each group, learned too, by its logarithm.
    """

    original: Tensor
    zero: Tensor

    def __init__(self, linear: nn.Linear, stored: Scheme, acts: Acts | None, *, rank: int, seed: int) -> None:
        super().__init__()
        f, weight = get_format(stored.format), linear.weight.detach()
        if f.kind != "int" or stored.scale not in ("fp16", "fp32"):
            raise ValueError(f"lrq learns roundings to whole numbers, and {stored.format} is none; give int2 to int8")
        out, inputs = weight.shape
        s, z = scales(split(weight, stored.group), stored)
        self.least, self.most = (-f.largest, f.largest) if z is None else (0.0, 2.0**f.bits - 1)
        self.register_buffer("original", weight)
        self.register_buffer("zero", torch.zeros_like(s) if z is None else z)
        self.log_d = nn.Parameter(torch.where(s > 0, s, torch.ones_like(s)).log())
        self.row, self.column = nn.Parameter(weight.new_zeros(out, 1)), nn.Parameter(weight.new_zeros(1, inputs))
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(inputs)  # Kaiming uniform with a = sqrt(5)
        up = (
            torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator) if rank else torch.zeros(out, inputs)
        )
        self.up = nn.Parameter(up.to(weight))
        self.down = nn.Parameter(weight.new_zeros(out, rank)) if rank else None
        self.bias, self.stored, self.acts = linear.bias, stored, acts

    @property
    def in_features(self) -> int:
        return int(self.original.shape[1])

    @property
    def learned(self) -> int:
        """Numbers learned per layer beyond the scales that rounding has anyway."""
        return sum(p.numel() for p in (self.row, self.column, self.up, self.down) if p is not None)

    def weight(self) -> Tensor:
        """The rounded weight, differentiable in what is learned."""
        log_s = (self.up if self.down is None else self.down @ self.up) + self.row + self.column
        d = self.log_d.exp()
        scaled = split(self.original * torch.exp(-log_s), self.stored.group) / d
        codes = (round_through(scaled) + self.zero).clamp(self.least, self.most)
        made: Tensor = ((codes - self.zero) * d).reshape(self.original.shape)
        return made

    def forward(self, x: Tensor) -> Tensor:
        if self.acts:
            x = x + (self.acts.round(x.detach()) - x).detach()
        return F.linear(x, self.weight(), self.bias)

    @torch.no_grad()
    def finished(self) -> QuantLinear:
        """The layer with fixed rounding; scales are rounded to their format."""
        log_s = (self.up if self.down is None else self.down @ self.up) + self.row + self.column
        d = self.log_d.exp()
        codes = (split(self.original * torch.exp(-log_s), self.stored.group) / d).round() + self.zero
        codes = codes.clamp(self.least, self.most) - self.zero
        scale = stored_scale(d, self.stored)
        made = QuantLinear((codes * scale).reshape(self.original.shape), self.bias, stored=self.stored, acts=self.acts)
        made.scale, made.zero = scale, None if self.stored.symmetric else self.zero
        return made.requires_grad_(False)


@dataclass(frozen=True)
class Learning:
    """How a block's roundings are learned: Adam on the mean squared error of the block's output, one batch a step."""

    steps: int
    rate: float
    seed: int

    def fit(self, block: nn.Module, inputs: Sequence[Call], wanted: Sequence[Tensor]) -> None:
        """Learn in place."""
        parameters = [p for module in block.modules() if isinstance(module, Learned) for p in module.parameters()]
        for p in block.parameters():
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, lr=self.rate)
        for index in self._order(len(inputs)):
            args, named = inputs[index]
            loss = F.mse_loss(first(block(*args, **named)), wanted[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def _order(self, count: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.steps):
            yield int(torch.randint(count, (1,), generator=generator))


def relative_error(block: nn.Module, inputs: Sequence[Call], wanted: Sequence[Tensor]) -> float:
    """|block(x) - y|^2 / |y|^2 over the batches."""
    with torch.no_grad():
        gaps = [first(block(*args, **named)) - y for (args, named), y in zip(inputs, wanted, strict=True)]
    return float(sum((g**2).sum() for g in gaps) / sum((y**2).sum() for y in wanted))
