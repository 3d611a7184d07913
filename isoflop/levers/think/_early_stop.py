"""Voting that stops early, replayed: what it hands out and how many samples it needs, over random orders."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from isoflop.levers.think._estimators import log_factorials
from isoflop.levers.think._votes import _payout, _shares, blocks, standard_error

Array = np.ndarray
RULES = ("beta", "overtake", "kinds")
_FOLLOWED = 20
_CLOSE = 64  # up to here a look after every sample, then one every sixteenth of those drawn
_LONG = 256
_CELLS = 700_000


def early_stop(
    codes: Array, right: Array, caps: Any, *, rule: str = "beta", risk: float = 0.05, orders: int = 200,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Majority vote that stops by a sequential test, with at most `caps` samples

    rule: "beta" stops when P(the leader's share against the runner-up < 1/2) <= risk under a uniform prior, Aggarwal et
    al. 2023 (arXiv 2305.11860); "overtake" when P(the runner-up leads after all of the cap) <= risk (caps to 64);
    "kinds" when P(another answer leads then) is, all answers followed (the strategy `adaptive`; caps to 20). A lead
    that the rest of the cap cannot make up always stops. Beyond 64 samples the test looks every sixteenth of the
    samples drawn. codes: (problems, n) answers as numbers, -1 for none; right:
    (problems, n). Returns right, samples drawn, and the Monte Carlo standard error of right; (problems, caps).
    """
    caps_ = np.asarray(caps, int)
    if rule not in RULES or not 0 <= risk <= 1:
        raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}, and risk={risk:g} from 0 to 1")
    if caps_.min() < 1 or caps_.max() > codes.shape[1]:
        raise ValueError(f"k={caps_.max()} must be from 1 to the {codes.shape[1]} samples of a problem")
    most = {"overtake": _CLOSE, "kinds": _FOLLOWED}.get(rule, codes.shape[1])
    if caps_.max() > most:
        raise ValueError(f"rule {rule!r} is for at most {most} samples; use 'beta'")
    share = _shares(codes, right)
    out = np.zeros((3, len(codes), len(caps_)))
    for part in (caps_ <= _LONG, caps_ > _LONG):  # few orders serve the long caps, many the short ones
        if part.any():
            out[:, :, part] = _replay_caps(codes, share, caps_[part], rule, risk, orders, rng)
    one = caps_ == 1  # nothing to be drawn: every sample once
    out[0][:, one], out[2][:, one] = np.where(codes >= 0, right, 0).mean(1)[:, None], 0.0
    return out[0], out[1], out[2]


