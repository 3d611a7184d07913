"""A multilayer perceptron on 8 x 8 images of digits: the cheapest model on which widths and rates can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop._lever import RunFailed
from isoflop.levers.train._activations import Activation, activation, root_second_moment
from isoflop.levers.train._design import Design
from isoflop.levers.train._rules import Place
from isoflop.levers.train._units import Weight, logits_scale, matrix

CLASSES, PIXELS, HELD_OUT = 10, 64, 360


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 64), each pixel of mean 0 and images of RMS 1 over all, and labels; in scikit-learn's order."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ImportError("the digits are in scikit-learn: pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    images = images - images.mean(axis=0)
    return torch.from_numpy(images / images.std()).float(), torch.from_numpy(labels).long()


class _Activation(nn.Module):
    """f(x) / size: a module, so that what leaves it can be watched."""

    def __init__(self, f: Activation, size: float) -> None:
        super().__init__()
        self.f, self.size = f, size

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x) / self.size


class MLP(nn.Module):
    """Pixels (batch, 64) -> logits (batch, 10): an input layer, depth hidden ones of one width, a readout."""

    def __init__(self, design: Design, *, width: int, depth: int, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        fans = [("input", width, PIXELS), *[("hidden", width, width)] * depth, ("readout", CLASSES, width)]
        self.uses, self.weights = [], nn.ParameterList()
        for role, rows, columns in fans:
            rule = design.rule(Place(role, columns, rows, width=width, base_width=design.base_width))
            self.uses.append(Weight(rule, free=role == "readout"))
            self.weights.append(matrix(rows, columns, std=rule.std, generator=self.generator))
        f = activation(design.activation)
        self.layers = nn.ModuleList(_Activation(f, root_second_moment(f) if rule.unit else 1.0) for _ in fans[:-1])

    def forward(self, x: Tensor) -> Tensor:
        for use, weight, layer in zip(self.uses[:-1], self.weights[:-1], self.layers, strict=True):
            x = layer(use.linear(x, weight))
        x = self.uses[-1].linear(x, self.weights[-1])
        return logits_scale(x) if self.uses[-1].rule.unit else x

    def groups(self) -> list[dict[str, Any]]:
        """One parameter group a matrix, with the factor on its rate."""
        return [{"params": [w], "factor": use.rule.lr} for use, w in zip(self.uses, self.weights, strict=True)]


@dataclass(frozen=True)
class DigitsRun:
    """What a run of the MLP holds fixed: Adam (betas .9, .999) without weight decay, a constant rate after a warmup.

    steps, batch: optimizer steps on so many images each, drawn with replacement; warmup_steps: of them
    """

    design: Design
    width: int
    depth: int = 2
    steps: int = 60
    batch: int = 128
    warmup_steps: int = 5

    def train(self, *, lr: float, seed: int) -> dict[str, Any]:
        """Train at a peak rate; loss is the mean cross entropy on 360 held-out images, train_loss on the rest, in nats.

        Raises RunFailed where it is no longer finite.
        """
        images, labels = digits()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # one split for all seeds
        held, rest = order[:HELD_OUT], order[HELD_OUT:]
        model = MLP(self.design, width=self.width, depth=self.depth, seed=seed)
        optimizer = torch.optim.Adam(model.groups(), lr=0.0, fused=True)
        for step in range(self.steps):
            picked = rest[torch.randint(len(rest), (self.batch,), generator=model.generator)]
            _step(model, optimizer, images[picked], labels[picked], lr * min(1, (step + 1) / self.warmup_steps))
        with torch.no_grad():
            loss, train_loss = (float(F.cross_entropy(model(images[i]), labels[i])) for i in (held, rest))
        if not math.isfinite(loss + train_loss):
            raise RunFailed("the loss is not finite")
        params = sum(p.numel() for p in model.parameters())
        flops = 6 * params * self.steps * self.batch
        return {"params": params, "flops": flops, "loss": loss, "train_loss": train_loss}


def _step(model: MLP, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, lr: float) -> None:
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    optimizer.step()
