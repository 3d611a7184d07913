from isoflop.levers.activations.ood._arrays import Array, energy_of, features_of, kept, where


def ash_p(features: Array, *, weight: Array, bias: Array, percentile: float = 90.0) -> Array:
    """E(f'), f' = f above its percentile, 0 below: pruning alone.

    Source: Djurisic et al. 2023 (ASH, arXiv 2209.09858), ASH-P.
    """
    f, w, b = features_of("ash_p", features, weight=weight, bias=bias)
    return energy_of(where(kept(f, percentile), f, 0.0), w, b)
