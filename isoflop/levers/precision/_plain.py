"""Models as the quantisers want them: copies in which every product of activations and weights is an nn.Linear."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._gpt import GPT, rotate


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (_linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = (
            p(x).view(batch, time, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = parts
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, time, width))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = _linear(width, hidden), _linear(width, hidden)
        self.down_proj = _linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.self_attn, self.mlp = _Attention(width, heads), _Mlp(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class PlainGPT(nn.Module):
    """The ladder's transformer, the same function in the module names of the Llama family: tokens -> logits."""

    cos: Tensor
    sin: Tensor

    def __init__(self, *, width: int, hidden: int, depth: int, heads: int, vocab: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(_Block(width, hidden, heads) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        self.lm_head = _linear(width, vocab)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        out: Tensor = self.lm_head(self.norm(x))
        return out


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Without a draw from torch's global generator: the weights are copied in."""
    with torch.device("meta"):
        made = nn.Linear(inputs, outputs, bias=False)
    return made.to_empty(device="cpu")


@torch.no_grad()
def from_ladder(model: GPT) -> PlainGPT:
    """The same function with linear layers; the query, key and value, and the gate and up matrices are taken apart.

    Raises ValueError where the model computes something else, as designs other than the ladder's default do.
    """
    first: Any = model.blocks[0]
    vocab, width = model.embedding.shape
    with torch.random.fork_rng(devices=[]):  # nn.Embedding draws its weights
        made = PlainGPT(
            width=width, hidden=first.down.shape[1], depth=len(model.blocks), heads=first.heads, vocab=vocab
        )
    _copy(made.embed_tokens, model.embedding)
    _copy(made.norm, model.norm)
    if model.unembedding is model.embedding:
        made.lm_head.weight = made.embed_tokens.weight
    else:
        _copy(made.lm_head, model.unembedding)
    ours: Any
    theirs: Any
    for ours, theirs in zip(made.layers, model.blocks, strict=True):
        _copy(ours.input_layernorm, theirs.norm_attention)
        _copy(ours.post_attention_layernorm, theirs.norm_mlp)
        attention, mlp = ours.self_attn, ours.mlp
        for linear, part in zip(
            (attention.q_proj, attention.k_proj, attention.v_proj), theirs.qkv.chunk(3), strict=True
        ):
            _copy(linear, part)
        for linear, part in zip((mlp.gate_proj, mlp.up_proj), theirs.gate_up.chunk(2), strict=True):
            _copy(linear, part)
        _copy(attention.o_proj, theirs.out)
        _copy(mlp.down_proj, theirs.down)
    made.register_buffer("cos", model.cos.clone(), persistent=False)
    made.register_buffer("sin", model.sin.clone(), persistent=False)
    tokens = torch.arange(min(vocab, len(model.cos)), device=model.embedding.device)[None]
    made = made.to(model.embedding.device).eval()
    gap = (made(tokens) - model(tokens)).abs().max() / model(tokens).abs().max().clamp(min=1e-30)
    if not gap < 1e-4:
        raise ValueError("only the ladder's default design can be quantised (pre-norm RMSNorm, SwiGLU, plain scales)")
    return made


def _copy(module: Any, values: Tensor) -> None:
    module.weight = nn.Parameter(values.detach().clone())


@torch.no_grad()
def plain(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose products are nn.Linear; the model itself stays as it is.

    The ladder's transformer becomes a PlainGPT, and the transposed linear layers of Hugging Face's GPT-2 nn.Linear.
    Raises ValueError for parameters in fewer than 32 bits.
    """
    if any(p.dtype not in (torch.float32, torch.float64) for p in model.parameters()):
        raise ValueError("the model has parameters of 16 bits or fewer; give it in float32, as model.float()")
    made = from_ladder(model) if isinstance(model, GPT) else copy.deepcopy(model).eval()
    for name, module in list(made.named_modules()):
        if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            put(made, name, _transposed(module))
    return made.requires_grad_(False)


def _transposed(conv: Any) -> nn.Linear:
    inputs, outputs = conv.weight.shape
    with torch.device("meta"):
        made = nn.Linear(inputs, outputs)
    made.weight, made.bias = nn.Parameter(conv.weight.T.contiguous()), nn.Parameter(conv.bias.detach().clone())
    return made


def part(model: nn.Module, name: str) -> Any:
    """A sub-module by its dotted name."""
    return model.get_submodule(name)


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set a sub-module by its dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(part(model, parent), last, module)
