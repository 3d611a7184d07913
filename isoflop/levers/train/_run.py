"""One run of the train lever: take up what is cached, go on along the trunk, cool down, and write the row."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isoflop._lever import RunFailed
from isoflop.levers.train._loop import (
    Diverged,
    HeldOut,
    Settings,
    State,
    load_state,
    save_state,
    start,
    stored_steps,
    train,
)
from isoflop.levers.train._noise_scale import noise_columns
from isoflop.levers.train._options import OPTION_FIELDS
from isoflop.levers.train._schedule import decay_start, even_points, log_points, rate
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._watch import went_wrong

if TYPE_CHECKING:
    from isoflop.levers.train import Train


@dataclass(frozen=True)
class Plan:
    """Everything about one run that is known before it starts; steps are optimizer steps."""

    lever: Train
    setting: dict[str, Any]
    shape: Shape
    settings: Settings
    steps: int
    decay_start: int
    peak: float

    @property
    def shared(self) -> int:
        """Steps that runs of other lengths have in common with this one."""
        return self.decay_start if self.lever.schedule == "wsd" else 0

    @property
    def trunk(self) -> str:
        """Name of what runs of one size and seed share: a hash of everything that decides the trunk's numbers."""
        wsd = self.lever.schedule == "wsd"
        free = {f.name for f in fields(self.lever) if f.metadata.get("ladder")}
        free |= {"decay", "decay_fraction", "decay_to"} if wsd else set()
        held = {f.name: getattr(self.lever, f.name) for f in fields(self.lever) if f.name not in free}
        held = {name: value for name, value in held.items() if value is not None}  # None: as before there was a choice
        size = [self.shape.width, self.shape.depth, self.shape.heads]
        own = [] if wsd else [self.steps]
        key = [held, self.settings.device, self.settings.seed, own, *size, self.lever.facts()["sha256"]]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
        return f"w{self.shape.width}-d{self.shape.depth}-s{self.settings.seed}-{digest}"

    @property
    def rate(self) -> Callable[[int], float]:
        """Learning rate of a step counted from 0."""
        lever = self.lever
        return partial(
            rate, peak=self.peak, steps=self.steps, warmup_steps=lever.warmup_steps, decay_start=self.decay_start,
            schedule=lever.schedule, decay=lever.decay, decay_to=lever.decay_to,
        )  # fmt: skip


def run(lever: Train, setting: dict[str, Any], *, seed: int, cache: Path | None) -> dict[str, Any]:
    """See `Train.run`."""
    plan = make_plan(lever, setting, seed=seed)
    held_out = HeldOut(lever.text, plan.settings)
    state = _take_up(plan, cache)
    try:
        _advance(plan, state, held_out, cache)
    except Diverged as error:
        raise RunFailed(str(error), row=_row(plan, state)) from error
    return _finish(plan, state, held_out, cache)


def make_plan(lever: Train, setting: dict[str, Any], *, seed: int) -> Plan:
    """The plan of one run. Raises ValueError where the run is too short for its warmup."""
    steps = max(1, round(setting["tokens"] / lever.batch_tokens))
    decay = decay_start(
        steps, schedule=lever.schedule, decay_fraction=lever.decay_fraction, warmup_steps=lever.warmup_steps
    )
    if decay < lever.warmup_steps:
        raise ValueError(
            f"{setting['tokens']} tokens are {steps} steps of batch_tokens={lever.batch_tokens}: too few for "
            f"warmup_steps={lever.warmup_steps} and the decay; train longer, or lower one of the two"
        )
    settings = Settings(
        context=lever.context, batch_tokens=lever.batch_tokens, betas=(lever.betas[0], lever.betas[1]), clip=lever.clip,
        weight_decay=lever.weight_decay, eval_tokens=lever.eval_tokens, curve_tokens=lever.curve_tokens,
        checkpoint_seconds=lever.checkpoint_seconds, device=pick_device(lever.device), seed=seed,
        options=lever.options,
    )  # fmt: skip
    peak = lever.peak_rate(setting["width"])
    return Plan(lever, setting, lever.shape(setting), settings, steps=steps, decay_start=decay, peak=peak)


