"""Learning how to round, block by block: blocks of a model, what they read, and layers with learned divisors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
def calls(
    model: nn.Module, block: str, calibration: Sequence[Any], *, done: Mapping[str, Sequence[Any]] | None = None
) -> list[Call]:
    """The arguments that a block is called with on each batch.

    done: what blocks before it gave on each batch; they are not run again.
    """
    seen: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((args, named))
        raise _Reached

    hook = part(model, block).register_forward_pre_hook(note, with_kwargs=True)
    try:
        for index, batch in enumerate(calibration):
            for name, made in (done or {}).items():
                part(model, name).forward = partial(_given, made[index])
            try:
                outputs(model, batch)
            except _Reached:
                continue
            raise ValueError(f"calibration never reached {block}; skip that layer, or give other inputs")
    finally:
        hook.remove()
        for name in done or {}:
            part(model, name).__dict__.pop("forward", None)
    return seen


def _given(output: Any, *args: Any, **named: Any) -> Any:
    return output


@torch.no_grad()
def block_outputs(model: nn.Module, blocks: Iterable[str], calibration: Sequence[Any]) -> dict[str, list[Tensor]]:
    """The hidden state after every block on each batch, from one pass of the model."""
    seen: dict[str, list[Tensor]] = {block: [] for block in blocks}
    hooks = [
        part(model, block).register_forward_hook(lambda module, args, out, block=block: seen[block].append(first(out)))
        for block in seen
    ]
    try:
        for batch in calibration:
            outputs(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


class _Reached(Exception):
    """The block has been called; what comes after it need not run."""


def first(output: Any) -> Tensor:
    """The hidden state of what a block returns."""
    made: Tensor = output[0] if isinstance(output, tuple) else output
    return made


class _Rounded(torch.autograd.Function):
    """W_q = d (clamp(round(W e^-S / d) + z) - z) in blocks (out, groups, values), rounding gone straight through:

        dW_q/dS = -W e^-S where the code is not clamped, 0 elsewhere;   dW_q/dlog d = W_q + dW_q/dS

    By hand and some rows at a time, in the processor's cache: else these passes are half of the time of learning.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, log_s: Tensor, log_d: Tensor, zero: Tensor, ends: tuple[float, float]
    ) -> Tensor:
        d, slope, made = log_d.exp(), torch.empty_like(weight), torch.empty_like(weight)
        for rows in _chunks(weight):
            scaled = log_s[rows].neg().exp_().mul_(weight[rows])
            codes = (scaled / d[rows]).round_().add_(zero[rows])
            kept = codes.clamp(*ends)
            slope[rows] = scaled.masked_fill_(codes != kept, 0.0)
            torch.mul(kept.sub_(zero[rows]), d[rows], out=made[rows])
        ctx.save_for_backward(slope, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        slope, made = ctx.saved_tensors
        by_s, by_d = torch.empty_like(made), made.new_empty(*made.shape[:-1], 1)
        for rows in _chunks(made):
            part = torch.mul(grads[0][rows], slope[rows], out=by_s[rows]).neg_()
            torch.sum((grads[0][rows] * made[rows]).add_(part), dim=-1, keepdim=True, out=by_d[rows])
        return None, by_s, by_d, None, None


def _chunks(x: Tensor, numbers: int = 2**16) -> list[slice]:
    step = max(1, numbers // math.prod(x.shape[1:]))
    return [slice(i, i + step) for i in range(0, len(x), step)]


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

    def _log_s(self) -> Tensor:
        """S in blocks; the row and column vectors are two more ranks of the product."""
        if self.down is None:
            return split(self.up + self.row + self.column, self.stored.group)
        left = torch.cat((self.down, self.row, torch.ones_like(self.row)), dim=1)
        right = torch.cat((self.up, torch.ones_like(self.column), self.column))
        return split(left @ right, self.stored.group)

    def weight(self) -> Tensor:
        """The rounded weight, differentiable in what is learned."""
        blocks = split(self.original, self.stored.group)
        made: Tensor = _Rounded.apply(blocks, self._log_s(), self.log_d, self.zero, (self.least, self.most))
        return made.reshape(self.original.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.acts:
            x = x + (self.acts.round(x.detach()) - x).detach()
        return F.linear(x, self.weight(), self.bias)

    @torch.no_grad()
    def finished(self) -> QuantLinear:
        """The layer with fixed rounding; scales are rounded to their format."""
        d = self.log_d.exp()
        codes = (split(self.original, self.stored.group) * torch.exp(-self._log_s()) / d).round() + self.zero
        codes = codes.clamp(self.least, self.most) - self.zero
        scale = stored_scale(d, self.stored)
        made = QuantLinear((codes * scale).reshape(self.original.shape), self.bias, stored=self.stored, acts=self.acts)
        made.scale, made.zero = scale, None if self.stored.symmetric else self.zero
        return made.requires_grad_(False)


@dataclass(frozen=True)
class Learning:
    """How a block's roundings are learned: Adam on the mean squared error of the block's output, one batch a step, at a
    rate that falls to zero.

    steps, rate: the most steps, and the first rate. With `patience` above 0, a quarter of the batches (of two or more)
    is held out: every `check` steps the error is measured there, after so many measures without a new least learning
    ends, and the least is kept.
    """

    steps: int
    rate: float
    seed: int
    check: int = 10
    patience: int = 0

    def fit(self, block: nn.Module, inputs: Sequence[Call], wanted: Sequence[Tensor]) -> int:
        """Learn in place; how many steps were made."""
        parameters = [p for module in block.modules() if isinstance(module, Learned) for p in module.parameters()]
        for p in block.parameters():
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        count = len(inputs) - (max(1, len(inputs) // 4) if self.patience and len(inputs) > 1 else 0)
        held = inputs[count:], wanted[count:]
        optimizer, best, step = torch.optim.Adam(parameters, lr=self.rate), _Best(parameters), 0
        if held[0]:
            best.note(relative_error(block, *held))
        for step, index in enumerate(self._order(count), start=1):
            optimizer.param_groups[0]["lr"] = self.rate * (1 - (step - 1) / self.steps)
            args, named = inputs[index]
            loss = F.mse_loss(first(block(*args, **named)), wanted[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if held[0] and step % self.check == 0:
                best.note(relative_error(block, *held))
                if best.misses >= self.patience:
                    break
        best.restore()
        return step

    def _order(self, count: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.steps):
            yield int(torch.randint(count, (1,), generator=generator))


class _Best:
    """The parameters at the least error seen, and how many measures since then were no better."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters, self.error, self.misses = parameters, math.inf, 0
        self.values: list[Tensor] = []

    def note(self, error: float) -> None:
        self.misses += 1
        if error < self.error:
            self.error, self.misses, self.values = error, 0, [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def restore(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=False):
            p.copy_(value)


def relative_error(block: nn.Module, inputs: Sequence[Call], wanted: Sequence[Tensor]) -> float:
    """|block(x) - y|^2 / |y|^2 over the batches."""
    with torch.no_grad():
        gaps = [first(block(*args, **named)) - y for (args, named), y in zip(inputs, wanted, strict=True)]
    return float(sum((g**2).sum() for g in gaps) / sum((y**2).sum() for y in wanted))
