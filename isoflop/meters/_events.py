"""Detections against labelled events: weights by nearness, precision and recall at many thresholds at once."""

from __future__ import annotations

import numpy as np


def runs_of(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last places of the runs of True."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1


def buffer_weights(first: np.ndarray, last: np.ndarray, n: int, early: int, late: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n,) of the points before events and of those after them, 0 elsewhere.

    1 - sum_y |x - y| / sum_y |end - y| over the event's points y, end being the far end of the buffer; a buffer after
    an event stops at the next event, one before it also at the buffer of the event before.
    """
    before, after = np.zeros(n), np.zeros(n)
    middle, free = (first + last) / 2.0, 0
    following = np.append(first[1:], n)
    for s, e, m, stop in zip(first, last, middle, following, strict=True):
        start, end = max(free, s - early), min(e + late, stop - 1)
        x = np.arange(start, s)
        before[start:s] = 1.0 - (m - x) / max(m - start, 0.5)
        x = np.arange(e + 1, end + 1)
        after[e + 1 : end + 1] = 1.0 - (x - m) / max(end - m, 0.5)
        free = end + 1
    return before, after


def missed_weight(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one event: whether each threshold (rows) finds it, and the weight of the points that it misses.

    All its points count where it is not found. Else a missed point counts 1 up to the length of the first stretch that
    was found, counted from the event's start, and less with its distance from there.
    """
    length = inside.shape[1]
    found = inside.any(axis=1)
    start = inside.argmax(axis=1)
    place = np.arange(length)
    gone = ~inside & (place >= start[:, None])
    stretch = np.where(gone.any(axis=1), gone.argmax(axis=1), length) - start
    far = (stretch + 1.0)[:, None] * (place - stretch[:, None] / 2.0) / max(length * (length - 1) / 2.0, 1.0)
    weight = np.where(place <= stretch[:, None], 1.0, 1.0 - far)
    return np.asarray(found), np.where(found, (~inside * weight).sum(axis=1), float(length))


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under precision against recall from (0, 1), by trapezia; points where recall falls back are left out."""
    recall, precision = np.append(0.0, recall), np.append(1.0, precision)
    kept = recall >= np.maximum.accumulate(recall) - 1e-12  # equal up to rounding is no fall
    r, p = recall[kept], precision[kept]
    return float(np.sum(np.diff(r) * (p[1:] + p[:-1]) / 2.0))


def f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Harmonic mean, 0 where both are."""
    both = precision + recall
    return np.asarray(np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1.0), 0.0))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is."""
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0))
