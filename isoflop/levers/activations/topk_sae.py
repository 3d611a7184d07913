"""Sparse autoencoders with the k largest latents active, trained on activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseAutoencoder:
    """x' = mean + decoder^T TopK(encoder (x - bias) + latent_bias), scaled by `size`; see `topk_sae`.

    encoder (latents, width), decoder (latents, width) with rows of length 1, bias (width), latent_bias (latents);
    active: latents that may be other than 0; dead: share of latents that no training row ever made active at the end.
    """

    encoder: Tensor
    decoder: Tensor
    bias: Tensor
    latent_bias: Tensor
    size: float
    active: int
    dead: float

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents (rows, latents) of activations (rows, width), all but the `active` largest of each row 0."""
        return _top(_before(self._weights(), x / self.size), self.active)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Reconstructions of activations (rows, width)."""
        return (self.encode(x) @ self.decoder + self.bias) * self.size

    def mse(self, x: Tensor) -> float:
        """|x - x'|^2 / |x - mean x|^2 over all rows: 1 for an autoencoder that gives the mean."""
        error = (x - self(x)).double()
        return float((error**2).sum() / ((x - x.mean(dim=0)).double() ** 2).sum())

    def _weights(self) -> dict[str, Tensor]:
        return {"encoder": self.encoder, "bias": self.bias, "latent_bias": self.latent_bias}


def topk_sae(
    x: Tensor,
    *,
    latents: int,
    active: int,
    steps: int = 800,
    batch: int = 256,
    rate: float | None = None,
    auxiliary: float = 1 / 32,
    seed: int = 0,
) -> SparseAutoencoder:
    """Train one on activations x (rows, width).

    The encoder starts as the decoder's transpose, decoder rows are kept at length 1 (and their gradient across them),
    and a latent that was not active for a tenth of the steps is dead: up to width / 2 dead latents of the largest
    size rebuild what is left over, a loss that counts `auxiliary` times (0: not at all). rate: of Adam, by default
    .03 / sqrt(latents), falling to 0 in the last fifth. Raises ValueError for fewer rows than latents.

    Source: Gao et al. 2024 (arXiv 2406.04093), section 2 and appendix A; the constants of the rate are ours.
    """
    if x.ndim != 2 or len(x) < latents or not 1 <= active <= latents:
        raise ValueError(
            f"topk_sae: {latents} latents, {active} of them active, and activations {tuple(x.shape)}: give (rows, "
            "width) with at least as many rows as latents, and 1 <= active <= latents"
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError("topk_sae: the activations hold a number that is not finite")
    generator = torch.Generator().manual_seed(seed)
    size = float(x.double().var(dim=0, correction=0).sum().sqrt()) / math.sqrt(x.shape[1]) or 1.0
    x = x.detach() / size
    weights = _start(x, latents, generator)
    peak = 0.03 / math.sqrt(latents) if rate is None else rate
    optimizer = torch.optim.Adam(list(weights.values()), lr=peak, eps=1e-8)
    idle = torch.zeros(latents, dtype=torch.long)
    for step in range(steps):
        rows = x[torch.randint(len(x), (batch,), generator=generator)]
        fired = _step(weights, optimizer, rows, active, dead=idle > steps // 10, auxiliary=auxiliary)
        idle = torch.where(fired, 0, idle + 1)
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (steps - step) / (steps / 5))
    plain = {name: w.detach().clone() for name, w in weights.items()}
    return SparseAutoencoder(**plain, size=size, active=active, dead=_dead(plain, x, active))


def _start(x: Tensor, latents: int, generator: torch.Generator) -> dict[str, Tensor]:
    decoder = torch.randn(latents, x.shape[1], generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    weights = {
        "encoder": decoder.clone(), "decoder": decoder, "bias": x.mean(dim=0), "latent_bias": torch.zeros(latents)
    }  # fmt: skip
    return {name: w.requires_grad_(True) for name, w in weights.items()}


def _before(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return (x - weights["bias"]) @ weights["encoder"].T + weights["latent_bias"]


def _top(z: Tensor, k: int) -> Tensor:
    """The k largest of each row through a ReLU, 0 elsewhere."""
    value, place = z.topk(k, dim=-1)
    return torch.zeros_like(z).scatter(-1, place, value.relu())


def _step(
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    active: int,
    *,
    dead: Tensor,
    auxiliary: float,
) -> Tensor:
    """One step; which latents were active in it."""
    before = _before(weights, x)
    z = _top(before, active)
    error = x - z @ weights["decoder"] - weights["bias"]
    loss = (error**2).mean()
    if auxiliary and bool(dead.any()):
        few = min(x.shape[1] // 2, int(dead.sum()))
        revived = _top(before.masked_fill(~dead, -torch.inf), few) @ weights["decoder"]
        left = error.detach()
        loss = loss + auxiliary * ((left - revived) ** 2).mean() / (left**2).mean().clamp_min(1e-12)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    decoder = weights["decoder"]
    with torch.no_grad():
        if decoder.grad is not None:
            decoder.grad -= (decoder.grad * decoder).sum(dim=1, keepdim=True) * decoder
        optimizer.step()
        decoder /= decoder.norm(dim=1, keepdim=True)
    return (z > 0).any(dim=0)


@torch.no_grad()
def _dead(weights: dict[str, Tensor], x: Tensor, active: int) -> float:
    fired = torch.zeros(len(weights["encoder"]), dtype=torch.bool)
    for rows in x.split(4096):
        fired |= (_top(_before(weights, rows), active) > 0).any(dim=0)
    return float((~fired).double().mean())


def recovered(found: Tensor, truth: Tensor) -> Tensor:
    """For each true direction (features, width) the largest cosine with a decoder row."""
    unit = [w / w.norm(dim=1, keepdim=True) for w in (truth.double(), found.double())]
    return (unit[0] @ unit[1].T).amax(dim=1)
