"""The part that all quantisers share: copy, calibrate, decide per site, fold, check, round, report.

A quantiser is a function of what one site sees to a `Treatment`. Everything it may do to a site is named there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._blocks import Scheme, decode, encode, quantise, scales, scheme, split
from isoflop.levers.precision._calibrate import Seen, collect
from isoflop.levers.precision._hadamard import rotate
from isoflop.levers.precision._inject import channel_ratio, kurtosis, premise, token_ratio
from isoflop.levers.precision._linear import Acts, QuantLinear, limits
from isoflop.levers.precision._measure import compared
from isoflop.levers.precision._plain import part, plain, put
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._sites import Site, find_sites, fold, outputs, take_in
from isoflop.levers.precision._work import Work, fingerprint

FOLD_LIMIT = 1e-3  # beyond rounding in float32 the table of names is wrong for this model


@dataclass(frozen=True)
class Target:
    """What is wanted of every linear layer, whatever the method.

    weights: a format (int2 ... int8, fp8_e4m3, fp4_e2m1, ...), a block format with its own group (mxfp4, nvfp4, ...),
    or "fp32", nothing rounded. group, symmetric: of the weights; 0 is a whole row; a block format has its own.
    acts: the same for inputs, None: not rounded. act_range: see `Acts`. skip: parts of names of layers to leave alone.
    fold: False makes every scale explicit.
    """

    weights: str = "int4"
    group: int = 32
    symmetric: bool = False
    acts: str | None = None
    act_range: str = "token"
    skip: tuple[str, ...] = ()
    fold: bool = True

    def __post_init__(self) -> None:
        self.stored(self.group or 1)
        if self.acts is not None:
            Acts(self.acts, self.act_range)

    def stored(self, length: int) -> Scheme:
        """The weights' scheme for rows of this length. Formats that are no whole numbers are symmetric."""
        symmetric = self.symmetric or not self.weights.startswith("int")
        return scheme(self.weights, group=self.group, symmetric=symmetric).fitted(length)

    @property
    def rounding(self) -> Acts | None:
        return Acts(self.acts, self.act_range) if self.acts else None


def target(bits: int = 4, acts: int | None = None, **more: Any) -> Target:
    """A target of whole numbers: so many bits a weight, and so many an input (None or 16: not rounded)."""
    rounded = None if acts is None or acts >= 16 else f"int{acts}"
    return Target(weights=f"int{bits}", acts=rounded, **more)


@dataclass(frozen=True)
class SiteData:
    """What a quantiser decides from: the inputs of a site, its weights as they are now, and what is wanted.

    units: per layer, what its outputs count in the original model (rows may have been divided by a later site's scale).
    """

    site: Site
    seen: Seen
    weights: tuple[Tensor, ...]
    units: tuple[Tensor, ...]
    target: Target

    @property
    def stored(self) -> Scheme:
        return self.target.stored(self.weights[0].shape[1])

    @property
    def columns(self) -> Tensor:
        """max |w| of each input channel over all layers of the site."""
        return torch.stack([w.abs().amax(dim=0) for w in self.weights]).amax(dim=0)


@dataclass(frozen=True)
class Treatment:
    """What to do to one site; the order at run time is shift, scale, rotate, round.

    scale: inputs are divided and weights multiplied by it; clips: per layer, share of each group's range that is kept;
    stored: per layer, another scheme; acts: instead of the target's; limit: static range (low, high) of inputs
    as they are rounded; facts: for the report.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    rotated: bool = False
    clips: tuple[Tensor, ...] = ()
    stored: tuple[Scheme, ...] = ()
    acts: Acts | None = None
    limit: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As tensors and JSON values; `treatment` is the way back."""
        tensors = {k: v for k in ("scale", "shift", "limit") if (v := getattr(self, k)) is not None}
        tensors |= {f"clip.{i}": clip for i, clip in enumerate(self.clips)}
        stored, acts = [asdict(s) for s in self.stored], asdict(self.acts) if self.acts else None
        return tensors, {"rotated": self.rotated, "stored": stored, "acts": acts, "facts": self.facts}


