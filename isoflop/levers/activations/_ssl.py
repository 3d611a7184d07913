"""How different features are while small perceptrons learn without labels, and whether asking for it helps.

    python -m isoflop.levers.activations._ssl --out FOLDER

writes recorded/activations/ssl.csv. SimCLR (Chen et al. 2020, arXiv 2002.05709; NT-Xent at a temperature of .5) on the
1,797 digits of scikit-learn, two thirds of them to train on, as views shifted by up to one pixel, brighter or darker,
with noise; an encoder of three layers, leaky ReLUs so that no feature has length 0, and a linear projection. The error
is that of a ridge classifier of the encoder's last features on the other third, whose features the meter
feature_diversity looks at, layer by layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop._meter import get_meter
from isoflop.levers.activations._experiment import Row, main
from isoflop.levers.activations.hyperspherical_energy import hyperspherical_energy

WIDTHS, WEIGHTS, MIDDLE = (16, 32, 64, 128, 256), (0.1, 1.0), 64
EPOCHS = (0, 1, 2, 5, 10, 20, 50, 100)
_BATCH, _TEMPERATURE, _ASKED = 240, 0.5, 400


def images(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (rows, 8, 8) from 0 to 1 with labels, to train on and others."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    pixels, labels = torch.tensor(x[order] / 16, dtype=torch.float32).view(-1, 8, 8), torch.tensor(y[order])
    return (pixels[:1200], labels[:1200]), (pixels[1200:], labels[1200:])


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by -1, 0 or 1 pixels in both directions, times .7 to 1.3, plus noise of .1; flat."""
    wide, rows = F.pad(x, (1, 1, 1, 1)), torch.arange(len(x))
    moved = torch.stack([wide[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
    picked = moved[torch.randint(9, (len(x),), generator=generator), rows].flatten(1)
    bright = 0.7 + 0.6 * torch.rand(len(x), 1, generator=generator)
    return bright * picked + 0.1 * torch.randn(picked.shape, generator=generator)


def layers(encoder: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What each of the three layers makes of flat images."""
    found = []
    for part in encoder:
        x = part(x)
        found.append(x)
    return found


def contrast(one: Tensor, two: Tensor) -> Tensor:
    """NT-Xent: the cross-entropy of telling each view's partner among all other views."""
    z = F.normalize(torch.cat([one, two]), dim=1)
    like = (z @ z.T / _TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(like, torch.arange(len(z)).roll(len(one)))


def probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Error of a ridge classifier of standardised features."""
    mean, sd = train.mean(0), train.std(0) + 1e-6
    x, t = (torch.cat([(f - mean) / sd, torch.ones(len(f), 1)], dim=1).double() for f in (train, test))
    gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    said = (t @ torch.linalg.solve(gram, x.T @ F.one_hot(labels, 10).double())).argmax(1)
    return float((said != truth).double().mean())


def learned(seed: int, width: int, weight: float) -> Iterator[Row]:
    """One run, a row at each of EPOCHS; `weight` of the energy of the last features in the loss."""
    (x, y), (other, truth) = images(seed)
    began, meter = time.process_time(), get_meter("feature_diversity")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [64, width, width, width]
        encoder = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(0.1)) for a, b in pairwise(sizes)))
        project = nn.Linear(width, 32)
    optimizer = torch.optim.Adam([*encoder.parameters(), *project.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(max(EPOCHS) + 1):
        if epoch in EPOCHS:
            with torch.no_grad():
                seen, shown = layers(encoder, x.flatten(1))[-1], layers(encoder, other.flatten(1))
            apart = [meter(x=f[:_ASKED].double().numpy())["diversity"] for f in shown]
            yield {
                "seed": seed, "width": width, "weight": weight, "epoch": epoch,
                "error": probe(seen, y, shown[-1], truth),
                **{f"diversity_{i + 1}": d for i, d in enumerate(apart)}, "cpu_seconds": time.process_time() - began,
            }  # fmt: skip
        for rows in torch.randperm(len(x), generator=generator).split(_BATCH):
            one, two = (layers(encoder, view(x[rows], generator))[-1] for _ in range(2))
            loss = contrast(project(one), project(two)) + (weight * hyperspherical_energy(one) if weight else 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def experiment(seed: int) -> Iterator[tuple[str, Row]]:
    """The widths, and the middle one with the energy in its loss."""
    for width, weight in [*((w, 0.0) for w in WIDTHS), *((MIDDLE, w) for w in WEIGHTS)]:
        yield from (("ssl", row) for row in learned(seed, width, weight))


if __name__ == "__main__":
    main(__doc__, experiment, seeds=5)
