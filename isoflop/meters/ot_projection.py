import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, numbers, positive


@meter("projected", stack=("mix",))
def ot_projection(accuracy, ot_distance, examples, mix=None):
    """acc(N) = (ln(N / N0) acc(N1) - ln(N / N1) acc(N0)) / ln(N1 / N0), acc(Ni) linear in the transport distance

    What a mixture of sources should reach, projected from pilot runs on small samples of them. Rows with an `accuracy`
    are the pilot; rows without get theirs from it. At each of the two largest pilot sizes N0 < N1 (`examples`),
    accuracy is fitted by least squares to 1, OT and, with shares mix_1, mix_2, ... of the sources, to mix, mix OT and
    mix^2 OT; from there to any size the projection has no parameter: it is straight in ln N. Pilot rows get what was
    fitted. Far beyond the pilot the line leaves 0 to 1: it is not cut, so that this shows.

    Measure all distances on samples of one size, those of the rows to be projected too: the distance of two samples
    depends on how many points they have.

    Source: Kang et al. 2023, projektor (arXiv 2307.02460): both stages as in its code. Raises ValueError where fewer
    than two sizes have pilot rows enough for the fit.
    """
    distance, size = positive("ot_projection", ot_distance=ot_distance, examples=examples)
    y, terms = np.asarray(accuracy, float), [np.ones_like(distance), distance]
    if mix is not None:
        shares = matrix("ot_projection", mix=mix)[0].T[:-1]  # they sum to 1: the last says nothing more
        terms += [t for share in shares for t in (share, share * distance, share**2 * distance)]
    x, known = np.stack(terms, axis=1), ~np.isnan(y)
    numbers("ot_projection", accuracy=y[known])
    pilot = [n for n in np.unique(size[known]) if (known & (size == n)).sum() >= x.shape[1]]
    if len(pilot) < 2:
        raise ValueError(f"ot_projection needs two sizes with at least {x.shape[1]} rows of known accuracy each, "
                         f"got {len(pilot)}")  # fmt: skip
    small, large = pilot[-2:]
    first, second = (_fitted(x, y, known & (size == n)) for n in (small, large))
    return (np.log(size / small) * second - np.log(size / large) * first) / np.log(large / small)


def _fitted(x, y, rows):
    return x @ np.linalg.lstsq(x[rows], y[rows], rcond=None)[0]
