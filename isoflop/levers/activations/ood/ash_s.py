from isoflop.levers.activations.ood._arrays import Array, energy_of, exp, features_of, kept, ratio, where


def ash_s(features: Array, *, weight: Array, bias: Array, percentile: float = 90.0) -> Array:
    """E(f'), f' = f exp(S(f, p)) above the percentile, 0 below: pruned and scaled.

    Source: Djurisic et al. 2023 (ASH, arXiv 2209.09858), ASH-S.
    """
    f, w, b = features_of("ash_s", features, weight=weight, bias=bias, positive=True)
    pruned = where(kept(f, percentile), f, 0.0)
    return energy_of(pruned * exp(ratio(f, percentile))[:, None], w, b)
