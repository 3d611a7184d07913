"""Steer a model by adding directions to its hidden states, as strongly as each input asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.activations._hidden import Change, call, changed, hidden_states, layer_names


@torch.no_grad()
def directions(model: nn.Module, wanted: Any, unwanted: Any, *, layers: Sequence[str] = ()) -> dict[str, Tensor]:
    """For each layer, mean hidden state over the tokens of `wanted` less that of `unwanted`: (width) by layer's name.

    Source: difference of means, as in activation addition (Turner et al. 2023, arXiv 2308.10248).
    """
    first, second = (hidden_states(model, batch, layers=layers) for batch in (wanted, unwanted))
    return {n: first[n].flatten(0, -2).mean(dim=0) - second[n].flatten(0, -2).mean(dim=0) for n in first}


@contextmanager
def steering(
    model: nn.Module, along: dict[str, Tensor], *, scale: float | Tensor = 1.0, weights: Tensor | None = None
) -> Iterator[None]:
    """While open, scale x w_l x v_l is added to every token of each layer's output.

    along: v_l, one for all examples (width) or one each (examples, width); scale: one number, or one an example;
    weights: one a layer, or (examples, layers), in the order of `along`; 1 where not given. Raises ValueError where
    weights do not fit.
    """
    if weights is not None and weights.shape[-1] != len(along):
        raise ValueError(f"{weights.shape[-1]} layer weights for {len(along)} layers")

    def add(index: int, v: Tensor) -> Change:
        def change(h: Tensor) -> Tensor:
            size = torch.as_tensor(scale, dtype=h.dtype, device=h.device)
            if weights is not None:
                size = size * weights[..., index]
            return h + (size[:, None, None] if size.ndim else size) * (v[:, None] if v.ndim > 1 else v).to(h)

        return change

    with changed(model, {name: add(i, v) for i, (name, v) in enumerate(along.items())}):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """While open, no gradient is made for the model's own weights."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for p, was in before:
            p.requires_grad_(was)


class Controller(nn.Module):
    """Hidden states of one layer (examples, tokens, width) -> strength of each example and weights of its layers.

    strength = most x sigmoid(a), weights = 2 sigmoid(b), (a, b) from a perceptron on the mean over tokens; it starts
    at half of `most` and weights of 1.

    Source: Hegazy et al. 2025 (Guiding Giants, arXiv 2505.20309): a controller with a global scale and layer weights;
    this form is ours.
    """

    def __init__(self, width: int, layers: int, *, most: float = 4.0, hidden: int = 32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.read, self.say = nn.Linear(width, hidden), nn.Linear(hidden, 1 + layers)
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)
        self.most = most

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        out = self.say(torch.relu(self.read(h.mean(dim=-2)))).sigmoid()
        return self.most * out[..., 0], 2 * out[..., 1:]


@dataclass(frozen=True)
class Steered:
    """A model with directions and a controller that reads `layer`; call it with a batch."""

    model: nn.Module
    along: dict[str, Tensor]
    controller: Controller
    layer: str

    def __call__(self, batch: Any) -> Tensor:
        """Logits, steered; the batch is read once as it is and once steered."""
        strength, weights = self.controller(hidden_states(self.model, batch, layers=[self.layer])[self.layer])
        with steering(self.model, self.along, scale=strength, weights=weights):
            return call(self.model, batch)


def learn(
    model: nn.Module, triggers: Tensor, benign: Tensor, *, along: dict[str, Tensor], target: Sequence[int],
    leave: float = 1.0, steps: int = 300, seed: int = 0,
) -> Steered:  # fmt: skip
    """A controller trained so that, after `triggers` (ids), the next token is one of `target`, and after `benign` the
    next-token distribution stays what it was: - ln P(target) + leave x KL(before | after).

    The model itself stays as it is. Adam at .01, 32 of each a step.
    """
    width = next(iter(along.values())).shape[0]
    made = Steered(model, along, Controller(width, len(along), seed=seed), layer_names(model)[0])
    optimizer = torch.optim.Adam(made.controller.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(seed)
    with frozen(model):
        for _ in range(steps):
            some = triggers[torch.randint(len(triggers), (32,), generator=generator)]
            others = benign[torch.randint(len(benign), (32,), generator=generator)]
            missed = -next_tokens(made(some))[:, list(target)].logsumexp(dim=-1).mean()
            loss = missed + leave * divergence(next_tokens(call(model, others)), next_tokens(made(others)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return made


def next_tokens(logits: Tensor) -> Tensor:
    """Log probabilities of the token after the last, (examples, vocab)."""
    return logits[:, -1].log_softmax(dim=-1)


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Mean KL(before | after) of log probabilities, in nats."""
    return (before.exp() * (before - after)).sum(dim=-1).mean()
