import numpy as np

from isoflop import meter
from isoflop.meters._checks import flags, matrix, setting
from isoflop.meters._transport import class_distances, negligible, squared_distances, transport

_MOST = 4_000_000  # entries of the cost matrix: 32 MB, seconds


@meter("ot_distance", per="run", stack=("x",))
def ot_distance(x, target, label=None, data=None, *, tolerance=0.01):
    """OT = min over plans of sum_ij P_ij (|x_i - x'_j|^2 + W^2(class of i, class of j))

    The optimal-transport distance between training points (`target` 0) and those they should serve (`target` 1), each
    set weighed evenly; x_1, x_2, ... are features or embeddings. With `label` the distance of two classes, taken as
    Gaussians, is added, so that the distance knows what belongs together. low and high are proved bounds, within
    `tolerance` of each other; ot_distance is high, the cost of a plan that was found.

    With `data`, the source that a training point comes from: gradient_<source>, how the distance changes as that source
    is given more weight and all others less: the mean dual potential of its points less that of the others'. Draw more
    from where it is lowest.

    Exact transport is a linear programme; Sinkhorn's steps in the log domain are used for want of a solver in the core,
    and the bounds say what that costs. Source: Kang et al. 2023, projektor (arXiv 2307.02460), read from its code;
    class distances of Gaussians as in Alvarez-Melis and Fusi 2020 (arXiv 2002.02923) and their code. Raises ValueError
    where one side has no point, for more than 4 million pairs of points, or where the bounds do not meet.
    """
    (points,), (side,) = matrix("ot_distance", least=2, x=x), flags("ot_distance", target=target)
    setting("ot_distance", 0 < tolerance < 1, "tolerance", "between 0 and 1", tolerance)
    here, there = points[~side], points[side]
    if not len(here) or not len(there):
        raise ValueError("ot_distance needs rows with target 0 and rows with target 1")
    if len(here) * len(there) > _MOST:
        raise ValueError(f"ot_distance: {len(here)} by {len(there)} points are too many; take a sample of each")
    cost = squared_distances(here, there)
    if label is not None:
        of = np.asarray(label).astype(str)
        cost = cost + class_distances(here, of[~side], there, of[side])
    low, high, potential = transport(cost, tolerance)
    if high - low > tolerance * max(high, negligible(cost)):
        raise ValueError(f"ot_distance lies from {low:g} to {high:g}; ask for a larger tolerance or give fewer points")
    found = {"ot_distance": high, "low": low, "high": high, "training": len(here), "targets": len(there)}
    return found | ({} if data is None else _gradients(potential, np.asarray(data).astype(str)[~side]))


def _gradients(potential, source):
    names = np.unique(source)
    if len(names) < 2:
        return {}
    return {f"gradient_{k}": float(potential[source == k].mean() - potential[source != k].mean()) for k in names}
