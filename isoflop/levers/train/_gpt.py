"""A small decoder-only transformer, and its exact parameter count without building it.

Pre-norm RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864), SwiGLU (arXiv:2002.05202), no biases.
That, and everything of size by width, is what `Design()` holds; other designs are options of the same model.
Parameters are made from a generator of one's own: neither building nor running it touches torch's global state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._activations import activation, root_second_moment
from isoflop.levers.train._design import Design
from isoflop.levers.train._rules import Place, Rule
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._units import Weight, attention_size, logits_scale, matrix, residual_weights, scaled

MATRICES = ("qkv", "out", "gate_up", "down")


def rotary_table(context: int, head_dim: int, *, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (context, head_dim / 2). Source: arXiv:2104.09864."""
    inverse = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), inverse)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + d/2]) of (batch, heads, time, d) by their position's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class _Makers:
    """Makes each tensor by its role under the design's parametrisation, with the rule of its use."""

    def __init__(self, shape: Shape, *, context: int, seed: int) -> None:
        self.shape, self.context, self.generator = shape, context, torch.Generator().manual_seed(seed)
        self.design = shape.design or Design()

    def rule(self, role: str, rows: int, columns: int) -> Rule:
        shape, base_width = self.shape, self.design.base_width
        return self.design.rule(Place(role, columns, rows, width=shape.width, base_width=base_width, depth=shape.depth))

    def matrix(self, role: str, rows: int, columns: int) -> tuple[nn.Parameter, Weight]:
        """A matrix of so many rows and columns, and how it is used."""
        fans = (columns, rows) if role == "embedding" else (rows, columns)  # a table maps its rows to its columns
        rule = self.rule(role, *fans)
        std = self.rule("hidden", *fans).std if role == "branch" and self.design.depth_scale else rule.std
        parameter = matrix(rows, columns, std=std, generator=self.generator)
        return parameter, Weight(rule, free=role == "readout")


def _normed(x: Tensor, gain: Tensor, *, unit: bool) -> Tensor:
    """RMSNorm; with one gain, ScaleNorm: g sqrt(width) x / |x| (arXiv:1910.05895, where g starts at sqrt(width))."""
    if unit:
        gain = scaled(gain, backward=(x.numel() / x.shape[-1]) ** -0.5)
    return F.rms_norm(x, x.shape[-1:], gain) if len(gain) == x.shape[-1] else F.rms_norm(x, x.shape[-1:]) * gain


class Block(nn.Module):
    """Attention, then a gated MLP, each added to the residual stream (batch, time, width)."""

    def __init__(self, shape: Shape, make: _Makers, *, index: int) -> None:
        super().__init__()
        self.design, self.heads, self.index, self.depth = make.design, shape.heads, index, shape.depth
        width, hidden = shape.width, shape.hidden
        self.norm_attention = nn.Parameter(torch.ones(shape.gains))
        self.qkv, self.use_qkv = make.matrix("hidden", 3 * width, width)
        self.out, self.use_out = make.matrix("branch", width, width)
        self.norm_mlp = nn.Parameter(torch.ones(shape.gains))
        self.gate_up, self.use_gate_up = make.matrix("hidden", 2 * hidden, width)
        self.down, self.use_down = make.matrix("branch", width, hidden)
        self.activation = activation(self.design.activation)
        self.unit = self.use_qkv.rule.unit
        self.gate_size = root_second_moment(self.activation) if self.unit else 1.0
        head = width // shape.heads
        self.score_scale = make.rule("scores", head, head).multiplier
        self.values_size = attention_size(make.context, flat=self.score_scale == 1 / head) if self.unit else 1.0
        branch = self.design.residual_scale * ((2 * shape.depth) ** -0.5 if self.design.depth_scale else 1.0)
        self.branch_scale = branch

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.add(x, lambda y: self.attention(y, cos, sin), self.norm_attention, index=2 * self.index)
        return self.add(x, self.mlp, self.norm_mlp, index=2 * self.index + 1)

    def add(self, x: Tensor, branch: Callable[[Tensor], Tensor], gain: Tensor, *, index: int) -> Tensor:
        """The stream and one branch of it, which reads the normed stream ("pre"); or the normed sum ("post")."""
        stream, post = x, self.design.norm_place == "post"
        if self.unit:
            keep, give = residual_weights(index, self.depth)
            stream, x = scaled(scaled(x, backward=keep), forward=keep), scaled(x, backward=give)
        y = branch(x if post else _normed(x, gain, unit=self.unit))
        if self.unit:
            y = scaled(y, forward=give)
        y = stream + (y if self.branch_scale == 1.0 else y * self.branch_scale)
        return _normed(y, gain, unit=self.unit) if post else y

    def mlp(self, x: Tensor) -> Tensor:
        gate, up = self.use_gate_up.linear(x, self.gate_up).chunk(2, dim=-1)
        y = self.activation(gate) * up
        return self.use_down.linear(y / self.gate_size if self.unit else y, self.down)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.use_qkv.linear(x, self.qkv).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.design.attention == "triadic":
            q, k, v = triadic(q, k, v)
        if self.design.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        q, k = rotate(q, cos, sin).type_as(v), rotate(k, cos, sin).type_as(v)
        if self.design.attention.startswith("relu"):
            y = relu_attention(q, k, v, scale=self.score_scale, divide=self.design.attention == "relu")
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.score_scale)
        y = y / self.values_size if self.unit else y
        return self.use_out.linear(y.transpose(1, 2).reshape(batch, time, width), self.out)


