"""A small decoder-only transformer, and its exact parameter count without building it.

Pre-norm RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864), SwiGLU (arXiv:2002.05202), no biases.
Parameters are made from a generator of one's own: neither building nor running it touches torch's global state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._shape import Shape


def rotary_table(context: int, head_dim: int, *, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (context, head_dim / 2). Source: arXiv:2104.09864."""
    inverse = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), inverse)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + d/2]) of (batch, heads, time, d) by their position's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def _matrix(rows: int, columns: int, *, std: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns).normal_(0.0, std, generator=generator))


@dataclass(frozen=True)
class _Init:
    """Standard deviations at the start: fan-in for inputs, smaller by sqrt(2 depth) for what adds to the stream."""

    shape: Shape
    generator: torch.Generator

    def inward(self, rows: int, columns: int) -> nn.Parameter:
        return _matrix(rows, columns, std=columns**-0.5, generator=self.generator)

    def outward(self, rows: int, columns: int) -> nn.Parameter:
        return _matrix(rows, columns, std=(2 * self.shape.depth * columns) ** -0.5, generator=self.generator)

    def embedding(self, rows: int, columns: int) -> nn.Parameter:
        return _matrix(rows, columns, std=0.02, generator=self.generator)


class Block(nn.Module):
    """Attention, then SwiGLU, each added to the residual stream (batch, time, width)."""

    def __init__(self, shape: Shape, init: _Init) -> None:
        super().__init__()
        self.heads = shape.heads
        width, hidden = shape.width, shape.hidden
        self.norm_attention = nn.Parameter(torch.ones(width))
        self.qkv = init.inward(3 * width, width)
        self.out = init.outward(width, width)
        self.norm_mlp = nn.Parameter(torch.ones(width))
        self.gate_up = init.inward(2 * hidden, width)
        self.down = init.outward(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(F.rms_norm(x, x.shape[-1:], self.norm_attention), cos, sin)
        gate, up = F.linear(F.rms_norm(x, x.shape[-1:], self.norm_mlp), self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = F.linear(x, self.qkv).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).type_as(v), rotate(k, cos, sin).type_as(v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).reshape(batch, time, width), self.out)


class GPT(nn.Module):
    """Tokens (batch, time) -> logits (batch, time, vocab)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, *, context: int, seed: int) -> None:
        super().__init__()
        init = _Init(shape, torch.Generator().manual_seed(seed))
        self.embedding = init.embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape, init) for _ in range(shape.depth))
        self.norm = nn.Parameter(torch.ones(shape.width))
        self.unembedding = self.embedding if shape.tied else init.embedding(shape.vocab, shape.width)
        cos, sin = rotary_table(context, shape.width // shape.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embedding)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(F.rms_norm(x, x.shape[-1:], self.norm), self.unembedding)
