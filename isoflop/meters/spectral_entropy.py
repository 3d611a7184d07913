import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix


@meter("spectral_entropy", per="run", stack=("x",))
def spectral_entropy(x):
    """H = - sum p_i ln p_i, p_i = lambda_i / sum lambda, lambda the eigenvalues of the covariance of x

    How many directions the embeddings of one layer fill: x_1, x_2, ..., a row a token or sample; take layers with `by`
    for the profile over depth that tells models apart. effective_rank = exp(H), from 1 to the dimension; relative = H
    over its largest value, ln of the dimension.

    Source: the entropy profile of TimeTic (arXiv 2509.23695), its estimator unverified; effective rank of Roy and
    Vetterli 2007. Raises ValueError where all rows are the same.
    """
    (points,) = matrix("spectral_entropy", least=2, x=x)
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    if values.sum() <= 1e-24 * max(float((points**2).sum()), 1e-300):
        raise ValueError("spectral_entropy: all rows are the same")
    p = values / values.sum()
    p = p[p > 0]
    found = float(-(p * np.log(p)).sum())
    width = points.shape[1]
    return {"spectral_entropy": found, "effective_rank": float(np.exp(found)),
            "relative": found / np.log(width) if width > 1 else np.nan, "rows": len(points)}  # fmt: skip