def relu_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float, divide: bool = True) -> Tensor:
    """Causal relu(scale q k^T) v, divided (or not) by the number of keys that each position sees, 1 to time.

    Source: Wortsman et al. 2023 (arXiv:2309.08586), where all L positions are seen and the division is by L.
    """
    scores = torch.relu(q @ k.transpose(-2, -1) * scale).tril()
    seen = torch.arange(1, q.shape[-2] + 1, device=q.device, dtype=q.dtype)
    return (scores / seen[:, None] if divide else scores) @ v


def triadic(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q + q k, k + k q and v^2 + 2 v + q k (1 + |v|), number by number within each position: no position sees another.

    Source: Adeel 2025 (arXiv:2505.06257), whose text was not read: the form is that of its author's released code
    (ARIA-Funded-TREND/IHMS, for arXiv:2603.13453), where q, k, v are projections of the input; without its choice of
    the largest values.
    """
    both = q * k
    return q + both, k + both, v * v + 2 * v + both * (1 + v.abs())


class GPT(nn.Module):
    """Tokens (batch, time) -> logits (batch, time, vocab)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, *, context: int, seed: int) -> None:
        super().__init__()
        make = _Makers(shape, context=context, seed=seed)
        self.design = make.design
        self.embedding, self.use_embedding = make.matrix("embedding", shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape, make, index=i) for i in range(shape.depth))
        self.norm = nn.Parameter(torch.ones(shape.gains))
        self.unembedding, self.use_unembedding = self.embedding, Weight(make.rule("readout", shape.vocab, shape.width))
        if not shape.tied:
            self.unembedding, self.use_unembedding = make.matrix("readout", shape.vocab, shape.width)
        self.gain_rule = make.rule("gain", shape.gains, 1)
        cos, sin = rotary_table(context, shape.width // shape.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.use_embedding.look_up(tokens, self.table(self.embedding))
        x = x * x.shape[-1] ** 0.5 if self.design.fix_norm else x
        x = self.stream(x, self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]])
        unit = self.use_embedding.rule.unit
        x = self.use_unembedding.linear(_normed(x, self.norm, unit=unit), self.table(self.unembedding))
        return logits_scale(x) if unit else x

    def stream(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Through the blocks; with long skips, what left block i enters block depth - 1 - i again, times kappa^i."""
        kappa, depth = self.design.long_skip, len(self.blocks)
        left: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            mirror = depth - 1 - i
            x = block(x + kappa**mirror * left[mirror] if kappa and mirror < i else x, cos, sin)
            left.append(x)
        return x

    def table(self, weight: Tensor) -> Tensor:
        """The table, or its rows at length 1; they enter the stream at sqrt(width) (FixNorm, arXiv:1910.05895)."""
        return F.normalize(weight, dim=-1) if self.design.fix_norm else weight

    def groups(self, *, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: matrices, then gains; "factor" on the rate, and the weight decay, by their rules.

        Parameters of one rule are one group. Weight decay is on matrices only.
        """
        uses = {id(self.embedding): self.use_embedding.rule, id(self.unembedding): self.use_unembedding.rule}
        uses |= {id(getattr(b, n)): getattr(b, f"use_{n}").rule for b in self.blocks for n in MATRICES}
        uses[id(self.embedding)] = self.use_embedding.rule  # a tied table learns as the embedding does
        made: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
        for parameter in self.parameters():
            rule = uses.get(id(parameter), self.gain_rule)
            made.setdefault((id(parameter) not in uses, rule.lr, rule.decay), []).append(parameter)
        return [
            {"params": made[key], "weight_decay": weight_decay * key[2], "factor": key[1]}
            for key in sorted(made, key=lambda k: k[0])
        ]