def treatment(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Treatment:
    """A treatment from its parts."""
    clips = tuple(tensors[f"clip.{i}"] for i in range(sum(k.startswith("clip.") for k in tensors)))
    return Treatment(
        tensors.get("scale"), tensors.get("shift"), facts["rotated"], clips,
        tuple(Scheme(**s) for s in facts["stored"]), Acts(**facts["acts"]) if facts["acts"] else None,
        tensors.get("limit"), facts["facts"],
    )  # fmt: skip


Decide = Callable[[SiteData], Treatment]


@dataclass(frozen=True)
class Job:
    """Which method this is, for the report and the kept work; channels: whether it lives on channels that stand out."""

    method: str
    target: Target
    knobs: dict[str, Any] = field(default_factory=dict)
    channels: bool = True

    def claim(self, work: Work, model: nn.Module, calibration: Sequence[Any]) -> None:
        if work.folder is not None:
            facts = {"method": self.method, "target": asdict(self.target), "knobs": self.knobs}
            work.claim({**facts, "data": fingerprint(model, calibration)})


@torch.no_grad()
def quantise_sites(
    model: nn.Module,
    calibration: Sequence[Any],
    decide: Decide,
    *,
    job: Job,
    heldout: Any = None,
    work: Work | None = None,
    start: nn.Module | None = None,
) -> tuple[nn.Module, Report]:
    """Treat every site of a copy of the model as `decide` says; what every site-wise quantiser returns.

    start: the same function with other weights (see `rotate_residual`), to treat instead.
    Raises ValueError where there is no linear layer, or folding changes the outputs (the model is of another make than
    its names say: give Target(fold=False)).
    """
    began, work = time.perf_counter(), work or Work()
    made = plain(model if start is None else start)
    params = sum(p.numel() for p in made.parameters())
    sites = find_sites(made, skip=job.target.skip, fold=job.target.fold)
    if not sites:
        raise ValueError(f"{type(model).__name__} has no linear layer to quantise")
    job.claim(work, model, calibration)
    before = outputs(made, calibration[0]) if len(calibration) else torch.zeros(1)
    seen = collect(made, sites, calibration)
    chosen, units = _decide_all(made, sites, seen, decide, job=job, work=work)
    gap = _fold_gap(made, calibration[0], before)
    rows = tuple(
        _round_site(made, site, seen[site.name], treated, folded, job=job, units=units)
        for site, treated, folded in chosen
    )
    return made, make_report(model, made, rows, job=job, heldout=heldout, gap=gap, began=began, params=params)


def _decide_all(
    made: nn.Module, sites: Sequence[Site], seen: dict[str, Seen], decide: Decide, *, job: Job, work: Work
) -> tuple[list[tuple[Site, Treatment, bool]], dict[str, Tensor]]:
    """Decide and fold site by site, last first: a layer is looked at when the sites after it have changed its rows."""
    units = {n: torch.ones_like(part(made, n).weight[:, 0]) for site in sites for n in site.linears}
    chosen = []
    with work.shown(job.method, len(sites)) as tick:
        for site in reversed(sites):
            kept = work.load(site.name)
            weights = tuple(part(made, n).weight for n in site.linears)
            data = SiteData(site, seen[site.name], weights, tuple(units[n] for n in site.linears), job.target)
            treated = treatment(*kept) if kept else decide(data)
            if kept is None:
                work.keep(site.name, treated.parts())
            chosen.append((site, treated, _fold(made, site, treated, units)))
            tick(1)
    return chosen[::-1], units


def _fold(made: nn.Module, site: Site, treated: Treatment, units: dict[str, Tensor]) -> bool:
    """Fold a site's scale and shift into its producer, whether it could be done; else the layers do it at run time."""
    if treated.scale is None and treated.shift is None:
        return True
    scale = treated.scale if treated.scale is not None else torch.ones_like(part(made, site.linears[0]).weight[0])
    folded = fold(made, site, scale=scale, shift=treated.shift)
    take_in(made, site, scale=scale, shift=treated.shift)
    if folded and site.rows and site.producer in units:
        units[site.producer][slice(*site.rows)] *= scale
    if not folded:
        for name in site.linears:
            linear = part(made, name)
            put(made, name, _explicit(linear, scale if treated.scale is not None else None, treated.shift))
    return folded


class _Explicit(nn.Linear):
    """A linear layer that divides its input first: what a site without producer is until it is rounded."""

    divide: Tensor | None
    shift: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.shift is None else x - self.shift
        return super().forward(x if self.divide is None else x / self.divide)


def _explicit(linear: nn.Linear, divide: Tensor | None, shift: Tensor | None) -> _Explicit:
    with torch.device("meta"):
        made = _Explicit(linear.in_features, linear.out_features)
    made.weight, made.bias = linear.weight, linear.bias
    made.divide, made.shift = divide, shift
    return made


def _fold_gap(made: nn.Module, batch: Any, before: Tensor) -> float:
    """Largest change of the outputs by folding, relative to their largest. Raises ValueError beyond FOLD_LIMIT."""
    after = outputs(made, batch)
    gap = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not gap < FOLD_LIMIT:
        raise ValueError(f"folding scales changed the outputs by {gap:.1e} of their largest; give Target(fold=False)")
    return gap


def _round_site(
    made: nn.Module, site: Site, seen: Seen, treated: Treatment, folded: bool, *, job: Job, units: dict[str, Tensor]
) -> dict[str, Any]:
    """Replace the layers of a site by rounded ones; the site's row of the report."""
    x, total, wrong, wrong_weights = seen.rows, 0.0, 0.0, 0.0
    bits, count, flops, extra = 0.0, 0, 0, 0
    given, treated = _transformed(x, treated) if folded else x, _with_limit(treated, seen, job.target)
    for i, name in enumerate(site.linears):
        linear = part(made, name)
        rounded = round_linear(linear, treated, i, target=job.target)
        exact, unit = linear(given), units[name]
        total += float(((exact * unit) ** 2).sum())
        wrong += float((((rounded(given) - exact) * unit) ** 2).sum())
        wrong_weights += float((((without_rounding(rounded, given) - exact) * unit) ** 2).sum())
        put(made, name, rounded)
        bits += rounded.stored.bits(rounded.in_features, rounded.out_features) * rounded.weight.numel()
        count += rounded.weight.numel()
        flops, extra = flops + 2 * rounded.weight.numel(), max(extra, rounded.extra_flops())
    last, scale = rounded, max(total, 1e-300)
    return {
        "site": site.name, "linears": list(site.linears), "error": wrong / scale, "weight_error": wrong_weights / scale,
        "bits_weights": bits / count, "bits_acts": last.acts.bits(last.in_features) if last.acts else None,
        "weights": count, "inputs": last.in_features, "flops": flops, "extra_flops": extra,
        "extra_bytes": last.extra_bytes(), "explicit": not folded, "channel_ratio": channel_ratio(x),
        "token_ratio": token_ratio(x), "kurtosis": kurtosis(x), **treated.facts,
    }  # fmt: skip


def _transformed(x: Tensor, treated: Treatment) -> Tensor:
    """The input that a folded producer gives."""
    x = x if treated.shift is None else x - treated.shift
    return x if treated.scale is None else x / treated.scale


def _with_limit(treated: Treatment, seen: Seen, target: Target) -> Treatment:
    """With the range of the calibration, where a static one is wanted and the method found none of its own."""
    acts = treated.acts or target.rounding
    if acts is None or acts.range != "static" or treated.limit is not None:
        return treated
    if treated.rotated:
        return replace(treated, limit=limits(rotate(_transformed(seen.rows, treated))))
    return replace(treated, limit=limits(_transformed(torch.stack((seen.low, seen.high)), treated)))


def round_linear(linear: nn.Linear, treated: Treatment, index: int, *, target: Target) -> QuantLinear:
    """The rounded layer in place of a linear one whose weight has the scale already."""
    weight = rotate(linear.weight) if treated.rotated else linear.weight
    stored = treated.stored[index] if treated.stored else target.stored(weight.shape[1])
    clip = treated.clips[index] if treated.clips else 1.0
    acts = treated.acts or target.rounding
    made = stored_layer(weight, linear.bias, stored=stored, acts=acts, clip=clip)
    if isinstance(linear, _Explicit):
        made.divide, made.shift = linear.divide, linear.shift
    made.rotated, made.limit = treated.rotated, treated.limit
    return made.requires_grad_(False)


def stored_layer(
    weight: Tensor, bias: Tensor | None, *, stored: Scheme, acts: Acts | None, clip: Tensor | float = 1.0
) -> QuantLinear:
    """A rounded layer with the scales and zero points of its weight."""
    if stored.format == "fp32":
        return QuantLinear(weight.detach().clone(), bias, stored=stored, acts=acts)
    blocks = split(weight, stored.group)
    s, z = scales(blocks, stored, clip=clip)
    made = QuantLinear(decode(encode(blocks, s, z, stored), s, z).reshape(weight.shape), bias, stored=stored, acts=acts)
    made.scale, made.zero = s, z
    return made


def store(weight: Tensor, stored: Scheme, clip: Tensor | float = 1.0) -> Tensor:
    """A rounded weight; "fp32" is as it was."""
    return weight.detach().clone() if stored.format == "fp32" else quantise(weight, stored, clip=clip)


def without_rounding(layer: QuantLinear, x: Tensor) -> Tensor:
    """What a layer gives for exact inputs."""
    acts, layer.acts = layer.acts, None
    try:
        out: Tensor = layer(x)
    finally:
        layer.acts = acts
    return out


def make_report(
    model: nn.Module,
    made: nn.Module,
    rows: tuple[dict[str, Any], ...],
    *,
    job: Job,
    heldout: Any,
    gap: float,
    began: float,
    params: int | None = None,
) -> Report:
    """The report of a quantised model from the rows of its sites; params: where it is stored with more than it had."""
    weights = sum(r["weights"] for r in rows)
    stored = sum(r["bits_weights"] * r["weights"] for r in rows)
    before = sum(p.numel() for p in model.parameters())
    inputs = sum(r["inputs"] for r in rows)
    acts = [r["bits_acts"] * r["inputs"] for r in rows if r["bits_acts"] is not None]
    extra = sum(r["extra_bytes"] for r in rows)
    bits = stored + 16 * ((params or before) - weights)
    seconds = time.perf_counter() - began
    return Report(
        method=job.method, target=asdict(job.target), knobs=job.knobs, bits_weights=stored / weights,
        bits_acts=sum(acts) / inputs if acts else None, bits_params=bits / before, bytes=round(bits / 8) + extra,
        bytes_before=2 * before, flops=sum(r["flops"] for r in rows), extra_flops=sum(r["extra_flops"] for r in rows),
        extra_bytes=extra, explicit=sum(r["explicit"] for r in rows), fold_error=gap, layers=rows, seconds=seconds,
        premise=premise([r["channel_ratio"] for r in rows]) if job.channels else None, **compared(model, made, heldout),
    )  # fmt: skip
