"""The residual stream rotated in the weights: what reads it and what writes to it takes the rotation in, at no cost.

With the gain of each norm folded into the layers that read it, an RMS norm commutes with a rotation R of its input, so

    embedding E R,   readers W diag(gain) R,   writers R W,   output layer W diag(gain) R

compute the same function, and every reader of the stream sees rotated inputs. Inputs of attention's output layer and of
the down projection are not of the stream, and their rotations stay at run time.

Source: QuaRot, arXiv:2404.00456, section 4, stage 1 (the part of it within heads is not folded here).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._hadamard import rotate
from isoflop.levers.precision._plain import part, plain
from isoflop.levers.precision._sites import LLAMA, is_rms, outputs

LIMIT = 1e-4  # relative, in float32: beyond it the model is of another make than its names say


@torch.no_grad()
def rotate_residual(model: nn.Module, batch: Any) -> tuple[nn.Module, frozenset[str]] | None:
    """A copy (see `plain`) whose residual stream is rotated, and the names of the layers that read it; None where the
    names are not those of the Llama family with RMS norms.

    batch: an input on which the outputs are compared. A tied output layer gets a matrix of its own. Raises ValueError
    where the outputs differ.
    """
    made = plain(model)
    stream = _stream(made)
    if stream is None:
        return None
    before = outputs(made, batch)
    (embedding, head, last), blocks = stream
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.clone(), requires_grad=False)
        if (config := getattr(made, "config", None)) is not None:
            config.tie_word_embeddings = False
    embedding.weight.copy_(rotate(embedding.weight))
    _read(last, [head])
    names = []
    for block in blocks:
        for rule in (LLAMA[0], LLAMA[2]):
            _read(part(made, block + rule.producer), [part(made, block + name) for name in rule.linears])
            names += [block + name for name in rule.linears]
        for name in (LLAMA[1].linears[0], LLAMA[3].linears[0]):
            _write(part(made, block + name))
    gap = float((outputs(made, batch) - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not gap < LIMIT:
        raise ValueError(
            f"rotating the residual stream changed the outputs by {gap:.1e} of their largest; give residual=False"
        )
    return made, frozenset(names)


def _stream(made: Any) -> tuple[tuple[Any, Any, Any], list[str]] | None:
    """Embedding, output layer and last norm, and the prefixes of the blocks, where all of it is as the table says."""
    modules = dict(made.named_modules())
    norms = [name for name, module in modules.items() if is_rms(module)]
    lead = next((n.removesuffix("embed_tokens") for n in modules if n.split(".")[-1] == "embed_tokens"), None)
    head = getattr(made, "get_output_embeddings", lambda: None)()
    if lead is None or head is None or getattr(head, "bias", None) is not None or f"{lead}norm" not in norms:
        return None
    blocks = [f"{lead}layers.{i}." for i in range(len(modules.get(f"{lead}layers", ())))]
    for block in blocks:
        wanted = [block + rule.producer for rule in (LLAMA[0], LLAMA[2])]
        linears = [block + name for rule in LLAMA for name in rule.linears]
        if not set(wanted) <= set(norms) or not all(type(modules.get(n)) is nn.Linear for n in linears):
            return None
    return (modules[f"{lead}embed_tokens"], head, modules[f"{lead}norm"]), blocks


def _read(norm: Any, linears: list[Any]) -> None:
    """The gain of a norm, and then the rotation, into the layers that read it."""
    for linear in linears:
        linear.weight.copy_(rotate(linear.weight * norm.weight))
    norm.weight.fill_(1.0)


def _write(linear: Any) -> None:
    """The rotation into the outputs of a layer."""
    linear.weight.copy_(rotate(linear.weight.T).T)
    bias: Tensor | None = linear.bias
    if bias is not None:
        bias.copy_(rotate(bias))
