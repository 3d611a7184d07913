from isoflop.levers.activations.ood._arrays import Array, energy_of, features_of


def energy(features: Array, *, weight: Array, bias: Array) -> Array:
    """E(f) = ln sum_c exp(w_c . f + b_c)

    Source: Liu et al. 2020 (arXiv 2010.03759), with temperature 1 and the sign turned.
    """
    return energy_of(*features_of("energy", features, weight=weight, bias=bias))
