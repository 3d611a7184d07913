from isoflop import law, positive, xp


@law(target="loss")
def data_constrained(
    params,
    tokens,
    unique,
    *,
    E=positive(0.1, 1, like="target"),
    A=positive(1, 1e5),
    B=positive(1, 1e5),
    alpha=positive(0.05, 1.5),
    beta=positive(0.05, 1.5),
    R_N=positive(0.5, 100),
    R_D=positive(0.5, 100),
):
    """L(N, D, U) = E + A / N'^alpha + B / D'^beta, with D' = U + U R_D (1 - exp(-(D/U - 1) / R_D)), N' likewise

    unique: U, unique tokens, at most D. Repeating data is worth less each epoch, with half-life about R_D epochs. For
    parameters the base is the compute-optimal size for U: U_N = min(N, G (U G)^(beta/alpha)),
    G = (alpha A / (beta B))^(1/(alpha+beta)), and N' = U_N + U_N R_N (1 - exp(-(N/U_N - 1) / R_N)).

    Source: Muennighoff et al. 2023 (arXiv 2305.16264), eq. 5 and 6; R_D 15.39, R_N 5.31 there.
    """
    repeats = xp.maximum(tokens / unique - 1, 0.0)
    data = xp.minimum(tokens, unique) * (1 + R_D * -xp.expm1(-repeats / R_D))
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    base = xp.minimum(params, G * (unique * G) ** (beta / alpha))
    size = base * (1 + R_N * -xp.expm1(-(params / base - 1) / R_N))
    return E + A / size**alpha + B / data**beta
