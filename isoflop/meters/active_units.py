import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("active_units", per="run", stack=("x",))
def active_units(x, *, dormant=0.0):
    """active_units = mean over inputs of the share of units with x > 0

    The plasticity of a layer of rectified units: x_1, x_2, ... are their activations, a row an input. A critic that
    loses active units stops learning. dormant_share: units whose mean magnitude is at most `dormant` of the layer's
    mean (0: units that never fire).

    Source: the fraction of active units (FAU) of Ma et al. 2024 (Plasticity in visual RL, arXiv 2310.07418);
    dormant units: the score of Sokar et al. 2023 (arXiv 2302.12902).
    """
    (units,) = matrix("active_units", x=x)
    setting("active_units", dormant >= 0, "dormant", "0 or more", dormant)
    size = np.abs(units).mean(axis=0)
    quiet = size <= dormant * size.mean()
    return {"active_units": float((units > 0).mean()), "dormant_share": float(quiet.mean()), "units": units.shape[1],
            "rows": len(units)}  # fmt: skip
