"""Whether the declared fields can be trained at all: each complaint is one sentence with the closest known name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from isoflop.levers.train._activations import activation_names
from isoflop.levers.train._rules import Place
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
    _check_design(lever)
    _check_options(lever)


def _check_options(lever: Train) -> None:
    """What micro-batches and a growing batch ask of the other fields."""
    options, windows = lever.options, lever.batch_tokens // lever.context
    if options.noise_every and windows % options.micro_batches:
        raise ValueError(
            f"a batch of {windows} windows (batch_tokens / context) cannot be taken in {options.micro_batches} "
            "micro_batches of one size"
        )
    if options.adaptive and lever.schedule != "cosine":
        raise ValueError('batch = "adaptive" needs schedule = "cosine": runs of several lengths have no common trunk')


def _check_design(lever: Train) -> None:
    """Names, and what unit scaling and untied tables ask of the other fields."""
    design = lever.design
    known(design.activation, activation_names(), what="activation")
    embedding, readout = (
        design.rule(Place(role, 64, 64, width=64, base_width=design.base_width)) for role in ("embedding", "readout")
    )
    if lever.tied and (embedding.std, embedding.lr, embedding.unit) != (readout.std, readout.lr, False):
        raise ValueError(f"parametrisation {design.parametrisation!r} needs untied tables: set tied = false")
    if embedding.unit and lever.clip != float("inf"):
        raise ValueError(
            f"parametrisation {design.parametrisation!r} gives gradients of size one, which clip = {lever.clip:g} "
            "would shrink at every step: set clip = inf"
        )


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
