from isoflop import law, positive, unit


@law(target="accuracy", objective="squares")
def sigmoid(x, *, R0=unit(0, 0.5), A=unit(0.3, 1), x_mid=positive(0.3, 10, like="x"), B=positive(0.2, 5)):
    """R = R0 + (A - R0) / (1 + (x_mid / x)^B)

    A bounded metric against compute on a log axis: R0 at the start, asymptote A, half of the gain at x_mid,
    steepness B.

    Source: Khatri et al. 2025 (arXiv 2510.13786), eq. 1.
    """
    return R0 + (A - R0) / (1 + (x_mid / x) ** B)
