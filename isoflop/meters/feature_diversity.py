import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("diversity", per="run", stack=("x",))
def feature_diversity(x, *, s=1.0):
    """diversity = (mean over pairs of |u_i - u_j|^-s)^(-1/s), exp(mean ln |u_i - u_j|) for s = 0, u = x / |x|

    How evenly the features of one layer fill the sphere: a mean distance, the more the lower their hyperspherical
    energy (the mean within); a row a feature vector (x_1, x_2, ...), layers by `by`. Near sqrt 2 in many dimensions,
    less for features that are all positive; 0 where two features are the same.

    Source: Liu et al. 2018 (arXiv 1805.09298) for the energy, which Chen et al. 2021 (arXiv 2104.02290), equation 1,
    take as the measure of how diverse features are, and Malviya and Sudhakar 2022 (arXiv 2209.01275) cite them for it;
    their s and sums could not be read. Raises ValueError for a feature of length 0.
    """
    (points,) = matrix("feature_diversity", least=2, x=x)
    setting("feature_diversity", s >= 0, "s", "at least 0", s)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError("feature_diversity: a feature has length 0")
    points = points / length
    first, second = np.triu_indices(len(points), 1)
    apart = np.sqrt(np.maximum(2.0 - 2.0 * (points @ points.T)[first, second], 0.0))
    if (apart < 1e-7).any():
        return {"diversity": 0.0, "rows": len(points)}
    distance = np.mean(apart**-s) ** (-1 / s) if s else np.exp(np.log(apart).mean())
    return {"diversity": float(distance), "rows": len(points)}
