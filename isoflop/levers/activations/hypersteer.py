"""Steer a model towards what a prompt or a label asks for, by a network that makes the direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.activations._hidden import call, hidden_states, layer_names
from isoflop.levers.activations.steering import frozen, steering


@dataclass(frozen=True)
class Hypersteered:
    """A model with a network that makes directions (examples, width) of conditions (examples, size)."""

    model: nn.Module
    network: nn.Module
    layer: str

    def __call__(self, batch: Any, conditions: Tensor, *, scale: float | Tensor = 1.0) -> Tensor:
        """Logits of a batch, each example steered by its own condition, `scale` times as far as learned."""
        with steering(self.model, {self.layer: self.network(conditions)}, scale=scale):
            return call(self.model, batch)


def hypersteer(
    model: nn.Module, conditions: Tensor, contexts: Tensor, *, targets: Tensor, layer: str = "", hidden: int = 64,
    steps: int = 400, seed: int = 0,
) -> Hypersteered:  # fmt: skip
    """Learn a network from condition to direction: -ln P(targets | contexts, steered by the condition) is least.

    conditions: (rows, size) numbers, a concept's coordinates or a prompt's embedding (`embedding`); contexts: ids
    (rows, tokens); targets: what is wanted after the last m tokens of each context, as ids (rows, m) or as
    probabilities (rows, m, vocab). layer: whose output is steered, by default the middle one.

    A perceptron with one hidden layer, Adam at .003, 64 rows a step; the model itself stays as it is. Raises ValueError
    where the rows do not fit.

    Source: Sun et al. 2025 (HyperSteer, arXiv 2506.03292), from its abstract: a hypernetwork trained end to end. Theirs
    is a transformer that also reads the base model's activations.
    """
    if not len(conditions) == len(contexts) == len(targets) or conditions.ndim != 2:
        raise ValueError(
            f"hypersteer: conditions {tuple(conditions.shape)}, contexts {tuple(contexts.shape)} and targets "
            f"{tuple(targets.shape)} do not fit: give (rows, size), (rows, tokens) and (rows, m) or (rows, m, vocab)"
        )
    names = layer_names(model)
    layer = layer or names[(len(names) - 1) // 2]
    width = hidden_states(model, contexts[:1], layers=[layer])[layer].shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(conditions.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, width))
    network.to(conditions.device)
    made = Hypersteered(model, network, layer)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    with frozen(model):
        for _ in range(steps):
            some = torch.randint(len(contexts), (64,), generator=generator)
            logits = made(contexts[some], conditions[some])[:, -targets.shape[1] :]
            loss = F.cross_entropy(logits.flatten(0, 1), targets[some].flatten(0, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return made


def embedding(model: nn.Module, prompts: Any, *, layer: str = "") -> Tensor:
    """What the model itself makes of prompts: mean over tokens of the last layer's, or `layer`'s, output."""
    layer = layer or layer_names(model)[-1]
    return hidden_states(model, prompts, layers=[layer])[layer].mean(dim=-2)
