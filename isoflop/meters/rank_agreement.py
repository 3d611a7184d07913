from isoflop import meter
from isoflop.meters._checks import numbers
from isoflop.meters._tabular import weighted_tau


@meter("tau", per="run")
def rank_agreement(score, predicted):
    """weighted Kendall tau of predicted with score, pairs near the top weighing more

    How well a prediction orders what was measured: 1 where the order is the same, -1 where it is turned round, 0 for no
    relation. A pair weighs 1 / (1 + rank) of both its members, and the ranks are taken by score and by prediction in
    turn.

    Source: Vigna 2015, the weighted tau that TimeTic (arXiv 2509.23695) reports. Raises ValueError for fewer than 3
    rows or where either column is constant.
    """
    truth, guess = numbers("rank_agreement", least=3, score=score, predicted=predicted)
    if truth.min() == truth.max() or guess.min() == guess.max():
        raise ValueError("rank_agreement: score or predicted is the same in every row")
    return {"tau": weighted_tau(truth, guess), "rows": len(truth)}
