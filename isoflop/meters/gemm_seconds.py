import numpy as np

from isoflop import meter
from isoflop.meters._checks import positive, setting


@meter("gemm_seconds")
def gemm_seconds(m, n, k, *, peak=1e12, bandwidth=1e11, item=2):
    """max(2 m n k / peak, item (m k + k n + m n) / bandwidth)

    The least time of a matrix product of m x k with k x n on a machine of `peak` FLOP/s and `bandwidth` bytes/s, `item`
    bytes a number: the roofline. peak and bandwidth are your machine's, the defaults none's in particular. A real
    kernel is slower, by tiles that do not fit; the ratio of measured seconds to these says by how much.

    Source: the roofline model of Williams et al. 2009, the rule that the learnt predictor of the catalogue's entry
    `gemm_performance_model` is to be better than; that predictor is isoflop.levers.precision._gemm.fit_gemm.
    """
    m, n, k = positive("gemm_seconds", m=m, n=n, k=k)
    setting("gemm_seconds", min(peak, bandwidth, item) > 0, "peak, bandwidth, item", "above 0", (peak, bandwidth, item))
    return np.maximum(2 * m * n * k / peak, item * (m * k + k * n + m * n) / bandwidth)
