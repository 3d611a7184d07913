from isoflop import law, positive, real, xp


@law(target="loss")
def bnsl2(
    x,
    *,
    a=positive(0.1, 1, like="target"),
    b=positive(1e-6, 1e6),
    c0=real(-0.5, 1),
    c1=real(-1, 1),
    d1=positive(1, 0.3, like="x"),
    f1=positive(0.05, 1),
    c2=real(-1, 1),
    gap=positive(2, 1000),
    f2=positive(0.05, 1),
):
    """y = a + b x^-c0 (1 + (x / d1)^(1/f1))^(-c1 f1) (1 + (x / d2)^(1/f2))^(-c2 f2), d2 = d1 (1 + gap)

    A power law with two smooth breaks, at d1 and d2. The second stands as its distance from the first, so that the two
    cannot change places.

    Source: Caballero et al. 2022 (arXiv 2210.14891), eq. 1 with n = 2.
    """
    lx = xp.log(x)
    first = c1 * f1 * xp.softplus((lx - xp.log(d1)) / f1)
    second = c2 * f2 * xp.softplus((lx - xp.log(d1) - xp.log1p(gap)) / f2)
    return a + b * xp.exp(-c0 * lx - first - second)
