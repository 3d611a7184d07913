import numpy as np

from isoflop import meter
from isoflop.meters._checks import flags, level_setting, wilson


@meter("gain", per="run")
def verification_gain(correct, accepted, *, level=90.0):
    """gain = p TPR / (p TPR + (1 - p)(1 - TNR)) - p

    What a verifier does to accuracy when only the answers that it accepts are kept: p is the share of correct answers
    before, TPR the share of correct ones that it accepts, TNR of wrong ones that it rejects. Take it by difficulty, by
    generator and by verifier (`by`) to see which of them matters. Intervals of the rates are Wilson's, answers taken as
    independent; several samples of one problem are not, and their intervals are too narrow.

    Returns gain (nan where nothing is accepted), before, after, tpr, tnr, each rate with _low and _high, accepted
    (share) and rows.

    Source: Zhou et al. 2025 (Variation in Verification, arXiv 2509.17995): the rates it
    reports; the gain is Bayes' rule.
    """
    right, kept = flags("verification_gain", correct=correct, accepted=accepted)
    level_setting("verification_gain", level)
    n, good = len(right), int(right.sum())
    rates = {"tpr": (int((right & kept).sum()), good), "tnr": (int((~right & ~kept).sum()), n - good)}
    found: dict[str, float] = {}
    for name, (hits, of) in rates.items():
        low, high = wilson(hits, of, level)
        found |= {name: hits / of if of else np.nan, f"{name}_low": low, f"{name}_high": high}
    before, after = good / n, float(right[kept].mean()) if kept.any() else np.nan
    return {
        "gain": after - before,
        "before": before,
        "after": after,
        **found,
        "accepted": float(kept.mean()),
        "rows": n,
    }
