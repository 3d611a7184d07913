from isoflop.levers.activations.ood._adaptive import Calibration, percentiles
from isoflop.levers.activations.ood._arrays import Array, features_of, logsumexp, ratio


def adascale_l(features: Array, *, perturbed: Array, calibration: Calibration, weight: Array, bias: Array) -> Array:
    """ln sum exp(S(f, p(x))^2 z), z the logits of f: as adascale_a, scaling logits instead

    Source: Regmi 2025 (AdaSCALE), variant L, from its code.
    """
    f, w, b = features_of("adascale_l", features, weight=weight, bias=bias, positive=True)
    s = ratio(f, percentiles(f, perturbed=perturbed, calibration=calibration))
    return logsumexp((f @ w.T + b) * (s**2)[:, None])
