import numpy as np

from isoflop import meter
from isoflop.meters._checks import flags, numbers, setting
from isoflop.meters._events import area, buffer_weights, f1, missed_weight, runs_of, share


@meter("pate", per="run")
def pate(score, label, step=None, *, early=100, late=100, splits=1, thresholds=250):
    """PATE = mean over buffers of the area under weighted precision against weighted recall

    How well a detector's `score` (higher: more anomalous) finds the labelled events of one series (`label` 0 or 1, rows
    in time). A detection inside an event counts 1. One in the `late` rows after it, or in the `early` rows before it
    where the event is also found, counts w = 1 - sum_y |x - y| / sum_y |end - y| as true and 1 - w as false, y running
    over the event and end being the buffer's far end; any other is false. Points of an event that were missed count as
    missed, the late ones less where the event was found. Buffers 0, early / splits, ..., early and likewise late are
    averaged over; set them to how far off a detection may be and still be of use. Scores that are all 0 or 1: the mean
    of F1 in place of the area.

    Beside it, what it is meant to replace: auc_pr (points alone), adjusted_f1 (best F1 with a whole event found by any
    point of it), range_f1 (best F1 by ranges, existence weighed .2, flat). prevalence: the share of points in events,
    which a random score gets as auc_pr.

    Source: Ghorbani et al. 2024 (arXiv 2405.12096), read from the authors' code; all distinct scores are thresholds up
    to `thresholds`, quantiles of them beyond. range_f1: Tatbul et al. 2018 (arXiv 1803.03639). Raises ValueError where
    no point, or every point, is in an event.
    """
    (values,), (events,) = numbers("pate", least=2, score=score), flags("pate", label=label)
    for name, value in (("early", early), ("late", late)):
        setting("pate", value >= 0, name, "a number of rows, 0 or more", value)
    setting("pate", splits >= 1 and thresholds >= 2, "splits, thresholds", "at least 1 and 2", (splits, thresholds))
    if events.all() or not events.any():
        raise ValueError("pate needs rows in events and rows outside: label is the same in every row")
    first, last = runs_of(events)
    binary = set(np.unique(values)) <= {0.0, 1.0}
    cuts = np.unique(values)[::-1]
    if len(cuts) > thresholds:
        cuts = np.percentile(cuts, np.linspace(100, 0, thresholds))
    found = _counts(values >= cuts[:, None], events, first, last)
    near = [buffer_weights(first, last, len(values), int(e), int(d))
            for e in _grid(early, splits) for d in _grid(late, splits)]  # fmt: skip
    every = [_weighted(found, before, after) for before, after in near]
    pick = int(np.argmax(cuts == 1.0))
    scores = [f1(p, r)[pick] if binary else area(r, p) for p, r in every]
    plain = found["inside"]
    auc = area(plain / events.sum(), share(plain, found["hits"]))
    return {
        "pate": float(np.mean(scores)), "auc_pr": auc, "adjusted_f1": float(_adjusted(found).max()),
        "range_f1": float(_ranges(found, events).max()), "prevalence": float(events.mean()), "events": len(first),
    }  # fmt: skip


def _grid(most, splits):
    return np.linspace(0, most, splits + 1).astype(int)


def _counts(marked, events, first, last):
    """What all buffers share, by threshold (rows of `marked`)."""
    each = [missed_weight(marked[:, s : e + 1]) for s, e in zip(first, last, strict=True)]
    seen, missed = np.stack([f for f, _ in each], axis=1), np.stack([m for _, m in each], axis=1).sum(axis=1)
    following = np.searchsorted(first, np.arange(marked.shape[1]), side="left")
    ahead = np.concatenate([seen, np.zeros((len(seen), 1), bool)], axis=1)[:, following]
    cover = np.stack([marked[:, s : e + 1].mean(axis=1) for s, e in zip(first, last, strict=True)], axis=1)
    return {"marked": marked, "led": marked & ahead, "seen": seen, "missed": missed, "length": last - first + 1,
            "hits": marked.sum(axis=1).astype(float), "inside": marked[:, events].sum(axis=1).astype(float),
            "cover": cover}  # fmt: skip


def _weighted(found, before, after):
    """Precision and recall by threshold under one pair of buffers."""
    true = found["inside"] + found["marked"] @ after + found["led"] @ before
    return share(true, found["hits"]), share(true, true + found["missed"])


def _adjusted(found):
    """F1 by threshold where an event counts as found whole once a point of it is."""
    true = (found["seen"] * found["length"]).sum(axis=1)
    false = found["hits"] - found["inside"]
    return f1(share(true, true + false), true / found["length"].sum())


def _ranges(found, events, existence=0.2):
    """F1 by threshold over ranges: events covered, and predicted stretches that lie in events."""
    recall = (existence * found["seen"] + (1 - existence) * found["cover"]).mean(axis=1)
    inside = np.concatenate([[0], np.cumsum(events)])
    precision = np.empty(len(recall))
    for k, row in enumerate(found["marked"]):
        start, end = runs_of(row)
        precision[k] = ((inside[end + 1] - inside[start]) / (end + 1 - start)).mean() if len(start) else 0.0
    return f1(precision, recall)
