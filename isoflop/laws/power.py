from isoflop import law, positive


@law(target="loss")
def power(x, *, A=positive(1e-6, 1e6), alpha=positive(0.01, 2)):
    """L = A / x^alpha

    A pure power law, without an irreducible term. x in any unit; A is the value at x = 1.

    Source: Hestness et al. 2017 (arXiv 1712.00409), eq. 1 without offset; Kaplan et al. 2020 (arXiv 2001.08361),
    eq. 1.1.
    """
    return A * x**-alpha
