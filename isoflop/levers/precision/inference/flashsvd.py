"""Low-rank layers in streamed tiles: the same outputs, without the buffers between, and an account of the peak.

A linear layer cut to rank r is y = (x U) V + b. Run plainly, a block still holds all of its queries, keys and values
(tokens x width each) and the feed-forward's hidden values (tokens x hidden, several times). Streamed, attention keeps
the tokens x rank products alone and makes keys and values one head at a time, queries and scores a tile at a time with
the running softmax; the feed-forward makes `tile` hidden values of `tile` tokens, and adds them to the rank of its last
layer.

    plain = low_rank(model, rank=32)             # truncated SVD of every linear layer
    small = flashsvd(model, rank=32, tile=64)    # the same function as plain
    peak_bytes(lambda: small(tokens))

For the ladder's transformer and Hugging Face's BERT. No speed is claimed: a loop in Python over tiles is no kernel.

Source: Shao et al. 2025 (arXiv:2508.01506), whose kernels keep the tiles in a GPU's fast memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._plain import _Attention, _Mlp, part, plain, put
from isoflop.levers.precision._sites import linear_names
from isoflop.levers.train._gpt import rotate


class LowRank(nn.Module):
    """y = (x down^T) up^T + bias, from the truncated singular value decomposition of a linear layer."""

    def __init__(self, linear: nn.Linear, *, rank: int) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
        root = s[:rank].sqrt()
        self.down = nn.Parameter((root[:, None] * v[:rank]).to(linear.weight), requires_grad=False)
        self.up = nn.Parameter((u[:, :rank] * root).to(linear.weight), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(F.linear(x, self.down))

    def expand(self, low: Tensor, rows: slice = slice(None)) -> Tensor:
        """The outputs `rows` of x down^T."""
        return F.linear(low, self.up[rows], None if self.bias is None else self.bias[rows])


@torch.no_grad()
def low_rank(model: nn.Module, *, rank: int) -> nn.Module:
    """A copy (see `plain`) with every linear layer but the output layer cut to a rank, those of smaller rank whole.

    Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; give 1 or more")
    made = plain(model)
    for name in linear_names(made):
        put(made, name, LowRank(part(made, name), rank=rank))
    return made


class _StreamedAttention(nn.Module):
    """q, k, v: low-rank layers; returns the heads' outputs side by side."""

    def __init__(self, q: LowRank, k: LowRank, v: LowRank, *, heads: int, causal: bool, tile: int) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v
        self.heads, self.causal, self.tile = heads, causal, tile

    def forward(self, x: Tensor, *, turn: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        """turn: cosines and sines of rotary positions, (time, half a head). mask: added to the scores."""
        out = x.new_empty(*x.shape[:-1], self.q.up.shape[0])
        low = [F.linear(x, layer.down) for layer in (self.q, self.k, self.v)]
        size = out.shape[-1] // self.heads
        for head in range(self.heads):
            rows = slice(head * size, (head + 1) * size)
            key, value = self.k.expand(low[1], rows), self.v.expand(low[2], rows)
            if turn is not None:
                key = rotate(key, *turn)
            for begin in range(0, x.shape[1], self.tile):
                here = slice(begin, begin + self.tile)
                query = self.q.expand(low[0][:, here], rows)
                if turn is not None:
                    query = rotate(query, turn[0][here], turn[1][here])
                out[:, here, rows] = self._tiles(query * size**-0.5, key, value, begin, _of_head(mask, head, here))
        return out

    def _tiles(self, query: Tensor, key: Tensor, value: Tensor, begin: int, mask: Tensor | None) -> Tensor:
        """Softmax attention of one tile of queries over tiles of keys: running maximum, sum and weighted values."""
        highest = query.new_full((*query.shape[:2], 1), -torch.inf)
        total, summed = torch.zeros_like(highest), torch.zeros_like(query)
        end = begin + query.shape[1] if self.causal else key.shape[1]
        for start in range(0, end, self.tile):
            there = slice(start, min(start + self.tile, end))
            scores = query @ key[:, there].transpose(1, 2)
            if mask is not None:
                scores += mask[..., there]
            if self.causal and there.stop > begin:
                late = torch.arange(start, there.stop) > torch.arange(begin, begin + query.shape[1])[:, None]
                scores.masked_fill_(late.to(scores.device), -torch.inf)
            most = torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
            shrink, weights = (highest - most).exp(), scores.sub_(most).exp_()
            total = total * shrink + weights.sum(dim=-1, keepdim=True)
            summed = summed.mul_(shrink).baddbmm_(weights, value[:, there])
            highest = most
        return summed / total


def _of_head(mask: Tensor | None, head: int, here: slice) -> Tensor | None:
    """The mask's rows for a tile of queries of one head; axes of length 1 hold for all. True or 0 lets through."""
    if mask is None:
        return None
    mask = mask[:, head if mask.shape[1] > 1 else 0]
    mask = mask[:, here] if mask.shape[1] > 1 else mask
    return mask if mask.dtype != torch.bool else torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)


