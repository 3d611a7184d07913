from isoflop import meter
from isoflop.meters._checks import flags, matrix


@meter("premise_auroc", per="run", stack=("x",))
def scaling_premise(x, known, *, percentile=85.0):
    """premise_auroc = P(S of a known row > S of another row), S = sum x / sum of the largest (100 - percentile) % of x

    Whether out-of-distribution scores that scale features by S (SCALE, ASH-S) can help: only above one half. x_1, x_2,
    ...: the features in front of the last linear layer, at least 0; known: 1 for rows like the training data, 0 for
    stand-ins such as the same inputs with their parts shuffled. says: the answer in words.

    Source: Xu et al. 2024 (SCALE, arXiv 2310.00227), whose premise it is; the check is ours. Raises ValueError for
    features below 0, or without rows of both kinds.
    """
    from isoflop.levers.activations.ood._premise import premise

    (features,), (is_known,) = matrix("scaling_premise", x=x), flags("scaling_premise", known=known)
    if (features < 0).any() or is_known.all() or not is_known.any():
        raise ValueError("scaling_premise: give features of at least 0, and rows with known 1 as well as 0")
    held = premise(features[is_known], features[~is_known], percentile=percentile)
    return {"premise_auroc": held.auroc, "says": str(held), "rows": len(features)}
