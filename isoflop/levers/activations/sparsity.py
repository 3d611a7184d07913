"""How many neurons of the feed-forward blocks a language model needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._measure import losses

DOWN = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "fc2")  # Llama and ours, GPT-2, NeoX, OPT
_HALVINGS = 40


@dataclass(frozen=True)
class Sparsity:
    """activation_ratio: mean share of neurons kept; cett: the tail cut off in every layer; thresholds by layer;
    loss_before, loss: held-out loss in nats of the dense and of the pruned model, on the same windows."""

    activation_ratio: float
    cett: float
    loss_before: float
    loss: float
    thresholds: dict[str, float]
    ratios: dict[str, float]

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity of the pruned model over that of the dense one."""
        return math.exp(self.loss - self.loss_before)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "perplexity_ratio": self.perplexity_ratio}


@torch.no_grad()
def sparsity(
    model: nn.Module, windows: Tensor, *, rise: float = 0.01, down: Sequence[str] = DOWN, steps: int = 12
) -> Sparsity:
    """PPL-p % sparsity: the share of neurons with which perplexity is still at most (1 + rise) times the dense one's.

    A neuron i writes n_i = h_i W_i to its block's output, W_i its column of the down-projection. In each layer those
    with |n_i| below a threshold are left out; the threshold is the one at which
    CETT = |sum of n_i left out| / |sum of all n_i|, averaged over tokens, equals one tau for all layers; tau is
    bisected, `steps` times between 0 and 1.

    windows: held-out ids (windows, time + 1); thresholds are set on them as well. down: endings of the names of the
    down-projections, which must be nn.Linear (`isoflop.levers.precision._plain.plain` makes them so).
    Raises ValueError where there is none.

    Source: Luo et al. 2024 (arXiv 2411.02335), section 3; tail truncation and its bisection also in their code.
    """
    names = [n for n, m in model.named_modules() if n.endswith(tuple(down)) and isinstance(m, nn.Linear)]
    if not names:
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear that ends in one of {', '.join(down)}; name it in `down`"
        )
    before = float(losses(model, windows)[0].mean())
    neurons = _neurons(model, names, windows)
    low, high = 0.0, 1.0
    best = _pruned(model, neurons, windows, cett=0.0, before=before)
    for _ in range(steps):
        middle = (low + high) / 2
        tried = _pruned(model, neurons, windows, cett=middle, before=before)
        if tried.perplexity_ratio <= 1 + rise:
            low, best = middle, tried
        else:
            high = middle
    return best


def cett(h: Tensor, weight: Tensor, threshold: float) -> float:
    """Mean over tokens of |sum of neuron outputs below the threshold| / |sum of all|; h (tokens, neurons), weight
    (width, neurons). A token whose block writes nothing counts 0.

    Source: Luo et al. 2024 (arXiv 2411.02335), section 3 (cumulative errors of tail truncation).
    """
    return _cett(h, weight, threshold, (h @ weight.T).norm(dim=1))


def _cett(h: Tensor, weight: Tensor, threshold: float, whole: Tensor) -> float:
    cut = torch.where(h.abs() * weight.norm(dim=0) < threshold, h, 0.0)
    return float(torch.where(whole > 0, (cut @ weight.T).norm(dim=1) / whole.clamp_min(1e-30), 0.0).double().mean())


@dataclass(frozen=True)
class _Neurons:
    """Inputs of one down-projection (tokens, neurons), its weight, and the lengths of its outputs."""

    h: Tensor
    weight: Tensor
    whole: Tensor

    def threshold(self, tau: float) -> float:
        """The largest threshold whose CETT stays within tau, by bisection; below the smallest size where tau is 0."""
        size = self.h.abs() * self.weight.norm(dim=0)
        low, high = 0.0, float(size.max()) * (1 + 1e-6)
        if _cett(self.h, self.weight, high, self.whole) <= tau:
            return high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if _cett(self.h, self.weight, middle, self.whole) <= tau else (low, middle)
            if high - low <= 1e-3 * high:
                break
        return low


_TOKENS = 1024  # enough for a threshold; the share kept is counted on all of them


def _neurons(model: nn.Module, names: Sequence[str], windows: Tensor) -> dict[str, _Neurons]:
    held: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(n).register_forward_pre_hook(lambda m, args, n=n: held.__setitem__(n, args[0]))
        for n in names
    ]
    try:
        few = windows[: max(1, _TOKENS // (windows.shape[1] - 1)), :-1]
        model(few)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = layer.weight.detach()
        h = held[name].flatten(0, -2)
        found[name] = _Neurons(h, weight, (h @ weight.T).norm(dim=1))
    return found


@contextmanager
def _cutting(model: nn.Module, neurons: dict[str, _Neurons], thresholds: dict[str, float]) -> Iterator[dict[str, Any]]:
    """While open, neurons below their layer's threshold are 0; yields how many were kept of how many, by layer."""
    kept: dict[str, Any] = {name: [0.0, 0.0] for name in thresholds}

    def hook(name: str) -> Any:
        norms = neurons[name].weight.norm(dim=0)

        def cut(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h = args[0]
            keep = h.abs() * norms >= thresholds[name]
            keep &= h != 0  # an inactive neuron is not kept, whatever the threshold
            kept[name][0] += float(keep.sum())
            kept[name][1] += keep.numel()
            return (h * keep, *args[1:])

        return cut

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n)) for n in thresholds]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _pruned(model: nn.Module, neurons: dict[str, _Neurons], windows: Tensor, *, cett: float, before: float) -> Sparsity:
    thresholds = {name: n.threshold(cett) for name, n in neurons.items()}
    with _cutting(model, neurons, thresholds) as kept:
        loss = float(losses(model, windows)[0].mean())
    ratios = {name: some / of for name, (some, of) in kept.items()}
    return Sparsity(sum(ratios.values()) / len(ratios), cett, before, loss, thresholds, ratios)
