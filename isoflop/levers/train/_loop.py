"""The training loop: a state that can be stopped, stored and taken up again without changing a bit of what follows."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from isoflop.levers.train._batch import multiple_wanted
from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._losses import LOSSES, z_loss
from isoflop.levers.train._noise_scale import WINDOW, by_micro_batches, noise_columns
from isoflop.levers.train._optim import perp_grad
from isoflop.levers.train._options import Options
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._text import Source
from isoflop.levers.train._watch import WINDOWS, watched

CHECK_EVERY = 50  # steps between looks at whether the loss is finite; on a GPU each look waits for the device


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know beyond the shape; `context` and `batch_tokens` in tokens."""

    context: int
    batch_tokens: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    eval_tokens: int
    curve_tokens: int
    checkpoint_seconds: float
    device: str
    seed: int
    options: Options = field(default_factory=Options)

    @property
    def count(self) -> int:
        return self.batch_tokens // self.context


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass
class State:
    """A model on its way: parameters, moments, and the JSON facts that travel with them.

    step: batches of batch_tokens done; updates: optimizer steps, as many unless batches grow; multiple: how many
    of those batches the next one takes; branch: the last step at which another row had left this trunk (0 for none);
    seconds: wall time since then; loss_sum over loss_count steps since the last curve row; curve: its rows;
    noise: the latest measurements for the noise scale.
    """

    model: GPT
    optimizer: torch.optim.Optimizer
    loss_sum: Tensor
    step: int = 0
    branch: int = 0
    seconds: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    updates: int = 0
    multiple: int = 1
    noise: list[list[float]] = field(default_factory=list)


def start(shape: Shape, settings: Settings) -> State:
    """A model at step 0, a pure function of (shape, seed)."""
    model = GPT(shape, context=settings.context, seed=settings.seed).to(settings.device)
    groups = model.groups(weight_decay=settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=1e-8, fused=True)
    return State(model, optimizer, loss_sum=torch.zeros((), device=settings.device))


def train(
    state: State,
    source: Source,
    settings: Settings,
    *,
    until: int,
    rate: Callable[[int], float],
    points: list[int],
    held_out: HeldOut,
    save: Callable[[State], None],
) -> None:
    """Advance `state` to step `until`; write curve rows at `points`, and call `save` every checkpoint_seconds."""
    marks, began, saved = set(points), time.perf_counter() - state.seconds, time.perf_counter()
    while state.step < until:
        units = range(state.step, min(state.step + state.multiple, until))
        parts = [
            source.batch(seed=settings.seed, step=s, count=settings.count, context=settings.context) for s in units
        ]
        lr = rate(state.step)
        batch = torch.from_numpy(np.concatenate(parts)).to(settings.device)
        state.loss_sum += _step(state, batch, lr=lr, settings=settings) * len(units)
        state.loss_count += len(units)
        state.step += len(units)
        state.updates += 1
        state.seconds = time.perf_counter() - began
        passed = range(state.step - len(units) + 1, state.step + 1)
        marked = not marks.isdisjoint(passed)
        if (marked or any(s % CHECK_EVERY == 0 for s in passed)) and not math.isfinite(float(state.loss_sum)):
            raise Diverged(f"the training loss is not finite at step {state.step} (lr {lr:.3g})")
        if marked:
            _mark(state, held_out, lr=lr, settings=settings)
        if time.perf_counter() - saved > settings.checkpoint_seconds:
            save(state)
            saved = time.perf_counter()
    state.seconds = time.perf_counter() - began


def _step(state: State, batch: Tensor, *, lr: float, settings: Settings) -> Tensor:
    """One optimizer step on windows (count, context + 1); the mean loss before it, in nats/token."""
    options = settings.options
    state.optimizer.zero_grad(set_to_none=True)
    if options.noise_every and state.updates % options.noise_every == 0:
        loss = _measured(state, batch, settings)
    else:
        goal, loss = objective(state.model, batch, options)
        goal.backward()
    if options.perp_grad:
        perp_grad(state.model.parameters())
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    state.optimizer.step()
    return loss.detach()


def _measured(state: State, batch: Tensor, settings: Settings) -> Tensor:
    """The gradients of a step from micro-batches, a measurement of their noise, and what it asks of the batch."""
    options = settings.options
    loss, small, big = by_micro_batches(
        state.model, batch, parts=options.micro_batches, objective=lambda part: objective(state.model, part, options)
    )
    tokens = batch.shape[0] * settings.context
    if math.isfinite(small) and big > 0:
        state.noise = [*state.noise, [small, big, tokens / options.micro_batches, tokens]][-WINDOW:]
    if options.adaptive:
        wanted = multiple_wanted(state.noise, unit=settings.batch_tokens, theta=options.batch_theta)
        state.multiple = min(max(state.multiple, wanted), options.batch_most)
    return loss


