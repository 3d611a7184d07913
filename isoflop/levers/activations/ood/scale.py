from isoflop.levers.activations.ood._arrays import Array, energy_of, exp, features_of, ratio


def scale(features: Array, *, weight: Array, bias: Array, percentile: float = 85.0) -> Array:
    """E(f'), f' = f exp(S(f, p)), S = sum f / sum of the largest (100 - p) % of f: scaled, nothing pruned

    With a bias of 0 the predicted class is that of f. It helps where S is larger on known data than on other data:
    see `premise`.

    Source: Xu et al. 2024 (SCALE, arXiv 2310.00227).
    """
    f, w, b = features_of("scale", features, weight=weight, bias=bias, positive=True)
    return energy_of(f * exp(ratio(f, percentile))[:, None], w, b)
