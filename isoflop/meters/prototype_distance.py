import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("prototype_distance", stack=("x",))
def prototype_distance(x, *, clusters=10, rounds=50, seed=0):
    """1 - max over prototypes p of cos(x, p)

    How hard an example is, without labels: the distance of its embedding (x_1, x_2, ...) from the nearest of `clusters`
    prototypes, found by k-means on the unit sphere from a k-means++ start. Examples far from every prototype are hard.
    With many data keep the hard ones, with few the easy ones (`isoflop simulate pruned_perceptron`). The paper finds
    the number of prototypes to matter little once it is near the number of classes.

    Source: Sorscher et al. 2022 (arXiv 2206.14486), self-supervised prototype metric. Raises ValueError for an
    embedding of length 0, or fewer rows than clusters.
    """
    (points,) = matrix("prototype_distance", least=2, x=x)
    setting("prototype_distance", 1 <= clusters <= len(points), "clusters", "1 to the number of rows", clusters)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError("prototype_distance: an embedding has length 0")
    points = points / length
    centres = _spread(points, clusters, np.random.default_rng(seed))
    nearest = np.argmax(points @ centres.T, axis=1)
    for _ in range(rounds):
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        size = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(size > 1e-12, sums / np.maximum(size, 1e-12), centres)
        before, nearest = nearest, np.argmax(points @ centres.T, axis=1)
        if (before == nearest).all():
            break
    return np.maximum(1.0 - (points @ centres.T).max(axis=1), 0.0)


def _spread(points, clusters, rng):
    """First centres, each drawn in proportion to its distance from those before."""
    centres = [points[rng.integers(len(points))]]
    while len(centres) < clusters:
        far = np.maximum(1.0 - (points @ np.array(centres).T).max(axis=1), 0.0)
        even = np.full(len(points), 1.0 / len(points))
        centres.append(points[rng.choice(len(points), p=far / far.sum() if far.sum() > 1e-12 else even)])
    return np.array(centres)
