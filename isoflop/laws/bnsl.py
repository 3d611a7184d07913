from isoflop import law, positive, real, xp


@law(target="loss")
def bnsl(
    x,
    *,
    a=positive(0.1, 1, like="target"),
    b=positive(1e-6, 1e6),
    c0=real(-0.5, 1),
    c1=real(-1, 1),
    d1=positive(1, 1, like="x"),
    f1=positive(0.05, 1),
):
    """y = a + b x^-c0 (1 + (x / d1)^(1/f1))^(-c1 f1)

    A power law with one smooth break at d1: slope -c0 before it, -(c0 + c1) after it, f1 is the break's sharpness
    (small: sharp). Rising, falling and U-shaped curves are all in it.

    Source: Caballero et al. 2022 (arXiv 2210.14891), eq. 1 with n = 1.
    """
    lx = xp.log(x)
    return a + b * xp.exp(-c0 * lx - c1 * f1 * xp.softplus((lx - xp.log(d1)) / f1))
