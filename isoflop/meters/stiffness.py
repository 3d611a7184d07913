import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, numbers, setting


@meter("stiffness", per="run", stack=("x",))
def stiffness(x, layer, sample=None):
    """stiffness = max over layers t of |f_(t+1) - f_t| / |f_t|, f_t = x_(t+1) - x_t

    How suddenly a residual stream turns, layers read as steps of an equation x' = f(x): for a linear one it is the step
    times the largest rate that is felt, and above 2 such a mode grows from layer to layer instead of settling. x_1,
    x_2, ... are the stream before, between and after the layers, a row for each `layer` (0, 1, ...) of each `sample`
    (token); lengths are root sums of squares over samples. Returns stiffness, layer: the t + 1 it is found at, its mean
    over layers, and the numbers of layers and samples.

    Source: the question is that of Huang et al. 2023 (arXiv 2308.09939); the estimate is that of stiffness detection
    in Runge-Kutta codes (Hairer and Wanner 1996, section IV.2), their own index was not found. Raises ValueError for
    fewer than 2 layers, samples that lack a layer, or a layer that changes nothing.
    """
    (stream,), (depth,) = matrix("stiffness", x=x), numbers("stiffness", layer=layer)
    of = np.zeros(len(depth), int) if sample is None else np.unique(np.asarray(sample), return_inverse=True)[1]
    depths, place = np.unique(depth, return_inverse=True)
    setting("stiffness", len(depths) >= 3, "layer", "of 3 values or more (before, between, after)", len(depths))
    whole = np.full((len(depths), of.max() + 1, stream.shape[1]), np.nan)
    whole[place, of] = stream
    if np.isnan(whole).any() or len(stream) != whole.shape[0] * whole.shape[1]:
        raise ValueError("stiffness needs one row for each layer of each sample")
    steps = np.diff(whole, axis=0)
    sizes = np.sqrt((steps[:-1] ** 2).sum(axis=(1, 2)))
    if not sizes.all():
        raise ValueError(f"stiffness: layer {depths[int(np.argmin(sizes))]:g} changes nothing")
    rates = np.sqrt((np.diff(steps, axis=0) ** 2).sum(axis=(1, 2))) / sizes
    top = int(np.argmax(rates))
    return {"stiffness": float(rates[top]), "layer": float(depths[top + 1]), "mean": float(rates.mean()),
            "layers": len(steps), "samples": whole.shape[1]}  # fmt: skip
