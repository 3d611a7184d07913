"""Linear layers whose weights are whole numbers times a scale, learned or from statistics, and their codes."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision.training._cast import generator_of


def through(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradient of x."""
    return x + (rounded - x).detach()


class LearnedStep(nn.Module):
    """w as s round(clip(w / s, -2^(b-1), 2^(b-1) - 1)), s learned with its gradient over sqrt(numbers 2^(b-1)).

    Source: Esser et al. 2020, learned step size quantisation (arXiv:1902.08153).
    """

    def __init__(self, like: Tensor, *, bits: int) -> None:
        super().__init__()
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.scale = nn.Parameter((2 * like.detach().abs().mean() / self.high**0.5).clamp(min=1e-8))

    def forward(self, x: Tensor) -> Tensor:
        share = (x.numel() * self.high) ** -0.5
        s = (self.scale * share + (self.scale * (1 - share)).detach()).clamp(min=1e-8)
        y = (x / s).clamp(self.low, self.high)
        return through(y, y.round()) * s

    def codes(self, x: Tensor) -> Tensor:
        """The whole numbers."""
        return (x / self.scale.clamp(min=1e-8)).clamp(self.low, self.high).round().detach()

    def margin(self, x: Tensor) -> Tensor:
        """Distance of x to the nearest place where its code changes, in steps."""
        y = (x / self.scale.clamp(min=1e-8)).detach().clamp(self.low, self.high)
        return (y - y.floor() - 0.5).abs()


class QuantisedLinear(nn.Module):
    """y = act(x) weight(W)^T + b; `weight_rounding` and `act_rounding` are modules such as LearnedStep (None: not)."""

    def __init__(self, inputs: int, outputs: int, *, seed: int, bias: bool = True) -> None:
        super().__init__()
        drawn = torch.empty(outputs, inputs).normal_(0.0, inputs**-0.5, generator=generator_of(seed))
        self.weight, self.bias = nn.Parameter(drawn), nn.Parameter(torch.zeros(outputs)) if bias else None
        self.weight_rounding: nn.Module | None = None
        self.act_rounding: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_rounding(x) if self.act_rounding is not None else x
        w = self.weight_rounding(self.weight) if self.weight_rounding is not None else self.weight
        return F.linear(x, w, self.bias)


class QueryKey(nn.Module):
    """One matrix a head, M = Wq^T Wk, rounded as a whole: q . k = x M x'. `weight` has the heads' rows one after the
    other, (heads width, width); it is not a parameter, its factors are.
    """

    def __init__(self, query: QuantisedLinear, key: QuantisedLinear, *, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.heads = query, key, heads
        self.weight_rounding: nn.Module | None = None

    @property
    def weight(self) -> Tensor:
        q, k = (layer.weight.view(self.heads, -1, layer.weight.shape[1]) for layer in (self.query, self.key))
        made: Tensor = (q.transpose(1, 2) @ k).flatten(0, 1)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Products of queries and keys, (batch, heads, time, time)."""
        m = self.weight_rounding(self.weight) if self.weight_rounding is not None else self.weight
        made: Tensor = x[:, None] @ m.view(self.heads, -1, x.shape[-1]) @ x[:, None].transpose(-1, -2)
        return made


class Block(nn.Module):
    """Attention without positions and a ReLU layer, each after a norm and beside the stream; `product` None: queries
    and keys as two factors.
    """

    def __init__(self, width: int, heads: int, *, seed: int) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key = (QuantisedLinear(width, width, seed=seed + i, bias=False) for i in range(2))
        self.value, self.out = (QuantisedLinear(width, width, seed=seed + 2 + i) for i in range(2))
        self.up = QuantisedLinear(width, 2 * width, seed=seed + 4)
        self.down = QuantisedLinear(2 * width, width, seed=seed + 5)
        self.product: QueryKey | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](x)
        if self.product is not None:
            scores = self.product(h)
        else:
            scores = self._heads(self.query(h)) @ self._heads(self.key(h)).transpose(-1, -2)
        weights = F.softmax(scores * (x.shape[-1] // self.heads) ** -0.5, dim=-1)
        x = x + self.out((weights @ self._heads(self.value(h))).transpose(1, 2).reshape(x.shape))
        made: Tensor = x + self.down(F.relu(self.up(self.norms[1](x))))
        return made

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Vision(nn.Module):
    """A small vision transformer: inputs (n, patches, pixels) -> mean over patches -> logits. The first and last layers
    are not rounded.
    """

    def __init__(
        self, *, patches: int, pixels: int, classes: int, width: int = 32, depth: int = 2, heads: int = 2, seed: int
    ) -> None:
        super().__init__()
        drawn = torch.empty(patches, width).normal_(0.0, 0.1, generator=generator_of(1000 * seed))
        self.first, self.places = QuantisedLinear(pixels, width, seed=1000 * seed + 1), nn.Parameter(drawn)
        self.blocks = nn.ModuleList(Block(width, heads, seed=1000 * seed + 10 * (i + 1)) for i in range(depth))
        self.last = QuantisedLinear(width, classes, seed=1000 * seed + 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.places
        for block in self.blocks:
            x = block(x)
        made: Tensor = self.last(x.mean(dim=1))
        return made


def classifier(sizes: tuple[int, ...], *, seed: int) -> nn.Sequential:
    """Layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [QuantisedLinear(inputs, outputs, seed=1000 * seed + index), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def quantised(model: nn.Module) -> list[QuantisedLinear]:
    """Its layers whose weights are rounded."""
    return [m for m in model.modules() if isinstance(m, QuantisedLinear) and m.weight_rounding is not None]


def products(model: nn.Module) -> list[QueryKey]:
    """Its rounded products of queries and keys."""
    return [m for m in model.modules() if isinstance(m, QueryKey) and m.weight_rounding is not None]
