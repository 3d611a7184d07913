from isoflop.levers.activations.ood._arrays import Array, energy_of, features_of, kept, where


def ash_b(features: Array, *, weight: Array, bias: Array, percentile: float = 90.0) -> Array:
    """E(f'), f' = sum f / k for the k units above the percentile, 0 below: the sum is kept, all else made binary.

    Source: Djurisic et al. 2023 (ASH, arXiv 2209.09858), ASH-B.
    """
    f, w, b = features_of("ash_b", features, weight=weight, bias=bias, positive=True)
    keep = kept(f, percentile)
    each = f.sum(-1) / keep.sum(-1)
    return energy_of(where(keep, 0 * f + each[:, None], 0.0), w, b)
