"""Hidden states of a model's layers: where they are, what they hold, and changing them on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def layer_names(model: nn.Module) -> list[str]:
    """Dotted names of the layers: the members of the longest ModuleList, or of the longest nn.Sequential.

    Raises ValueError for a model with neither.
    """
    for kind in (nn.ModuleList, nn.Sequential):
        lists = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
        if lists:
            name, longest = max(lists, key=lambda pair: len(pair[1]))
            return [f"{name}.{child}" if name else child for child, _ in longest.named_children()]
    raise ValueError(f"{type(model).__name__} has no list of layers; name the layers")


def norm_names(model: nn.Module) -> list[str]:
    """Dotted names of the norms inside the layers, whose outputs are what the layers' products read."""
    inside = tuple(f"{name}." for name in layer_names(model))
    return [n for n, m in model.named_modules() if n.startswith(inside) and type(m).__name__.endswith("Norm")]


def call(model: nn.Module, batch: Any) -> Tensor:
    """Outputs for a batch, a dict being keyword arguments: the logits of a Hugging Face output, else the tensor."""
    out = model(**batch) if isinstance(batch, Mapping) else model(batch)
    return out if isinstance(out, Tensor) else out.logits if hasattr(out, "logits") else out[0]


@contextmanager
def changed(model: nn.Module, changes: dict[str, Change]) -> Iterator[None]:
    """While open, the output of each named layer is what its change makes of it (hidden state in, hidden state out).

    Hooks are taken off again however the block ends.
    """

    def hook(change: Change) -> Callable[..., Any]:
        def run(module: nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return change(output)
            return (change(output[0]), *output[1:])

        return run

    handles = [model.get_submodule(name).register_forward_hook(hook(c)) for name, c in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def hidden_states(model: nn.Module, batch: Any, *, layers: Sequence[str] = ()) -> dict[str, Tensor]:
    """The output of each layer for a batch, by the layer's name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Change:
        def run(h: Tensor) -> Tensor:
            found[name] = h.detach().clone()
            return h

        return run

    with changed(model, {name: keep(name) for name in layers or layer_names(model)}):
        call(model, batch)
    return found