def pick_device(name: str) -> str:
    """ "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _folders(plan: Plan, cache: Path) -> tuple[Path, Path]:
    """Where the trunk's states and this run's own are kept."""
    return cache / plan.trunk / "trunk", cache / plan.trunk / _owner(plan)


def _owner(plan: Plan) -> str:
    return f"steps-{plan.steps}"


def _take_up(plan: Plan, cache: Path | None) -> State:
    """The furthest stored state that lies on this run's way, or a new one."""
    if cache is not None:
        trunk, own = _folders(plan, cache)
        stored = {s: p for s, p in stored_steps(trunk).items() if s <= plan.shared} | stored_steps(own)
        if stored:
            return load_state(stored[max(stored)], plan.shape, plan.settings, owner=_owner(plan))
    return start(plan.shape, plan.settings)


def _advance(plan: Plan, state: State, held_out: HeldOut, cache: Path | None) -> None:
    """Along the trunk to the branch, keep it there for the longer runs, then along the decay to the end."""

    def save(branch: bool, folder: Path | None, state: State) -> None:
        if folder is not None:
            save_state(state, folder, owner=_owner(plan), branch=branch)

    trunk, own = _folders(plan, cache) if cache is not None else (None, None)
    points = log_points(plan.steps)
    go = partial(train, state, plan.lever.text, plan.settings, rate=plan.rate, held_out=held_out)
    if state.step < plan.shared:
        go(until=plan.shared, points=points, save=partial(save, False, trunk))
        save(True, trunk, state)
    cooldown = even_points(plan.shared, plan.steps) if plan.shared else sorted({*points, plan.steps})
    go(until=plan.steps, points=cooldown, save=partial(save, False, own))


def _finish(plan: Plan, state: State, held_out: HeldOut, cache: Path | None) -> dict[str, Any]:
    began = time.perf_counter()
    loss, se = held_out.measure(state.model, held_out.count)
    state.seconds += time.perf_counter() - began
    if cache is not None:
        shutil.rmtree(_folders(plan, cache)[1], ignore_errors=True)
    params = plan.shape.params
    curve = [{"params": params, **row} for row in state.curve]
    return {**_row(plan, state), "loss": loss, "loss_se": se, "train_loss": curve[-1]["train_loss"], "curve": curve}


def _row(plan: Plan, state: State) -> dict[str, Any]:
    """The row without its metrics; costs count what was trained until now."""
    lever, shape, batch = plan.lever, plan.shape, plan.settings.batch_tokens
    tokens, fresh = state.step * batch, (state.step - min(state.branch, state.step)) * batch
    facts = lever.facts()
    return {
        "params": shape.params,
        "params_nonembed": shape.params_nonembed,
        "tokens": tokens,
        "flops": 6 * shape.params * tokens,
        "flops_source": "train_flops",
        "budget_flops": plan.setting.get("budget_flops"),
        "width": shape.width,
        "depth": shape.depth,
        "heads": shape.heads,
        "vocab": shape.vocab,
        "context": lever.context,
        "batch_tokens": batch,
        "steps": plan.steps,
        "lr": plan.peak,
        "warmup_steps": lever.warmup_steps,
        "schedule": lever.schedule,
        "decay_start": plan.decay_start,
        "decay": lever.decay,
        "decay_to": lever.decay_to,
        **lever.chosen(),
        **_optional(lever, state),
        "trunk": plan.trunk,
        "tokens_trained": fresh,
        "saved_tokens": tokens - fresh,
        "epochs": tokens / lever.text.unique_tokens,
        "entropy_rate": lever.text.entropy_rate,
        "seconds": state.seconds,
        "tokens_per_second": fresh / state.seconds if state.seconds else None,
        "device": plan.settings.device,
        "source": f"isoflop sweep train, {facts['name']}",
        "data_sha256": facts["sha256"][:16],
        "torch_version": torch.__version__,
    }


def _optional(lever: Train, state: State) -> dict[str, Any]:
    """Columns that options add: their own values, the batch at the end, the noise scale, what went wrong."""
    row: dict[str, Any] = lever.chosen(OPTION_FIELDS)
    if lever.options.adaptive:
        row |= {"updates": state.updates, "last_batch_tokens": state.multiple * lever.batch_tokens}
    if lever.options.noise_every:
        row |= noise_columns(state.noise)
    return row | went_wrong(state.curve) if lever.options.watch else row
