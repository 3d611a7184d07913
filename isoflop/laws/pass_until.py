from isoflop import law, positive, xp


@law(target="pass_rate")
def pass_until(params, *, c=positive(1, 1e3), a=positive(0.05, 1)):
    """PU(N) = exp(-c N^-a)

    Mean probability that a sample passes, measured by sampling each item until it passes. params: N. ln(-ln PU) is a
    straight line in ln N; a curve that bends up against it is accelerated emergence.

    Source: Hu et al. 2023 (arXiv 2310.03262), task scaling law, straight in figure 1.
    """
    return xp.exp(-c * params**-a)
