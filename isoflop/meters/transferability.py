import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, numbers
from isoflop.meters._tabular import predict


@meter("transferability", stack=("x",))
def transferability(score, data, x, *, method="kernel"):
    """score(model, data set) predicted from what all other data sets showed, features x in, no training run

    Which model will be best after fine-tuning: one row for a model and a data set, with features of both (x_1, x_2,
    ...: sizes, the model's score without tuning, seasonality, entropies of its layers, ...) and, where it was tuned,
    its `score`. Rows of a data set are predicted from the known rows of the other data sets alone, those without a
    score too: the prediction is in context, as in a tabular foundation model, and never sees its own data set.
    rank_agreement says how well the order came out.

    method: "kernel" (Gaussian-kernel ridge, its settings by leave-one-out: light, and the default), "knn" (5 nearest),
    or "tabpfn", the kind of tabular foundation model that the paper uses, where that package is installed; in Python
    any object with fit and predict.

    Source: Yao et al. 2025, TimeTic (arXiv 2509.23695), abstract; its features of series are the
    user's to bring. Raises ValueError for fewer than 2 data sets, or fewer than 5 known rows outside one of them.
    """
    (features,) = matrix("transferability", least=6, x=x)
    y, sets = np.asarray(score, float), np.asarray(data).astype(str)
    known = ~np.isnan(y)
    numbers("transferability", score=y[known])
    out = np.empty(len(y))
    for name in np.unique(sets):
        here = sets == name
        others = known & ~here
        if others.sum() < 5:
            raise ValueError(f"transferability needs at least 5 scores outside data set {name!r}, got {others.sum()}")
        out[here] = predict(method, features[others], y[others], features[here])
    return out
