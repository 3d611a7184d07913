from isoflop import law, positive


@law(target="loss")
def chinchilla(
    params,
    tokens,
    *,
    E=positive(0.1, 1, like="target"),
    A=positive(1, 1e5),
    B=positive(1, 1e5),
    alpha=positive(0.05, 1.5),
    beta=positive(0.05, 1.5),
):
    """L(N, D) = E + A / N^alpha + B / D^beta

    params: N (say which count on the run), tokens: D. E is the irreducible loss in the unit of the loss.
    Compute-optimal at C = 6ND: N = G (C/6)^(beta/(alpha+beta)), G = (alpha A / (beta B))^(1/(alpha+beta)).

    Source: Hoffmann et al. 2022 (arXiv 2203.15556), eq. 2 and section 3.3; refitted by Besiroglu et al. 2024
    (arXiv 2404.10102), table 1.
    """
    return E + A / params**alpha + B / tokens**beta
