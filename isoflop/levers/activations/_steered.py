"""Steering on a small language whose styles are known.

    python -m isoflop.levers.activations._steered --out FOLDER

writes recorded/activations/{controller,hypernetwork}.csv. A text's style is a point z in four dimensions; its tokens
are drawn from softmax(2 W z), 16 tokens, and a transformer of width 32 learns to read the style off the text. Texts
asked about are 8 tokens long; the target distribution of a style is known exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.activations._experiment import Row, main
from isoflop.levers.activations._model import make
from isoflop.levers.activations.hypersteer import hypersteer
from isoflop.levers.activations.steering import directions, divergence, learn, next_tokens, steering
from isoflop.levers.train._shape import Shape

_VOCAB, _CONTEXT, _ASKED, _LAYER = 16, 24, 8, "layers.0"
_TARGET = (0, 1)


@dataclass(frozen=True)
class World:
    """The table W of styles (4, vocab), a model that was trained on its texts, and a generator of texts."""

    table: Tensor
    model: nn.Module
    generator: torch.Generator

    def styles(self, count: int) -> Tensor:
        """Points z (count, 4)."""
        return torch.randn(count, 4, generator=self.generator)

    def logits(self, z: Tensor) -> Tensor:
        """Log probabilities of the tokens of each style."""
        return (2 * z @ self.table).log_softmax(dim=-1)

    def texts(self, z: Tensor, *, length: int = _ASKED) -> Tensor:
        """One text of each style (count, length)."""
        return torch.multinomial(self.logits(z).exp(), length, replacement=True, generator=self.generator)


def world(seed: int) -> World:
    """A language and a transformer trained on 400 batches of 32 of its texts."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(4, _VOCAB, generator=generator) / 2
    model = make(Shape(width=32, depth=2, vocab=_VOCAB), context=_CONTEXT, seed=seed)
    made = World(table, model, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        windows = made.texts(made.styles(32), length=_CONTEXT + 1)
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    return made


def controlled(made: World, seed: int) -> Iterator[Row]:
    """Texts whose first style coordinate is above 1 are triggers: after them tokens 0 and 1 are wanted, elsewhere
    nothing is to change. A controller against a constant strength with the same mean probability of the target."""
    began = time.process_time()
    z = made.styles(6000)
    triggers, benign = made.texts(z[z[:, 0] > 1]), made.texts(z[z[:, 0] < 0])
    wanted = made.logits(z)[:, list(_TARGET)].logsumexp(dim=-1)
    order = wanted.argsort()
    along = directions(made.model, made.texts(z[order[-500:]]), made.texts(z[order[:3000]]))
    few, rest = slice(0, 400), slice(400, 800)
    steered = learn(made.model, triggers[few], benign[few], along=along, target=_TARGET, seed=seed)
    with torch.no_grad():
        base = next_tokens(made.model(benign[rest]))
        hit = _hit(next_tokens(steered(triggers[rest])))
        rows = {
            "none": (_hit(next_tokens(made.model(triggers[rest]))), 0.0),
            "controller": (hit, float(divergence(base, next_tokens(steered(benign[rest]))))),
        }
        low, high = 0.0, 8.0
        for _ in range(20):
            middle = (low + high) / 2
            with steering(made.model, along, scale=middle):
                reached = _hit(next_tokens(made.model(triggers[rest])))
            low, high = (middle, high) if reached < hit else (low, middle)
        with steering(made.model, along, scale=high):
            rows["constant"] = (reached, float(divergence(base, next_tokens(made.model(benign[rest])))))
    for method, (target, changed_by) in rows.items():
        yield {
            "seed": seed, "method": method, "target": target, "benign_kl": changed_by,
            "cpu_seconds": time.process_time() - began,
        }  # fmt: skip


def _hit(log_p: Tensor) -> float:
    """Mean probability of the target tokens."""
    return float(log_p[:, list(_TARGET)].logsumexp(dim=-1).exp().mean())


def hypernetwork(made: World, seed: int) -> Iterator[Row]:
    """`hypersteer` from z, trained on some styles and asked about 64 others, after texts of other styles; against the
    difference of means from 16 texts of the style, at its best strength of 1, 2, 4 and 8. Measured is KL(style | next
    token), and the same without steering."""
    unseen, context = made.styles(64).repeat_interleave(8, dim=0), made.texts(made.styles(512))
    wanted = made.logits(unseen)

    def measured(v: Tensor, scale: float = 1.0) -> float:
        with torch.no_grad(), steering(made.model, {_LAYER: v}, scale=scale):
            return float(divergence(wanted, next_tokens(made.model(context))))

    shift = [directions(made.model, made.texts(z.repeat(16, 1)), context, layers=[_LAYER])[_LAYER] for z in unseen[::8]]
    means = torch.stack(shift).repeat_interleave(8, dim=0)
    yield {"seed": seed, "method": "none", "styles": 0, "kl": measured(means, 0.0), "cpu_seconds": 0.0}
    best = min(measured(means, size) for size in (1.0, 2.0, 4.0, 8.0))
    yield {"seed": seed, "method": "means", "styles": 0, "kl": best, "cpu_seconds": 0.0}
    others = made.texts(made.styles(8192))
    for count in (4, 16, 64, 256):
        began = time.process_time()
        z = made.styles(count)[torch.randint(count, (len(others),), generator=made.generator)]
        learned = hypersteer(made.model, z, others, targets=made.logits(z).exp()[:, None], layer=_LAYER, seed=seed)
        with torch.no_grad():
            v = learned.network(unseen)
        spent = time.process_time() - began
        yield {"seed": seed, "method": "hypernetwork", "styles": count, "kl": measured(v), "cpu_seconds": spent}


def experiment(seed: int) -> Iterator[tuple[str, Row]]:
    """Both tables' rows of a seed."""
    made = world(seed)
    yield from (("controller", row) for row in controlled(made, seed))
    yield from (("hypernetwork", row) for row in hypernetwork(made, seed))


if __name__ == "__main__":
    main(__doc__, experiment, seeds=3)
