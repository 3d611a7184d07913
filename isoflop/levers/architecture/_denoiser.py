"""A net with long skips that takes noise off 8 x 8 digits: where scaling the skips can be tried in seconds.

Encoder blocks leave their output to the decoder block opposite, which reads it beside its own input through one
matrix, as in U-ViT; what the skip is multiplied by is what is tried here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop._lever import RunFailed
from isoflop.levers.train._mlp import HELD_OUT, PIXELS, digits
from isoflop.levers.train._units import matrix

SKIPS = ("constant", "powers", "learned")
LEVELS = 16  # numbers that tell the net how much noise there is
EVERY = 10  # steps between looks at the held-out loss
SQUEEZE = 16  # the learned coefficients' inner width is the width over this


def skip_scales(depth: int, *, skip: str, kappa: float) -> list[float]:
    """What the skips of encoder blocks 0 (outermost) to depth - 1 are multiplied by.

    constant: kappa, all; powers: kappa^0, kappa^1, ...; learned: 1, times `learned_scale`.
    Source: Huang et al. 2023, ScaleLong (arXiv:2310.13545), constant scaling; kappa = 2^-1/2 for all is older.
    """
    return [kappa**i if skip == "powers" else kappa if skip == "constant" else 1.0 for i in range(depth)]


def learned_scale(x: Tensor, squeeze: Tensor, excite: Tensor) -> Tensor:
    """sigmoid(excite relu(squeeze x)): a coefficient for each number of a skip, of the skip itself.

    squeeze: (width / 16, width), excite: (width, width / 16), one pair for all skips.
    Source: arXiv:2310.13545, learnable scaling; released code of its U-ViT, which means over a token's numbers first
    and has a coefficient a token. Here an image is one row, and each of its numbers has one.
    """
    return torch.sigmoid(F.linear(torch.relu(F.linear(x, squeeze)), excite))


class Net(nn.Module):
    """(noisy images, noise levels) -> the noise. Blocks: x + down silu(up rms_norm(x))."""

    def __init__(self, width: int, depth: int, *, skip: str, kappa: float, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.skip, self.scales = skip, skip_scales(depth, skip=skip, kappa=kappa)
        blocks, branch = 2 * depth + 1, (2 * width * (2 * depth + 1)) ** -0.5
        self.enter = matrix(width, PIXELS + LEVELS, std=(PIXELS + LEVELS) ** -0.5, generator=g)
        self.up = nn.ParameterList(matrix(2 * width, width, std=width**-0.5, generator=g) for _ in range(blocks))
        self.down = nn.ParameterList(matrix(width, 2 * width, std=branch, generator=g) for _ in range(blocks))
        self.join = nn.ParameterList(
            matrix(width, 2 * width, std=(2 * width) ** -0.5, generator=g) for _ in range(depth)
        )
        inner = max(1, width // SQUEEZE)
        if skip == "learned":
            self.squeeze = matrix(inner, width, std=width**-0.5, generator=g)
            self.excite = matrix(width, inner, std=0.02, generator=g)
        self.leave = matrix(PIXELS, width, std=width**-0.5, generator=g)

    def forward(self, images: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The noise, and the features that it is read from."""
        waves = torch.outer(levels, torch.arange(1, LEVELS // 2 + 1, dtype=levels.dtype)) * math.pi
        x = F.linear(torch.cat((images, waves.sin(), waves.cos()), dim=-1), self.enter)
        left: list[Tensor] = []
        depth = len(self.scales)
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            if i > depth:
                x = F.linear(torch.cat((x, self._skipped(left.pop(), len(left))), dim=-1), self.join[i - depth - 1])
            x = x + F.linear(F.silu(F.linear(F.rms_norm(x, x.shape[-1:]), up)), down)
            if i < depth:
                left.append(x)
        return F.linear(F.rms_norm(x, x.shape[-1:]), self.leave), x

    def _skipped(self, x: Tensor, index: int) -> Tensor:
        return x * (learned_scale(x, self.squeeze, self.excite) if self.skip == "learned" else self.scales[index])


@dataclass(frozen=True)
class Denoiser:
    """What a run holds fixed: Adam (betas .9, .999), a constant rate after a warmup.

    width, depth (encoder blocks, and as many decoder blocks beyond one in the middle); steps, batch (images, drawn
    with replacement); skip, kappa: see `skip_scales`
    """

    width: int = 64
    depth: int = 4
    steps: int = 300
    batch: int = 128
    warmup_steps: int = 10
    skip: str = "constant"
    kappa: float = 1.0

    def __post_init__(self) -> None:
        if self.skip not in SKIPS:
            raise ValueError(f"skip is {self.skip!r}, and should be one of {', '.join(SKIPS)}")
        if not 0 <= self.kappa < math.inf or min(self.width, self.depth, self.steps, self.batch, self.warmup_steps) < 1:
            raise ValueError("kappa is not below 0, and width, depth, steps, batch and warmup_steps are at least 1")

    def train(self, *, lr: float, seed: int) -> dict[str, Any]:
        """Train at a peak rate; loss is the mean squared error of the noise on 360 held-out images, 1 for none of it.

        feature_range, gradient_range: 95th less 5th percentile, over the last three quarters of the steps, of the
        RMS of the last decoder block's output and of the norm of all gradients; _median: their medians. sensitivity:
        RMS change of the answer over that of the images, for a change of .01, at the end. curve: held-out losses.
        Raises RunFailed where the loss is no longer finite.
        """
        images, rest = digits()[0], torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # one split for all seeds
        test, train = images[order[:HELD_OUT]], images[order[HELD_OUT:]]
        fixed = _noised(test, torch.Generator().manual_seed(1))
        net = Net(self.width, self.depth, skip=self.skip, kappa=self.kappa, seed=seed)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.0, fused=True)
        watched, curve = [], []
        for step in range(self.steps):
            batch = _noised(train[torch.randint(len(train), (self.batch,), generator=rest)], rest)
            watched.append(_step(net, optimizer, batch, lr * min(1, (step + 1) / self.warmup_steps)))
            if (step + 1) % EVERY == 0 or step + 1 == self.steps:
                curve.append({"step": step + 1, "loss": held_out(net, fixed)})
        params = sum(p.numel() for p in net.parameters())
        cost = {"params": params, "flops": 6 * params * self.steps * self.batch}
        if not (np.isfinite(watched).all() and math.isfinite(curve[-1]["loss"])):
            raise RunFailed("the loss is not finite", row=cost)
        looked = {**_ranges(np.array(watched)), "sensitivity": _sensitivity(net, fixed)}
        return {**cost, "loss": curve[-1]["loss"], **looked, "curve": curve}


def _noised(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """cos(a) images + sin(a) noise at uniform levels of a = pi / 2, the levels, and the noise."""
    levels = torch.rand(len(images), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    angle = (levels * math.pi / 2)[:, None]
    return angle.cos() * images + angle.sin() * noise, levels, noise


def _step(net: Net, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor, Tensor], lr: float) -> list[float]:
    """One step: RMS of the last features, and norm of the gradient."""
    answer, features = net(batch[0], batch[1])
    loss = F.mse_loss(answer, batch[2])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return [float(features.detach().square().mean().sqrt()), float(norm)]


@torch.no_grad()
def held_out(net: Net, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Mean squared error on held-out images."""
    return float(F.mse_loss(net(batch[0], batch[1])[0], batch[2]))


@torch.no_grad()
def _sensitivity(net: Net, batch: tuple[Tensor, Tensor, Tensor], *, size: float = 0.01) -> float:
    change = torch.randn(batch[0].shape, generator=torch.Generator().manual_seed(2)) * size
    moved = net(batch[0] + change, batch[1])[0] - net(batch[0], batch[1])[0]
    return float(moved.square().mean().sqrt()) / size


def _ranges(watched: np.ndarray) -> dict[str, float]:
    late = watched[len(watched) // 4 :]
    low, middle, high = np.percentile(late, [5, 50, 95], axis=0)
    names = ("feature", "gradient")
    return {f"{n}_range": float(high[i] - low[i]) for i, n in enumerate(names)} | {
        f"{n}_median": float(middle[i]) for i, n in enumerate(names)
    }
