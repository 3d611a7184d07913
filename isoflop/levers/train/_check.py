"""Whether the declared fields can be trained at all: each complaint is one sentence with the closest known name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from isoflop.levers.train._schedule import DECAYS, SCHEDULES
from isoflop.levers.train._text import SOURCES

if TYPE_CHECKING:
    from isoflop.levers.train import Train

SIZE_KEYS = ("width", "depth", "heads")
LR_KEYS = ("base", "width", "power")


def known(name: str, among: Iterable[str], *, what: str) -> None:
    """Raise ValueError where `name` is not `among` the known ones."""
    among = list(among)
    if name in among:
        return
    close = difflib.get_close_matches(name, among, n=1, cutoff=0.5)
    raise ValueError(f"unknown {what} {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"known: {among}"))


def check(lever: Train) -> None:
    """Raise ValueError for the first field that cannot be."""
    known(lever.source, SOURCES, what="source")
    known(lever.schedule, SCHEDULES, what="schedule")
    known(lever.decay, DECAYS, what="decay")
    settings = inspect.signature(SOURCES[lever.source]).parameters
    for key in lever.source_settings:
        known(key, settings, what=f"key in source_settings of {lever.source!r}")
    for name, parameter in settings.items():
        if parameter.default is parameter.empty and name not in lever.source_settings:
            raise ValueError(f"source {lever.source!r} needs {name} in source_settings")
    _check_tables(lever)
    _check_numbers(lever)


def _check_tables(lever: Train) -> None:
    for size in lever.sizes:
        for key in size:
            known(key, SIZE_KEYS, what="key in sizes")
        if missing := [key for key in SIZE_KEYS[:2] if key not in size]:
            raise ValueError(f"a size lacks {missing[0]!r}: {size}")
    for key in lever.lr:
        known(key, LR_KEYS, what="key in lr")
    if missing := [key for key in LR_KEYS if key not in lever.lr]:
        raise ValueError(f"lr lacks {missing[0]!r}; peak rate = base (width of the model / width)^-power")
    for name, wanted in (("tokens_per_param", 2), ("betas", 2)):
        if len(getattr(lever, name)) != wanted:
            raise ValueError(f"{name} is {getattr(lever, name)!r}, and should be {wanted} numbers")


def _check_numbers(lever: Train) -> None:
    positive = ("context", "batch_tokens", "warmup_steps", "eval_tokens", "curve_tokens", "clip", "repeats")
    for name in positive:
        if getattr(lever, name) <= 0:
            raise ValueError(f"{name} is {getattr(lever, name)!r}, and should be above 0")
    if lever.batch_tokens % lever.context:
        raise ValueError(f"batch_tokens {lever.batch_tokens} is not a multiple of context {lever.context}")
    for name in ("eval_tokens", "curve_tokens"):
        if getattr(lever, name) < 2 * lever.context:
            raise ValueError(f"{name} {getattr(lever, name)} is less than two windows of context {lever.context}")
    if not 0 < lever.decay_fraction < 1 or not 0 <= lever.decay_to < 1:
        raise ValueError(f"decay_fraction {lever.decay_fraction} and decay_to {lever.decay_to} should be below 1")
    if bad := [v for v in (*lever.budgets, *lever.tokens) if not 0 < v < float("inf")]:
        raise ValueError(f"{'budgets' if bad[0] in lever.budgets else 'tokens'} hold {bad[0]!r}; give positive numbers")