def objective(model: GPT, windows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """What is made small, and the mean loss in nats/token that is reported: they differ by the z-loss."""
    logits, targets = _logits(model, windows), windows[:, 1:].reshape(-1)
    loss = LOSSES[options.loss_kind](logits, targets).mean()
    return (loss + options.z_loss * z_loss(logits) if options.z_loss else loss), loss


def _logits(model: GPT, windows: Tensor) -> Tensor:
    """Of each input of windows (count, context + 1), as (count context, vocab)."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=windows.is_cuda):
        logits: Tensor = model(windows[:, :-1])
    return logits.float().flatten(0, 1)


def losses(model: GPT, windows: Tensor, *, kind: str = "softmax") -> Tensor:
    """Loss in nats of each target of windows (count, context + 1), as (count, context)."""
    targets = windows[:, 1:]
    return LOSSES[kind](_logits(model, windows), targets.reshape(-1)).view(targets.shape)


def _mark(state: State, held_out: HeldOut, *, lr: float, settings: Settings) -> None:
    loss, _ = held_out.measure(state.model, settings.curve_tokens // settings.context)
    row: dict[str, Any] = {
        "step": state.step,
        "tokens": state.step * settings.batch_tokens,
        "lr": lr,
        "loss": loss,
        "train_loss": float(state.loss_sum) / state.loss_count,
    }
    if settings.options.adaptive:
        row |= {"updates": state.updates, "batch_tokens": state.multiple * settings.batch_tokens}
    if settings.options.noise_every:
        row |= noise_columns(state.noise)
    if settings.options.watch:
        row |= watched(state.model, held_out.windows[:WINDOWS])
    state.curve.append(row)
    state.loss_sum.zero_()
    state.loss_count = 0


class HeldOut:
    """The fixed held-out windows of a source, and the loss of a model on them or on an even spread of them."""

    def __init__(self, source: Source, settings: Settings) -> None:
        windows, luck = source.held_out(count=settings.eval_tokens // settings.context, context=settings.context)
        self.windows = torch.from_numpy(windows).to(settings.device)
        self.luck = torch.from_numpy(luck)
        self.count, self.kind = len(windows), settings.options.loss_kind

    @torch.no_grad()
    def measure(self, model: GPT, count: int) -> tuple[float, float]:
        """Loss in nats/token over `count` windows, and its standard error, windows taken as independent.

        Where the optimum of each window is known, its luck (optimum less entropy rate) is taken off first: an
        unbiased control variate that leaves only the sampling error of the loss above the optimum.
        """
        picked = torch.linspace(0, self.count - 1, min(count, self.count)).round().long()
        chunks = [losses(model, self.windows[p], kind=self.kind).mean(dim=1).double().cpu() for p in picked.split(64)]
        corrected = torch.cat(chunks) - self.luck[picked]
        return float(corrected.mean()), float(corrected.std() / math.sqrt(len(corrected)))


FACTS = ("step", "branch", "seconds", "loss_count", "curve", "updates", "multiple", "noise")


def save_state(state: State, folder: Path, *, owner: str, branch: bool = False) -> None:
    """Store a state as safetensors with its JSON facts in the header: one file, so it is there whole or not at all.

    owner: the run that spent the steps; branch: keep it for the runs to come, not only until the next is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"loss_sum": state.loss_sum}
    for name, parameter in state.model.named_parameters():
        moments = state.optimizer.state[parameter]
        tensors[f"p.{name}"] = parameter.detach()
        tensors |= {f"m.{name}": moments["exp_avg"], f"v.{name}": moments["exp_avg_sq"]}
    facts = json.dumps({"owner": owner} | {key: getattr(state, key) for key in FACTS})
    kind = "branch" if branch else "passing"
    path = folder / f"{kind}-{state.step:09d}.safetensors"
    temporary = folder / f".{os.getpid()}.tmp"
    save_file(tensors, temporary, metadata={"facts": facts})
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, path)
    for older in folder.glob("passing-*.safetensors"):
        if older != path:
            older.unlink()


def stored_steps(folder: Path) -> dict[int, Path]:
    """Step -> file of the states in a folder."""
    return {int(p.stem.split("-")[1]): p for p in sorted(folder.glob("[bp]*-*.safetensors"))}


def load_state(path: Path, shape: Shape, settings: Settings, *, owner: str) -> State:
    """The state stored in a file. Where another run left it at a branch, that run's row has paid for what it took."""
    state = start(shape, settings)
    with safe_open(path, framework="pt", device=settings.device) as stored:
        facts = json.loads(stored.metadata()["facts"])
        for key in FACTS:
            setattr(state, key, {"updates": facts["step"], "multiple": 1, "noise": [], **facts}[key])
        state.loss_sum.copy_(stored.get_tensor("loss_sum"))
        for name, parameter in state.model.named_parameters():
            parameter.data.copy_(stored.get_tensor(f"p.{name}"))
            step = torch.tensor(float(state.updates), device=settings.device)
            moments = {"exp_avg": stored.get_tensor(f"m.{name}"), "exp_avg_sq": stored.get_tensor(f"v.{name}")}
            state.optimizer.state[parameter] = {"step": step, **moments}
    if path.name.startswith("branch") and facts["owner"] != owner:
        state.branch, state.seconds = state.step, 0.0
    return state
