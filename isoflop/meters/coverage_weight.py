import numpy as np

from isoflop import meter
from isoflop.meters._checks import between, setting


@meter("coverage_weight")
def coverage_weight(pass_rate, samples):
    """F(N, p) = N p (1 - p)^(N - 1) / (1 - (1 - p)^N)

    The share of the cross-entropy's gradient on a right answer of probability p (`pass_rate`) that is left when it is
    pass@N (`samples`) that is trained for: -log(1 - (1 - p)^N) in place of -log p. 1 for one sample, or for an answer
    so rare that N samples miss it; near 0 once p is well above 1 / N, as more confidence then buys no coverage. A mean
    over problems near 0 says that tuning by cross-entropy goes on where coverage has nothing left to gain.

    Source: Chen et al. 2025 (arXiv 2502.07154), direct coverage optimisation; re-derived by differentiation.
    """
    (p,), (n,) = (
        between("coverage_weight", 0, 1, pass_rate=pass_rate),
        between("coverage_weight", 1, 1e12, samples=samples),
    )
    setting("coverage_weight", len(p) == len(n), "samples", "one a row", len(n))
    miss = np.log1p(-np.minimum(p, 1 - 1e-16))
    rare = n * p < 1e-9  # there F is 1 to a part in 1e9, and the ratio below is 0 / 0
    with np.errstate(divide="ignore", invalid="ignore"):
        made = n * p * np.exp((n - 1) * miss) / -np.expm1(n * miss)
    return np.where(rare, 1.0, np.where(p == 1.0, (n == 1).astype(float), made))