class _StreamedMlp(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x), by tiles of hidden values."""

    def __init__(self, up: LowRank, down: LowRank, *, act: Callable[[Tensor], Tensor], gate: Any, tile: int) -> None:
        super().__init__()
        self.up, self.down, self.gate, self.act, self.tile = up, down, gate, act, tile

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.up.down)
        low_gate = None if self.gate is None else F.linear(x, self.gate.down)
        total = x.new_zeros(*x.shape[:-1], self.down.down.shape[0])
        for start in range(0, self.up.up.shape[0], self.tile):
            rows = slice(start, start + self.tile)
            hidden = self.up.expand(low, rows)
            hidden = self.act(hidden) if low_gate is None else self.act(self.gate.expand(low_gate, rows)).mul_(hidden)
            total += F.linear(hidden, self.down.down[:, rows])
        return self.down.expand(total)


class _ByTokens(nn.Module):
    """A module that treats each token alone, called on `tile` tokens at a time."""

    def __init__(self, inner: nn.Module, tile: int) -> None:
        super().__init__()
        self.inner, self.tile = inner, tile

    def forward(self, *inputs: Tensor) -> Tensor:
        out = torch.empty_like(inputs[-1])
        for begin in range(0, out.shape[1], self.tile):
            here = slice(begin, begin + self.tile)
            out[:, here] = self.inner(*(x[:, here] for x in inputs))
        return out


class _Ladder(nn.Module):
    """In place of a ladder block's attention."""

    def __init__(self, old: _Attention, tile: int) -> None:
        super().__init__()
        self.inner = _StreamedAttention(
            old.q_proj, old.k_proj, old.v_proj, heads=old.heads, causal=True, tile=tile  # type: ignore[arg-type]
        )  # fmt: skip
        self.o_proj = old.o_proj

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        out: Tensor = self.o_proj(self.inner(x, turn=(cos, sin)))
        return out


class _Bert(nn.Module):
    """In place of BertSelfAttention."""

    def __init__(self, old: Any, tile: int) -> None:
        super().__init__()
        heads = old.num_attention_heads
        self.inner = _StreamedAttention(old.query, old.key, old.value, heads=heads, causal=False, tile=tile)

    def forward(self, x: Tensor, *_: Any, attention_mask: Tensor | None = None, **__: Any) -> tuple[Tensor, None]:
        return self.inner(x, mask=attention_mask), None


class _Residual(nn.Module):
    """In place of BertOutput, whose hidden values are made here: the first argument is not used."""

    def __init__(self, mlp: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.mlp, self.norm = mlp, norm

    def forward(self, _: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.mlp(x) + x)
        return out


def flashsvd(model: nn.Module, *, rank: int, tile: int = 64) -> nn.Module:
    """A copy of the model cut to a rank, which runs in tiles: `streamed(low_rank(model))`."""
    return streamed(low_rank(model, rank=rank), tile=tile)


@torch.no_grad()
def streamed(model: nn.Module, *, tile: int = 64) -> nn.Module:
    """A copy of a `low_rank` model whose attention and feed-forward run in tiles; for inference.

    Raises ValueError where there is no block that is known here.
    """
    made, found = copy.deepcopy(model).eval(), 0
    for name, module in list(made.named_modules()):
        old: Any = module
        if isinstance(module, _Attention):
            put(made, name, _Ladder(old, tile))
        elif isinstance(module, _Mlp):
            mlp = _StreamedMlp(old.up_proj, old.down_proj, act=F.silu, gate=old.gate_proj, tile=tile)
            put(made, name, _ByTokens(mlp, tile))
        elif type(module).__name__ == "BertSelfAttention":
            put(made, name, _Bert(old, tile))
        elif type(module).__name__ == "BertLayer":
            act = old.intermediate.intermediate_act_fn
            mlp = _StreamedMlp(old.intermediate.dense, old.output.dense, act=act, gate=None, tile=tile)
            old.attention.output = _ByTokens(old.attention.output, tile)
            old.intermediate = nn.Identity()
            old.output = _ByTokens(_Residual(mlp, old.output.LayerNorm), tile)
        else:
            continue
        found += 1
    if not found:
        raise ValueError(f"{type(model).__name__} has no block that is streamed here (the ladder's, Hugging Face BERT)")
    return made


def peak_bytes(work: Callable[[], Any]) -> int:
    """Most bytes that `work` holds at once beyond what was there before, as the CPU allocator counts them."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def account(
    *, width: int, hidden: int, heads: int, length: int, rank: int, tile: int, gated: bool = False
) -> dict[str, float]:
    """Bytes in float32 for each sequence that attention, feed-forward and the whole block hold at their worst beside
    their input, their output included: `attention`, `mlp`, `block`, and each `..._streamed`. gated: the ladder's block
    (SwiGLU, rotary positions, norms before); else BERT's (norms after).

    Plain: queries, keys, values and the heads' outputs (with two and a half copies for rotary positions); two or three
    times the hidden values. Streamed: the output; three products of the rank, one head's keys and values, and tiles.
    """
    size, m, t, whole = width // heads, min(tile, length), min(tile, hidden), length * width
    attention, mlp = (4.0 + 2.5 * gated) * whole, length * (2.0 + gated) * hidden
    tiled = whole + length * (3.0 * rank + (2 + 2 * gated) * size) + m * (3.0 * size + 2 * m)
    tiled_mlp = whole + m * (2.0 + gated) * (rank + t)
    parts = {"attention": attention, "mlp": mlp, "attention_streamed": tiled, "mlp_streamed": tiled_mlp}
    if gated:
        blocks = max(attention + whole, mlp + 2 * whole), max(tiled + whole, tiled_mlp + 2 * whole)
    else:
        blocks = max(attention, mlp + whole), max(tiled, 2.0 * whole + 3 * m * width, tiled_mlp + whole)
    parts |= {"block": blocks[0], "block_streamed": blocks[1]}
    return {name: 4.0 * numbers for name, numbers in parts.items()}
