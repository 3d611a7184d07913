from isoflop import law, positive


@law(target="loss")
def lr_annealing(
    lr_area,
    anneal_area,
    *,
    L0=positive(0.1, 1, like="target"),
    A=positive(1e-3, 1e3),
    alpha=positive(0.05, 2),
    C=positive(1e-3, 1e3),
):
    """L(s) = L0 + A / S1^alpha - C S2

    The whole loss curve under any learning-rate schedule. lr_area: S1, the sum of the learning rate over the steps so
    far; anneal_area: S2, the momentum-weighted sum of its decreases (meter `lr_areas` computes both from `step`, `lr`).
    C carries the unit 1/learning rate.

    Source: Tissue et al. 2024 (arXiv 2408.11029), eq. 1.
    """
    return L0 + A / lr_area**alpha - C * anneal_area
