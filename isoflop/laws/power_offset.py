from isoflop import law, positive


@law(target="loss")
def power_offset(x, *, E=positive(0.1, 1, like="target"), A=positive(1e-6, 1e6), alpha=positive(0.01, 2)):
    """L = E + A / x^alpha

    A power law above an irreducible term E. x in any unit.

    Source: Hestness et al. 2017 (arXiv 1712.00409), section 3; Henighan et al. 2020 (arXiv 2010.14701), eq. 1.1.
    """
    return E + A * x**-alpha
