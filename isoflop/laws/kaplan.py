from isoflop import law, positive


@law(target="loss")
def kaplan(
    params,
    tokens,
    *,
    Nc=positive(1e9, 1e18),
    Dc=positive(1e9, 1e18),
    alpha_N=positive(0.02, 1),
    alpha_D=positive(0.02, 1),
):
    """L(N, D) = ((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D

    params: N, non-embedding in the paper; tokens: D. There is no irreducible term.
    Compute-optimal at C = 6ND: N^(1+s) = s Nc^s C / (6 Dc), s = alpha_N / alpha_D.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), eq. 1.5; constants of its table 2: alpha_N .076, alpha_D .103,
    Nc 6.4e13, Dc 1.8e13.
    """
    return ((Nc / params) ** (alpha_N / alpha_D) + Dc / tokens) ** alpha_D
