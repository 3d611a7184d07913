"""Out-of-distribution scores on small images: trained on the digits 0 to 6, asked about other digits and spoilt ones.

    python -m isoflop.levers.activations._digits --out FOLDER

writes recorded/activations/ood_digits.csv. Needs scikit-learn (its 1,797 images of 8 x 8) and PyTorch. Near: digits 7
to 9. Far: the test images of 0 to 6 with pixels shuffled, upside down in brightness, turned by a quarter, and noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop import _find
from isoflop.levers.activations._experiment import Row, main
from isoflop.levers.activations.ish import Ish
from isoflop.levers.activations.ood._adaptive import calibrate, perturb
from isoflop.levers.activations.ood._premise import Premise, auroc, fpr95, guarded_scale, premise

SCORES = ("msp", "energy", "ash_p", "ash_b", "ash_s", "scale")
ADAPTIVE = ("adascale_a", "adascale_l")


class Net(nn.Module):
    """Images (rows, 1, 8, 8) -> features of at least 0 -> logits of seven classes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body: nn.Module
        if kind == "conv":
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
        else:
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head: nn.Module = nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def images(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """train, check and test images of 0 to 6 with their labels, and those of 7 to 9 as "near"; brightness scaled."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = (torch.tensor(x[order], dtype=torch.float32).view(-1, 1, 8, 8) - 4.88) / 6.02, torch.tensor(y[order])
    known = y < 7
    ends = {"train": slice(0, 850), "check": slice(850, 1050), "test": slice(1050, None)}
    found = {name: (x[known][part], y[known][part]) for name, part in ends.items()}
    return found | {"near": (x[~known], y[~known])}


def spoilt(x: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Far data made of images: each image's pixels shuffled, brightness inverted, turned; and uniform noise."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(len(x), 64, generator=generator).argsort(dim=1)
    low, high = float(x.min()), float(x.max())
    noise = low + (high - low) * torch.rand(x.shape, generator=generator)
    shuffled = x.flatten(1).gather(1, places).view_as(x)
    return {"shuffled": shuffled, "inverted": low + high - x, "turned": x.rot90(1, (2, 3)), "noise": noise}


def fit(net: Net, x: Tensor, y: Tensor, *, epochs: int, seed: int, rate: float = 2e-3) -> Net:
    """The net itself, trained by Adam on batches of 64."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


def nets(kind: str, data: dict[str, Any], *, seed: int) -> dict[str, Net]:
    """A net after training, and after five epochs more, with ISH and without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = Net(kind)
    first = fit(first, *data["train"], epochs=25, seed=seed)
    plain = fit(deepcopy(first), *data["train"], epochs=5, seed=seed + 1, rate=1e-3)
    shaped = deepcopy(first)
    head: Any = shaped.head
    shaped.head = Ish(head)
    shaped = fit(shaped, *data["train"], epochs=5, seed=seed + 1, rate=1e-3)
    shaped.head = head
    return {"no": first, "plain": plain, "ish": shaped}


Scorer = Callable[[Tensor, Tensor], Tensor]  # features and inputs -> scores


def scorers(net: Net, check: Tensor, held: Premise, *, adaptive: bool) -> dict[str, Scorer]:
    """Every score by name with its head bound, calibrated on the images of 0 to 6 kept for that."""
    head: Any = net.head
    linear = {"weight": head.weight, "bias": head.bias}
    bound = {name: partial(_find.get("levers/activations/ood", name), **linear) for name in (*SCORES, *ADAPTIVE)}
    found: dict[str, Scorer] = {name: partial(_plain, bound[name]) for name in SCORES}
    found["scale_65"] = partial(_plain, partial(bound["scale"], percentile=65.0))
    found["guarded"] = partial(_plain, partial(guarded_scale, **linear, premise=held))
    if adaptive:
        made = calibrate(net.body(check), perturbed=net.body(perturb(net, check)))
        found |= {name: partial(_moved, partial(bound[name], calibration=made), net) for name in ADAPTIVE}
    return found


def _plain(score: Callable[..., Tensor], features: Tensor, x: Tensor) -> Tensor:
    return score(features)


def _moved(score: Callable[..., Tensor], net: Net, features: Tensor, x: Tensor) -> Tensor:
    return score(features, perturbed=net.body(perturb(net, x)))


@torch.no_grad()
def rows(kind: str, seed: int) -> Iterator[Row]:
    """Every score on every kind of other data, of one seed."""
    began, data = time.process_time(), images(seed)
    with torch.enable_grad():
        trained = nets(kind, data, seed=seed)
    check, (test, labels) = data["check"][0], data["test"]
    others = {"near": data["near"][0], **spoilt(test, seed=seed)}
    for tuned, net in trained.items():
        stand_in = spoilt(check, seed=seed + 100)["shuffled"]
        held = premise(net.body(check), net.body(stand_in), percentile=85.0)
        about = {
            "net": kind, "tuned": tuned, "seed": seed, "premise": held.auroc,
            "accuracy": float((net(test).argmax(1) == labels).double().mean()),
            "cpu_seconds": time.process_time() - began,
        }  # fmt: skip
        for name, score in scorers(net, check, held, adaptive=tuned == "no").items():
            of_known = score(net.body(test), test)
            for other, x in others.items():
                of_other = score(net.body(x), x)
                found = {"auroc": auroc(of_known, of_other), "fpr95": fpr95(of_known, of_other)}
                yield {**about, "other": other, "score": name, **found}


def experiment(seed: int) -> Iterator[tuple[str, Row]]:
    """The rows of both nets of a seed."""
    for kind in ("conv", "mlp"):
        for row in rows(kind, seed):
            yield "ood_digits", row


if __name__ == "__main__":
    main(__doc__, experiment, seeds=5)
