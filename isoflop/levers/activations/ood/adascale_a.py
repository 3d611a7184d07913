from isoflop.levers.activations.ood._adaptive import Calibration, percentiles
from isoflop.levers.activations.ood._arrays import Array, energy_of, exp, features_of, ratio


def adascale_a(features: Array, *, perturbed: Array, calibration: Calibration, weight: Array, bias: Array) -> Array:
    """E(f'), f' = f exp(S(f, p(x))), p(x) lower for rows whose largest features move more under a small perturbation

    perturbed: features of the perturbed inputs (`perturb` in `_adaptive`); calibration: `calibrate` there, on known
    data.

    Source: Regmi 2025 (AdaSCALE), variant A, from its code.
    """
    f, w, b = features_of("adascale_a", features, weight=weight, bias=bias, positive=True)
    p = percentiles(f, perturbed=perturbed, calibration=calibration)
    return energy_of(f * exp(ratio(f, p))[:, None], w, b)
