"""Which linear layers read the same input, and what produces it: where a scale per channel can be folded away.

x / s before the layers of a site costs nothing at run time if what makes x is divided instead: the gain of a norm, or
the rows of the linear layer before, where only products with x lie between. The tables hold the names of families whose
blocks were read; elsewhere a site has no producer, and its scale is an explicit product at run time. Tables are not
believed: `fold_checked` compares the outputs before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._plain import part


@dataclass(frozen=True)
class Site:
    """Linear layers with one input. producer: module that can take 1/s; rows: which of its outputs the input is."""

    name: str
    linears: tuple[str, ...]
    producer: str | None = None
    rows: tuple[int, int] | None = None
    gated: bool = False  # the input is a product of two branches, as before the down-projection of a SwiGLU


@dataclass(frozen=True)
class _Rule:
    producer: str
    linears: tuple[str, ...]
    gated: bool = False
    third: bool = False  # the last third of the producer's outputs


LLAMA = (  # Llama, Mistral, Qwen2, Qwen3, and the ladder's own
    _Rule("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    _Rule("self_attn.v_proj", ("self_attn.o_proj",)),
    _Rule("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    _Rule("mlp.up_proj", ("mlp.down_proj",), gated=True),
)
_GPT2 = (
    _Rule("ln_1", ("attn.c_attn",)),
    _Rule("attn.c_attn", ("attn.c_proj",), third=True),
    _Rule("ln_2", ("mlp.c_fc",)),
)
_NEOX = (
    _Rule("input_layernorm", ("attention.query_key_value",)),
    _Rule("post_attention_layernorm", ("mlp.dense_h_to_4h",)),
)
_RULES = (*LLAMA, *_GPT2, *_NEOX)

# Norms that multiply by their weight as it is; Gemma's multiply by 1 + weight, and are not folded into.
_RMS = ("RMSNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
_PASSING = (nn.ReLU, nn.Dropout, nn.Identity, nn.LeakyReLU)  # f(x / s) = f(x) / s for s > 0


def is_rms(module: nn.Module) -> bool:
    """Whether it divides by the root mean square and multiplies by its weight, and does nothing else."""
    return type(module).__name__ in _RMS


def linear_names(model: nn.Module, skip: Sequence[str] = ()) -> list[str]:
    """Names of the nn.Linear layers, without a language model's output layer and those that `skip` names."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and not any(part in name for part in skip)
    ]


def find_sites(model: nn.Module, *, skip: Sequence[str] = (), fold: bool = True) -> list[Site]:
    """All sites of a plain model, each linear layer in one, in the order of the modules."""
    names = linear_names(model, skip)
    found = [*_by_table(model, set(names)), *_by_sequence(model, set(names))]
    taken = {name for site in found for name in site.linears}
    found += [Site(name, (name,)) for name in names if name not in taken]
    if not fold:
        found = [Site(s.name, s.linears, gated=s.gated) for s in found]
    return sorted(found, key=lambda s: names.index(s.linears[0]))


def _by_table(model: nn.Module, names: set[str]) -> Iterable[Site]:
    modules = dict(model.named_modules())
    for prefix in modules:
        for rule in _RULES:
            lead = f"{prefix}." if prefix else ""
            linears = tuple(lead + part for part in rule.linears)
            if lead + rule.producer in modules and names.issuperset(linears):
                yield _site(modules, lead + rule.producer, linears, rule)


def _site(modules: dict[str, Any], producer: str, linears: tuple[str, ...], rule: _Rule) -> Site:
    """The site of a rule; without its producer where that cannot take a scale (grouped heads, another norm)."""
    made, length = modules[producer], modules[linears[0]].in_features
    name = linears[0] if len(linears) == 1 else f"{linears[0]} and {len(linears) - 1} more"
    if isinstance(made, nn.Linear):
        start = 2 * made.out_features // 3 if rule.third else 0
        if made.out_features - start == length:
            return Site(name, linears, producer, (start, made.out_features), rule.gated)
    elif (is_rms(made) or type(made).__name__ == "LayerNorm") and getattr(made, "weight", None) is not None:
        return Site(name, linears, producer)
    return Site(name, linears, gated=rule.gated)


def _by_sequence(model: nn.Module, names: set[str]) -> Iterable[Site]:
    """nn.Sequential(..., Linear or LayerNorm, ReLU, Linear, ...): the first can take the scale of the last."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            last: tuple[str, nn.Module] | None = None
            for part, child in module.named_children():
                name = f"{prefix}.{part}" if prefix else part
                if isinstance(child, nn.Linear) and name in names and last is not None:
                    yield _after(name, *last)
                if isinstance(child, nn.Linear | nn.LayerNorm):
                    last = (name, child)
                elif not isinstance(child, _PASSING):
                    last = None


def _after(name: str, producer: str, made: Any) -> Site:
    if isinstance(made, nn.LayerNorm):
        return Site(name, (name,), producer if made.elementwise_affine else None)
    return Site(name, (name,), producer, (0, made.out_features))


@torch.no_grad()
def fold(model: nn.Module, site: Site, *, scale: Tensor, shift: Tensor | None = None) -> bool:
    """Make the site's input (x - shift) / scale by changing its producer; whether that could be done.

    A shift needs a producer with a bias. The readers of the input are not changed here.
    """
    if site.producer is None:
        return False
    made = part(model, site.producer)
    bias = getattr(made, "bias", None)
    if shift is not None and bias is None:
        return False
    rows = slice(*site.rows) if site.rows else slice(None)
    made.weight[rows] = made.weight[rows] / (scale[:, None] if made.weight.ndim == 2 else scale)
    if bias is not None:
        bias[rows] = (bias[rows] - (shift if shift is not None else 0.0)) / scale
    return True


@torch.no_grad()
def take_in(model: nn.Module, site: Site, *, scale: Tensor, shift: Tensor | None = None) -> None:
    """Change the readers of a site whose input is (x - shift) / scale so that their outputs stay what they were."""
    for name in site.linears:
        linear = part(model, name)
        if shift is not None:
            moved = linear.weight @ shift
            linear.bias = nn.Parameter(moved if linear.bias is None else linear.bias + moved, requires_grad=False)
        linear.weight.mul_(scale)


def outputs(model: nn.Module, batch: Any) -> Tensor:
    """Logits of a batch: a tensor, a tuple of arguments or a dict of them."""
    args, named = ((), batch) if isinstance(batch, dict) else (batch if isinstance(batch, tuple) else (batch,), {})
    made = model(*args, **named)
    made = getattr(made, "logits", made)
    return made[0] if isinstance(made, tuple) else made
