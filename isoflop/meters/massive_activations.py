import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers


@meter("massive", per="run")
def massive_activations(activation, *, above=100.0, times=1000.0):
    """massive = number of |a| > above and |a| >= times the median of |a|

    Activations of one layer's hidden state (a row each; take layers with `by`) that are far beyond all others and act
    as biases. ratio: the largest over the median; top: the largest magnitude.

    Source: Sun et al. 2024, Massive Activations (arXiv 2402.17762), section 2: magnitude above 100 and about 1000 times
    the median. Raises ValueError where the median is 0 (a sparse activation: take the hidden state before it).
    """
    size = np.abs(numbers("massive_activations", least=2, activation=activation)[0])
    middle = float(np.median(size))
    if middle == 0:
        raise ValueError("massive_activations: the median magnitude is 0, so that nothing can be compared with it")
    many = int(((size > above) & (size >= times * middle)).sum())
    top = float(size.max())
    return {"massive": many, "ratio": top / middle, "top": top, "median": middle, "rows": len(size)}
