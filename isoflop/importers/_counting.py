"""N, D and C of an imported run: counted from the model's config, read from the tracker, or derived, and marked so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoflop._columns import RunsError
from isoflop._meter import get_meter
from isoflop.importers._architecture import count_flops, count_params
from isoflop.importers._importer import Logged
from isoflop.importers._names import ACCUMULATION, DEVICES, GLOBAL_BATCH, LOCAL_BATCH, PLAIN_BATCH, pick
from isoflop.importers._safe import real

if TYPE_CHECKING:
    from isoflop.importers._mapping import Report

Row = dict[str, Any]


def model_counts(run: Logged, row: Row, report: Report) -> None:
    """N from the model's config.json, where there is one."""
    if run.model is None:
        return
    try:
        counts = count_params(run.model)
    except RunsError as exc:
        report.note(f"{run.run}: parameters were not counted: {exc}")
        return
    told = real(row.get("params"))
    if told is None:
        row |= {"params": counts.total, "params_source": "config.json"}
        report.mapped("params", "counted from config.json")
    elif told != counts.total:
        report.note(
            f"{run.run}: params is {told:.0f} as recorded, and {counts.total} counted from config.json; the recorded "
            "one stays"
        )
    for column, value in (("params_nonembed", counts.nonembed), ("params_active", counts.active)):
        if column not in row and (column != "params_active" or counts.active != counts.total):
            row[column] = value
            report.mapped(column, "counted from config.json")
    if context := real(row.get("context")):
        row["flops_per_token"] = count_flops(run.model, context=int(context)).training
        report.mapped("flops_per_token", "counted from config.json: training, causal attention at the context")


def batch_tokens(run: Logged, row: Row, report: Report, used: set[str]) -> None:
    """Tokens a step from sequences a step and their length, where both are said without doubt."""
    context = real(row.get("context"))
    if "batch_tokens" in row or context is None:
        return
    found = _sequences(run.config, row, used)
    if found is None:
        return
    sequences, what, guessed = found
    row |= {"batch_tokens": sequences * context, "batch_tokens_source": f"{what} x context"}
    report.mapped("batch_tokens", f"{what} x context")
    if guessed:
        report.note(f"{what} was taken as the sequences of one optimiser step on all devices; if it is not, say "
                    "--set batch_tokens=NUMBER")  # fmt: skip


def _sequences(config: Mapping[str, Any], row: Row, used: set[str]) -> tuple[float, str, bool] | None:
    """(sequences an optimiser step, how counted, whether that takes something for granted), or None."""
    said = {**config, **{k: v for k, v in row.items() if k in (*DEVICES, *ACCUMULATION)}}

    def look(names: tuple[str, ...]) -> tuple[str, float] | None:
        name = pick(names, said, parts=True)
        value = real(said[name]) if name is not None else None
        return None if name is None or value is None or value <= 0 else (name, value)

    whole, local, bare = look(GLOBAL_BATCH), look(LOCAL_BATCH), look(PLAIN_BATCH)
    devices, accumulation = look(DEVICES), look(ACCUMULATION)
    if whole:
        parts = [whole]
    elif local and devices:
        parts = [local, devices, *([accumulation] if accumulation else [])]
    elif bare and (devices is None or devices[1] == 1) and (accumulation is None or accumulation[1] == 1):
        parts = [bare]
    else:
        return None
    used |= {name for name, _ in parts if name in config}
    return math.prod(value for _, value in parts), " x ".join(name for name, _ in parts), parts == [bare]


def tokens_of_flops(run: Logged, row: Row, curve: list[Row], report: Report) -> None:
    """D from the Hugging Face Trainer's total_flos, which is 6 x tokens x parameters without nn.Embedding's.

    Source: transformers, modeling_utils.py, floating_point_ops and num_parameters(exclude_embeddings=True).
    """
    total, steps = real(run.summary.get("total_flos")), real(run.summary.get("global_step"))
    if "tokens" in row or not total or run.model is None:
        return
    try:
        counts = count_params(run.model)
    except RunsError:
        return
    tokens = total / (6 * (counts.total - counts.embedding - counts.positions))
    what = "total_flos / (6 x params outside nn.Embedding)"
    row |= {"tokens": tokens, "tokens_source": what}
    report.mapped("tokens", what)
    for point in curve:
        if steps:
            point["tokens"] = tokens * point["step"] / steps
    if curve and steps:
        row["tokens"] = curve[-1]["tokens"]


def flops(run: Logged, row: Row, report: Report) -> None:
    """C as recorded, else 6 N D by the meter train_flops, with the experts that a token uses as N."""
    sparse = row.get("params_active") is not None and row.get("params_active") != row.get("params")
    estimate = str(row.get("flops_source", "")).endswith("total_flos")  # transformers' own, at the end of training
    if "flops" in row and not (sparse and estimate):
        steps, step = real(run.summary.get("global_step")), real(row.get("step"))
        if estimate and steps and step:
            row["flops"] *= step / steps
        return
    if "flops" in row:
        report.note("total_flos counts all experts, used or not, so it was not taken as flops")
        report.columns["flops"].subtract({row["flops_source"]: 1})
        del row["flops"], row["flops_source"]
    size = row.get("params_active") if sparse else row.get("params")
    n, d = real(size if size is not None else row.get("params_nonembed")), real(row.get("tokens"))
    if n is None or d is None:
        return
    meter = get_meter("train_flops")
    label = "train_flops(params_active)" if sparse else "train_flops"
    if size is None:
        label = "train_flops(size=nonembed)"
    row |= {"flops": float(meter(params=n, tokens=d)), "flops_source": label}
    report.mapped("flops", f"filled: {label}, 6 N D")
