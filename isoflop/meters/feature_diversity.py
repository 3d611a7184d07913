import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("diversity", per="run", stack=("x",))
def feature_diversity(x, *, s=1.0):
    """diversity = 1 / mean over pairs of |u_i - u_j|^-s, u = x / |x|

    How evenly the features of one layer fill the sphere: the inverse of their hyperspherical energy; a row a feature
    vector (x_1, x_2, ...), layers by `by`. Up to the dimension's largest value (near sqrt 2 for s = 1 in many
    dimensions); 0 where two features are the same.

    Source: hyperspherical energy as the diversity of Chen et al. 2021 (arXiv 2104.02290, from memory), which Malviya
    and Sudhakar 2022 (arXiv 2209.01275) track in self-supervised nets; that they use this very form is unverified.
    Raises ValueError for a feature of length 0.
    """
    (points,) = matrix("feature_diversity", least=2, x=x)
    setting("feature_diversity", s > 0, "s", "above 0", s)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError("feature_diversity: a feature has length 0")
    points = points / length
    first, second = np.triu_indices(len(points), 1)
    apart = np.sqrt(np.maximum(2.0 - 2.0 * (points @ points.T)[first, second], 0.0))
    same = (apart < 1e-7).any()
    return {"diversity": 0.0 if same else float(1.0 / np.mean(apart**-s)), "rows": len(points)}
