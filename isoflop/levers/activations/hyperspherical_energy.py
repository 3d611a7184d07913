"""How crowded features are on the sphere, as a loss."""

from __future__ import annotations

import torch
from torch import Tensor


def hyperspherical_energy(x: Tensor, *, s: float = 1.0) -> Tensor:
    """Mean over pairs of |u_i - u_j|^-s, of ln(1 / |u_i - u_j|) for s = 0; u = x / |x|, x (rows, width)

    Added to a loss it drives features apart; the meter feature_diversity is made of the same number. Distances below
    .001 count as that, so that its gradient stays finite. Raises ValueError for fewer than two rows or s below 0.

    Source: Liu et al. 2018 (Minimum Hyperspherical Energy, arXiv 1805.09298), there of weights; of features Chen et al.
    2021 (arXiv 2104.02290), equation 1.
    """
    if x.ndim != 2 or len(x) < 2 or s < 0:
        raise ValueError(f"hyperspherical_energy: features {tuple(x.shape)} and s={s:g}; give two rows or more, s >= 0")
    u = torch.nn.functional.normalize(x, dim=1)
    first, second = torch.triu_indices(len(u), len(u), offset=1, device=u.device)
    apart = (2 - 2 * (u @ u.T)[first, second]).clamp_min(1e-6).sqrt()
    return (apart**-s).mean() if s else -apart.log().mean()
