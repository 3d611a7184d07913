from typing import Any

import numpy as np

from isoflop import law, positive


@law(target="loss")
def kaplan_steps(
    params,
    steps_min,
    *,
    Nc=positive(1e9, 1e18),
    Sc=positive(10, 1e6),
    alpha_N=positive(0.02, 1),
    alpha_S=positive(0.1, 3),
):
    """L(N, S_min) = (Nc / N)^alpha_N + (Sc / S_min)^alpha_S

    A learning curve at a batch far above the critical one. params: N, non-embedding in the paper; steps_min: S_min,
    steps that such a batch would have needed, from `minimum_steps`. Published, table 3: alpha_N .077, alpha_S .76,
    Nc 6.5e13, Sc 2.1e3.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), eq. 1.6 and table 3; refitted per setup by Su et al. 2024
    (arXiv 2403.06563).
    """
    return (Nc / params) ** alpha_N + (Sc / steps_min) ** alpha_S


def minimum_steps(steps: Any, batch: Any, *, batch_crit: Any) -> Any:
    """S_min = S / (1 + B_crit / B). batch and batch_crit in one unit.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), eq. 5.4.
    """
    return steps / (1 + batch_crit / batch)


def loss_at_batch(params: Any, steps: Any, batch: Any, *, curve: dict[str, float], B_star: float,
                  alpha_B: float) -> np.ndarray:  # fmt: skip
    """L = (Nc / N)^alpha_N + (Sc (1 + B_crit(L) / B) / S)^alpha_S, with B_crit(L) = B_star / L^(1/alpha_B)

    curve: Nc, Sc, alpha_N and alpha_S of `kaplan_steps`. The loss on both sides is found by bisection: the right side
    falls in L, so there is one root.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), eq. 1.4, 1.6 and 5.4, put together.
    """
    n, s, b = np.broadcast_arrays(*(np.asarray(v, float) for v in (params, steps, batch)))
    floor = (curve["Nc"] / n) ** curve["alpha_N"]

    def right(loss: np.ndarray) -> np.ndarray:
        return floor + (curve["Sc"] * (1 + B_star / loss ** (1 / alpha_B) / b) / s) ** curve["alpha_S"]

    low, high = floor, right(floor)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = right(middle) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 0.5 * (low + high)


def overshoot_at_optimum(*, alpha_N: float, alpha_S: float) -> float:
    """L / L_converged = 1 + alpha_N / alpha_S: where compute-efficient training stops.

    N S is least at a given L where (Nc / N)^alpha_N = L alpha_S / (alpha_N + alpha_S): about 10 % above the loss
    that this N reaches in the end.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), appendix B.
    """
    return 1 + alpha_N / alpha_S
