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


def dropped(x: Tensor, share: float, *, low: float, generator: torch.Generator) -> Tensor:
    """x with a share of its numbers set to `low`, then scaled and moved so that mean 0 and variance 1 stay.

    low = 0 keeps the mean of any x instead: plain dropout, x / (1 - share).
    Source: alpha dropout, Klambauer et al. 2017 (arXiv:1706.02515), where low = -lambda alpha of the SELU.
    """
    keep = torch.rand(x.shape, generator=generator) >= share
    if low == 0:
        return x * keep / (1 - share)
    scale = ((1 - share) * (1 + share * low**2)) ** -0.5
    return scale * torch.where(keep, x, low) - scale * share * low


class _Activation(nn.Module):
    """f(x) / size, a share of it dropped while training: a module, so that what leaves it can be watched."""

    def __init__(self, f: Activation, *, size: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.f, self.size, self.dropout, self.generator = f, size, dropout, generator
        self.low = float(f(torch.tensor(-math.inf))) if f is activation("selu") else 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.f(x) / self.size
        return dropped(x, self.dropout, low=self.low, generator=self.generator) if self.dropout and self.training else x


class MLP(nn.Module):
    """Pixels (batch, 64) -> logits (batch, 10): an input layer, depth hidden ones of one width, a readout.

    residual: hidden layers are x + c W f(x), c by the design's residual_scale and depth_scale (depth^-1/2); gain: the
    hidden layers start larger by this factor; dropout: after every activation, alpha dropout where that is a SELU
    """

    def __init__(
        self, design: Design, *, width: int, depth: int, seed: int, residual: bool = False, gain: float = 1.0,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        fans = [("input", width, PIXELS), *[("hidden", width, width)] * depth, ("readout", CLASSES, width)]
        self.uses, self.weights = [], nn.ParameterList()
        for role, rows, columns in fans:
            rule = design.rule(Place(role, columns, rows, width=width, base_width=design.base_width))
            self.uses.append(Weight(rule, free=role == "readout"))
            std = rule.std * (gain if role == "hidden" else 1.0)
            self.weights.append(matrix(rows, columns, std=std, generator=self.generator))
        f, branch = activation(design.activation), design.residual_scale * (depth**-0.5 if design.depth_scale else 1.0)
        self.branch = branch if residual else None
        size = root_second_moment(f) if rule.unit else 1.0
        masks = torch.Generator().manual_seed(2**32 + seed)  # of its own: batches are the same without dropout
        self.layers = nn.ModuleList(_Activation(f, size=size, dropout=dropout, generator=masks) for _ in fans[:-1])

    @classmethod
    def of(cls, run: DigitsRun, *, seed: int) -> MLP:
        """The model of a run."""
        names = ("width", "depth", "residual", "gain", "dropout")
        return cls(run.design, seed=seed, **{name: getattr(run, name) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        uses = [use.linear for use in self.uses]
        x = uses[0](x, self.weights[0])
        for use, weight, layer in zip(uses[1:-1], self.weights[1:-1], self.layers[:-1], strict=True):
            y = use(layer(x), weight)
            x = y if self.branch is None else x + self.branch * y
        x = uses[-1](self.layers[-1](x), self.weights[-1])
        return logits_scale(x) if self.uses[-1].rule.unit else x

    def groups(self) -> list[dict[str, Any]]:
        """One parameter group a matrix, with the factor on its rate."""
        return [{"params": [w], "factor": use.rule.lr} for use, w in zip(self.uses, self.weights, strict=True)]


@dataclass(frozen=True)
class DigitsRun:
    """What a run of the MLP holds fixed: Adam (betas .9, .999) without weight decay, a constant rate after a warmup.

    steps, batch: optimizer steps on so many images each, drawn with replacement; warmup_steps: of them
    dropout, residual, gain: see `MLP`
    """

    design: Design
    width: int
    depth: int = 2
    steps: int = 60
    batch: int = 128
    warmup_steps: int = 5
    dropout: float = 0.0
    residual: bool = False
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.dropout < 1 and 0 < self.gain < math.inf):
            raise ValueError(f"dropout {self.dropout} is not below 0 and below 1, gain {self.gain} above 0")

    def train(self, *, lr: float, seed: int) -> dict[str, Any]:
        """Train at a peak rate; loss is the mean cross entropy on 360 held-out images, train_loss on the rest, in nats.

        Raises RunFailed where it is no longer finite.
        """
        images, labels = digits()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # one split for all seeds
        held, rest = order[:HELD_OUT], order[HELD_OUT:]
        model = MLP.of(self, seed=seed)
        optimizer = torch.optim.Adam(model.groups(), lr=0.0, fused=True)
        for step in range(self.steps):
            picked = rest[torch.randint(len(rest), (self.batch,), generator=model.generator)]
            _step(model, optimizer, images[picked], labels[picked], lr * min(1, (step + 1) / self.warmup_steps))
        model.eval()
        with torch.no_grad():
            loss, train_loss = (float(F.cross_entropy(model(images[i]), labels[i])) for i in (held, rest))
        params = sum(p.numel() for p in model.parameters())
        cost = {"params": params, "flops": 6 * params * self.steps * self.batch}
        if not math.isfinite(loss + train_loss):
            raise RunFailed("the loss is not finite", row=cost)
        return {**cost, "loss": loss, "train_loss": train_loss}


def _step(model: MLP, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, lr: float) -> None:
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    optimizer.step()
