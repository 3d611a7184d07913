"""Train: the loss of a transformer against its parameters and tokens, on a ladder of small real trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from isoflop.levers.train._check import check
from isoflop.levers.train._design import DESIGN_FIELDS, Design
from isoflop.levers.train._options import OPTION_FIELDS, Options
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._text import SOURCES, Source
from isoflop.levers.train._toml import read_ladder

_LISTS = {"ladder": True}  # fields that only list settings: a sweep may be resumed with longer lists

# What a step takes beyond its arithmetic, as so many parameters more: measured on one CPU core.
_OVERHEAD_PARAMS = 50_000

_SMALL = ({"width": 16, "depth": 2}, {"width": 24, "depth": 2})


@dataclass(frozen=True)
class Train:
    """Train decoder-only transformers of several sizes, each at several token budgets.

    source, source_settings: "python_source" (the standard library's .py files), "files" (paths, heldout_paths), both
        with bpe_vocab (0: bytes) and heldout (fraction of files); or "zipf_words" (words, exponent, word_length,
        letters), whose entropy rate is known
    sizes: width, depth and optionally heads of each model
    budgets: FLOPs of the IsoFLOP profiles; tokens of a (size, budget) = budget / (6 params), in whole batches,
        kept where tokens / params lies within tokens_per_param and there are at least min_steps steps
    tokens: instead of budgets, token counts for every size
    repeats, repeats_below: so many seeds for settings of at most repeats_below FLOPs
    lr: {base, width, power}: peak rate = base (width of the model / width)^-power
    schedule: "wsd" (one trunk at constant rate per size, and for each budget a cooldown of the last decay_fraction
        of its steps) or "cosine" (every budget trained from its start)
    decay, decay_to: "sqrt" or "linear" cooldown, to this fraction of the peak rate
    context, batch_tokens, warmup_steps: tokens per window, tokens per step, steps
    betas, weight_decay (on matrices only), clip: AdamW, and the norm that gradients are clipped to
    eval_tokens, curve_tokens: held-out tokens for the loss of a run, and for each row of its curve
    parametrisation, base_width, decay_rule, activation, norm, norm_place, qk_norm, fix_norm, attention,
        residual_scale, depth_scale, long_skip: see `_design.Design`; None is the ladder's own
    noise_every, micro_batches, watch, loss_kind, z_loss, perp_grad, batch, batch_theta, batch_most:
        see `_options.Options`; None is the ladder's own
    checkpoint_seconds: how often partial work is stored; device: "auto", "cpu" or "cuda" (bf16 autocast)

    Source of the shared trunk: arXiv:2405.18392; arXiv:2404.06395, section 4.
    """

    axis: ClassVar[str] = "params"

    source: str = "python_source"
    source_settings: dict[str, Any] = field(default_factory=dict)
    sizes: Sequence[dict[str, int]] = field(default=_SMALL, metadata=_LISTS)
    budgets: Sequence[float] = field(default=(), metadata=_LISTS)
    tokens: Sequence[int] = field(default=(2**18,), metadata=_LISTS)
    tokens_per_param: tuple[float, float] = field(default=(0.0, math.inf), metadata=_LISTS)
    min_steps: int = field(default=1, metadata=_LISTS)
    repeats: int = field(default=1, metadata=_LISTS)
    repeats_below: float = field(default=math.inf, metadata=_LISTS)
    lr: dict[str, float] = field(default_factory=lambda: {"base": 3e-3, "width": 64, "power": 0.5})
    schedule: str = "wsd"
    decay: str = "sqrt"
    decay_fraction: float = 0.2
    decay_to: float = 0.0
    warmup_steps: int = 50
    context: int = 128
    batch_tokens: int = 2048
    tied: bool = True
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    parametrisation: str | None = None
    base_width: int | None = None
    decay_rule: str | None = None
    activation: str | None = None
    norm: str | None = None
    norm_place: str | None = None
    qk_norm: bool | None = None
    fix_norm: bool | None = None
    attention: str | None = None
    residual_scale: float | None = None
    depth_scale: bool | None = None
    long_skip: float | None = None
    noise_every: int | None = None
    micro_batches: int | None = None
    watch: bool | None = None
    loss_kind: str | None = None
    z_loss: float | None = None
    perp_grad: bool | None = None
    batch: str | None = None
    batch_theta: float | None = None
    batch_most: int | None = None
    eval_tokens: int = 262_144
    curve_tokens: int = 16_384
    checkpoint_seconds: float = field(default=60.0, metadata=_LISTS)
    device: str = field(default="auto", metadata=_LISTS)

    def __post_init__(self) -> None:
        check(self)

    # -- the ladder -------------------------------------------------------------------------------------------------

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, cheap to dear: one per (size, budget) within the limits, or per (size, token count)."""
        settings = [s for size in self.sizes for s in self._column(size)]
        return sorted(settings, key=lambda s: (s["budget_flops"], self.shape(s).params))

    def _column(self, size: dict[str, int]) -> list[dict[str, Any]]:
        params = self.shape(size).params
        wanted = [(b, b / (6 * params)) for b in self.budgets] or [(6.0 * params * t, float(t)) for t in self.tokens]
        low, high = self.tokens_per_param
        rows = []
        for budget, tokens in wanted:
            whole = self.batch_tokens * max(1, round(tokens / self.batch_tokens))
            if low <= tokens / params <= high and whole >= self.min_steps * self.batch_tokens:
                rows.append({**size, "tokens": whole, "budget_flops": budget})
                if self.repeats > 1 and budget <= self.repeats_below:
                    rows[-1]["repeats"] = self.repeats
        return rows

    def shape(self, setting: dict[str, Any]) -> Shape:
        """The model of a setting."""
        return Shape(
            width=setting["width"], depth=setting["depth"], heads=setting.get("heads", 0),
            vocab=self.text.vocab, tied=self.tied, design=self.design,
        )  # fmt: skip

    def chosen(self, names: Sequence[str] = DESIGN_FIELDS) -> dict[str, Any]:
        """Fields of the design, or of other names, that were set: columns of a row."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @cached_property
    def design(self) -> Design:
        """Parametrisation and architecture, with the ladder's own where nothing was set."""
        return Design(**self.chosen())

    @cached_property
    def options(self) -> Options:
        """How steps are taken and watched, with the ladder's own where nothing was set."""
        return Options(**self.chosen(OPTION_FIELDS))

    def cost(self, setting: dict[str, Any]) -> float:
        """About the FLOPs that a setting newly spends where the ladder runs in order: for the time left."""
        params = self.shape(setting).params
        same = [s for s in self.ladder() if _size(s) == _size(setting) and s["tokens"] < setting["tokens"]]
        shared = max((s["tokens"] for s in same), default=0) * (1 - self.decay_fraction)
        return 6.0 * (params + _OVERHEAD_PARAMS) * (setting["tokens"] - (shared if self.schedule == "wsd" else 0))

    def facts(self) -> dict[str, Any]:
        """Where the text came from, with its sha256: a sweep is not resumed on another text."""
        return self.text.facts()

    @cached_property
    def text(self) -> Source:
        """Where the tokens come from; read once per process."""
        return _cached_source(self.source, json.dumps(self.source_settings, sort_keys=True))

    # -- one run ----------------------------------------------------------------------------------------------------

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting and return its row, with the loss curve under "curve".

        With `cache` (a folder), the trunk is taken up where an earlier run of the same size and seed left it; the
        row is the same as without, but for `tokens_trained`, `saved_tokens` and the seconds. Raises RunFailed where
        the loss is no longer finite; what was spent until then is in its row.
        """
        try:
            from isoflop.levers.train import _run
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            raise ImportError("the train lever needs PyTorch: pip install 'isoflop[torch]'") from error
        return _run.run(self, setting, seed=seed, cache=cache)

    def peak_rate(self, width: int) -> float:
        """Peak learning rate of a model of this width."""
        return self.lr["base"] * (width / self.lr["width"]) ** -self.lr["power"]

    @classmethod
    def from_toml(cls, path: str | Path) -> Train:
        """Read a ladder file; an unknown key is refused with the closest known one."""
        return read_ladder(cls, Path(path))


def _size(setting: dict[str, Any]) -> tuple[int, int, int]:
    return setting["width"], setting["depth"], setting.get("heads", 0)


@lru_cache(maxsize=2)
def _cached_source(name: str, settings: str) -> Source:
    return SOURCES[name](**json.loads(settings))
