import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("linear_share", per="run", stack=("x", "error"))
def linear_error_share(x, error, *, folds=2, ridge=1e-6, seed=0):
    """linear_share = 1 - |error - A x|^2 / |error - mean|^2 on rows that A was not fitted to

    How much of a sparse autoencoder's error is dark matter of the simple kind: error_1, error_2, ... (input less
    reconstruction) predicted linearly from the activations x_1, x_2, ... themselves, with rows split into `folds`. The
    rest cannot be had by adding linear features. norm_r2: the same for the squared norm of the error, token by token.
    ridge: relative to the mean square of the activations.

    Source: Engels et al. 2024 (arXiv 2410.14670), linear and nonlinear error, norm prediction. Raises ValueError for
    fewer rows than twice the activations' width.
    """
    x, error = matrix("linear_error_share", x=x, error=error)
    setting("linear_error_share", folds >= 2 and ridge >= 0, "folds, ridge", "at least 2 and 0", (folds, ridge))
    if len(x) * (folds - 1) / folds < x.shape[1] + 2:
        raise ValueError(f"linear_error_share needs more rows than {x.shape[1]} activations in each fit, got {len(x)}")
    targets = {"linear_share": error, "norm_r2": (error**2).sum(axis=1, keepdims=True)}
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    found = {name: _held_out(x, y, fold, ridge) for name, y in targets.items()}
    found["error_share"] = float((error**2).sum() / (x**2).sum())
    return found | {"rows": len(x)}


def _held_out(x, y, fold, ridge):
    left = total = 0.0
    for k in np.unique(fold):
        mx, my = x[fold != k].mean(axis=0), y[fold != k].mean(axis=0)
        a = x[fold != k] - mx
        gram = a.T @ a
        slope = np.linalg.solve(
            gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), a.T @ (y[fold != k] - my)
        )
        left += float(((y[fold == k] - my - (x[fold == k] - mx) @ slope) ** 2).sum())
        total += float(((y[fold == k] - my) ** 2).sum())
    return 1.0 - left / total if total > 0 else float("nan")