def _replay_caps(
    codes: Array, share: Array, caps: Array, rule: str, risk: float, orders: int, rng: np.random.Generator
) -> Array:
    height, width, most = len(codes), share.shape[1], int(caps.max())
    repeats = int(np.clip(_CELLS // (height * most), min(6, orders), orders))
    order = blocks(codes.shape[1], most, repeats, rng)
    out = np.zeros((3, height, len(caps)))
    step = max(1, _CELLS // (repeats * max(width, most)))
    for start in range(0, height, step):
        rows = slice(start, start + step)
        out[:, rows] = _replay_rows(codes[rows], share[rows], caps, rule, risk, order)
    return out


def _replay_rows(codes: Array, share: Array, caps: Array, rule: str, risk: float, order: Array) -> Array:
    repeats, width, lines = len(order), share.shape[1], len(codes) * len(order)
    votes = np.take(codes, order, axis=1).reshape(lines, -1)
    problem = np.repeat(np.arange(len(codes)), repeats)
    value, drawn = np.zeros((lines, len(caps))), np.zeros((lines, len(caps)))
    alive, totals, seen = np.arange(lines), np.zeros((lines, width + 2)), 0
    open_ = np.ones((lines, len(caps)), bool)
    for look in _looks(caps):
        part = votes[alive, seen:look]
        flat = np.arange(len(alive))[:, None] * (width + 2) + part + 1
        totals += np.bincount(flat.ravel(), minlength=totals.size).reshape(totals.shape)
        seen = look
        top = np.partition(totals[:, 1:], width - 1, axis=1)[:, -2:]
        lead, second = top[:, 1], top[:, 0]
        left = caps - look
        stop = open_ & ((lead - second)[:, None] > left)
        stop |= open_ & (left == 0)
        stop |= open_ & (left >= 0) & _test(rule, risk, lead, second, totals[:, 1:], left)
        if stop.any():
            won = _payout(totals[:, 1 : width + 1], share[problem[alive]], "even")
            i, j = np.nonzero(stop)
            value[alive[i], j], drawn[alive[i], j] = won[i], look
            open_ &= ~stop
            going = open_.any(1)
            alive, totals, open_ = alive[going], totals[going], open_[going]
        if not len(alive):
            break
    by_problem = (len(codes), repeats, len(caps))
    value, drawn = value.reshape(by_problem), drawn.reshape(by_problem)
    error = standard_error(np.moveaxis(value, 1, 2))
    return np.stack([value.mean(1), drawn.mean(1), error])


def _looks(caps: Array) -> list[int]:
    looks, at = set(caps.tolist()), 1
    while at < caps.max():
        looks.add(at)
        at += max(1, at // 16) if at >= _CLOSE else 1
    return sorted(looks)


def _test(rule: str, risk: float, lead: Array, second: Array, votes: Array, left: Array) -> Array:
    """Whether the rule stops; (lines, 1) or (lines, caps)."""
    if rule == "beta":
        return (below_half(lead.astype(int), second.astype(int)) <= risk)[:, None] & (lead > 0)[:, None]
    if rule == "kinds":
        return _followed(-np.sort(-votes, axis=1)[:, :_FOLLOWED].astype(int), left) <= risk
    from isoflop.levers.think.adaptive import overtaken

    state = np.stack([lead, second, votes.sum(1) - lead - second]).astype(int)
    unique, place = np.unique(state, axis=1, return_inverse=True)
    chance = [[overtaken(*map(int, s), left=int(x)) if x >= 0 and s[0] else 1.0 for x in left] for s in unique.T]
    return np.array(chance)[place.ravel()] <= risk


def _followed(votes: Array, left: Array) -> Array:
    """`adaptive.not_last` of each line at each cap; votes: most first. (lines, caps)."""
    from isoflop.levers.think.adaptive import not_last

    unique, place = np.unique(votes, axis=0, return_inverse=True)
    seen = [tuple(int(v) for v in row if v) for row in unique]
    chance = [[not_last(row, left=int(x)) if x >= 0 and row else 1.0 for x in left] for row in seen]
    return np.array(chance)[place.ravel()]


def below_half(lead: Array, second: Array) -> Array:
    """P(p < 1/2) for p ~ Beta(lead + 1, second + 1): P(Bin(lead + second + 1, 1/2) > lead), a normal tail from 512."""
    trials = lead + second + 1
    small = trials < 512
    out = np.zeros(len(lead))
    out[small] = _tails()[trials[small], lead[small]]
    if not small.all():
        z = (lead[~small] + 0.5 - trials[~small] / 2) / np.sqrt(trials[~small] / 4)
        out[~small] = 0.5 * np.array([math.erfc(x / math.sqrt(2)) for x in z])
    return out


@lru_cache(maxsize=1)
def _tails() -> Array:
    """[t, x]: P(Bin(t, 1/2) > x), t < 512."""
    t, x = np.arange(512)[:, None], np.arange(513)
    ln = log_factorials(512)
    chance = np.where(x <= t, np.exp(ln[t] - ln[np.minimum(x, t)] - ln[np.maximum(t - x, 0)] - t * math.log(2)), 0.0)
    return np.cumsum(chance[:, ::-1], axis=1)[:, ::-1][:, 1:]
