from isoflop import law, positive


@law(target="env_steps")
def utd_width(
    utd,
    critic_params,
    *,
    D_min=positive(0.01, 1, like="target"),
    a=positive(1, 1e12),
    alpha=positive(0.1, 3),
    b=positive(1e2, 1e14),
    beta=positive(0.1, 3),
):
    """D(s, N) = D_min + a / s^alpha + b / N^beta

    Environment steps that value-based RL takes to a set return, at s gradient updates a step and a critic of N
    parameters. utd: s; critic_params: N. The paper writes the terms as (a/s)^alpha and (b/N)^beta.

    Source: Fu et al. 2025 (arXiv 2508.14881), fit of data efficiency, as in the authors' code.
    """
    return D_min + a * utd**-alpha + b * critic_params**-beta
