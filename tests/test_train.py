"""The train lever: exact counts, schedules, and runs that do not depend on how they got there."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import _trained
import numpy as np
import pytest
from _trained import RECORDED, WORDS, needs_torch

from isoflop._lever import RunFailed, check_lever, sweep
from isoflop.levers.train import Train
from isoflop.levers.train._schedule import decay_start, even_points, log_points, rate, rates
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._text import ZipfSource

one_thread = _trained.one_thread
TINY = Train(
    source="zipf_words", source_settings=WORDS, sizes=({"width": 8, "depth": 1}, {"width": 16, "depth": 1}),
    tokens=(640, 1280), context=16, batch_tokens=64, warmup_steps=3, eval_tokens=1024, curve_tokens=256,
    lr={"base": 1e-2, "width": 16, "power": 0.5}, device="cpu",
)  # fmt: skip
SMALL = {"width": 8, "depth": 1}


def equal_but_for_time(a: dict[str, Any], b: dict[str, Any], *, but: tuple[str, ...] = ()) -> bool:
    skip = {"seconds", "tokens_per_second", *but}
    return {k: v for k, v in a.items() if k not in skip} == {k: v for k, v in b.items() if k not in skip}


# -- shapes and the model -----------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("width", "depth", "heads"), [(8, 1, 0), (12, 2, 0), (48, 2, 0), (64, 3, 2), (112, 3, 0)])
def test_parameter_counts_are_exact(width: int, depth: int, heads: int, tied: bool) -> None:
    from isoflop.levers.train._gpt import GPT

    shape = Shape(width=width, depth=depth, vocab=31, heads=heads, tied=tied)
    model = GPT(shape, context=8, seed=0)
    embeddings = model.embedding.numel() * (1 if tied else 2)
    assert sum(p.numel() for p in model.parameters()) == shape.params
    assert shape.params - embeddings == shape.params_nonembed


def test_a_shape_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        Shape(width=10, depth=1, vocab=4, heads=3)
    assert [Shape(width=w, depth=1, vocab=4).heads for w in (8, 16, 32, 64, 96, 128)] == [1, 1, 1, 2, 3, 4]


@needs_torch
def test_attention_never_looks_ahead() -> None:
    import torch

    from isoflop.levers.train._gpt import GPT

    model = GPT(Shape(width=16, depth=2, vocab=11), context=12, seed=0)
    tokens = torch.arange(12).remainder(11)[None]
    changed = tokens.clone()
    changed[0, 7] = 3
    a, b = model(tokens), model(changed)
    assert torch.equal(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


@needs_torch
def test_rotary_scores_depend_on_distance_alone() -> None:
    import torch

    from isoflop.levers.train._gpt import rotary_table, rotate

    cos, sin = rotary_table(20, 8)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 20, 8)
    scores = rotate(q, cos, sin)[0, 0] @ rotate(k, cos, sin)[0, 0].T
    for distance in range(5):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5)


# -- schedules ----------------------------------------------------------------------------------------------------


def test_wsd_warms_up_holds_and_cools_down() -> None:
    kept = {"peak": 2.0, "steps": 100, "warmup_steps": 10, "decay_start": 80}
    assert [rate(step, **kept) for step in (0, 4, 9, 10, 79)] == [0.2, 1.0, 2.0, 2.0, 2.0]
    assert rate(80, **kept) == pytest.approx(2 * (1 - math.sqrt(1 / 21)))
    assert rate(99, **kept) == pytest.approx(2 * (1 - math.sqrt(20 / 21)))
    assert rate(99, **kept, decay="linear") == pytest.approx(2 / 21)
    assert rate(99, **kept, decay="linear", decay_to=0.1) == pytest.approx(2 * (0.1 + 0.9 / 21))


def test_cosine_falls_from_the_end_of_the_warmup() -> None:
    start = decay_start(100, schedule="cosine", decay_fraction=0.2, warmup_steps=9)
    kept = {"peak": 1.0, "steps": 100, "warmup_steps": 9, "decay_start": start, "schedule": "cosine"}
    assert rate(54, **kept) == pytest.approx(0.5)
    assert all(rate(s, **kept) > rate(s + 1, **kept) for s in range(9, 99))


def test_the_trunk_is_the_same_for_every_length() -> None:
    short = {"peak": 1.0, "steps": 50, "warmup_steps": 5, "decay_start": 40}
    long = {"peak": 1.0, "steps": 500, "warmup_steps": 5, "decay_start": 400}
    assert all(rate(s, **short) == rate(s, **long) for s in range(40))
    assert log_points(100) == log_points(1000)[: len(log_points(100))]
    assert even_points(40, 50, count=5) == [42, 44, 46, 48, 50]


# -- runs ---------------------------------------------------------------------------------------------------------


@needs_torch
def test_a_row_has_its_columns(tmp_path: Path) -> None:
    row = TINY.run({**SMALL, "tokens": 1280}, seed=0)
    shape = TINY.shape(SMALL)
    assert row["params"] == shape.params
    assert row["params_nonembed"] == shape.params_nonembed
    assert (row["tokens"], row["steps"], row["decay_start"]) == (1280, 20, 16)
    assert (row["flops"], row["flops_source"]) == (6 * shape.params * 1280, "train_flops")
    assert row["entropy_rate"] == ZipfSource(**WORDS).entropy_rate
    assert row["lr"] == pytest.approx(1e-2 * math.sqrt(2))
    assert 0 < row["loss_se"] < 0.1
    assert row["seconds"] > 0
    assert json.loads(json.dumps(row)) == row
    assert [p["step"] for p in row["curve"]] == [10, 13, 16, 17, 18, 19, 20]
    assert row["curve"][-1]["train_loss"] == row["train_loss"]


@needs_torch
def test_every_rate_can_be_rebuilt_from_the_row() -> None:
    for lever in (TINY, replace(TINY, schedule="cosine", decay_to=0.1), replace(TINY, decay="linear")):
        row = lever.run({**SMALL, "tokens": 1280}, seed=0)
        every = rates(row)
        assert [every[p["step"] - 1] for p in row["curve"]] == [p["lr"] for p in row["curve"]]


@needs_torch
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_row_does_not_depend_on_the_cache(tmp_path: Path, schedule: str) -> None:
    lever = replace(TINY, schedule=schedule, checkpoint_seconds=0.0)
    short, long = ({**SMALL, "tokens": tokens} for tokens in (640, 1280))
    alone = lever.run(long, seed=1)
    first = lever.run(short, seed=1, cache=tmp_path)
    after = lever.run(long, seed=1, cache=tmp_path)
    assert equal_but_for_time(after, alone, but=("tokens_trained", "saved_tokens"))
    assert (first["tokens_trained"], alone["tokens_trained"]) == (640, 1280)
    shared = 640 - 2 * 64 if schedule == "wsd" else 0
    assert (after["tokens_trained"], after["saved_tokens"]) == (1280 - shared, shared)
    assert equal_but_for_time(lever.run(short, seed=1, cache=tmp_path), first)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@needs_torch
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("at", [5, 15, 16, 17, 19])
def test_a_run_killed_anywhere_goes_on_to_the_same_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, at: int
) -> None:
    lever = replace(TINY, schedule=schedule, checkpoint_seconds=0.0)
    setting = {**SMALL, "tokens": 1280}
    alone = lever.run(setting, seed=0)
    real = ZipfSource.batch

    def batch(self: ZipfSource, *, step: int, **rest: Any) -> Any:
        if step == at:
            raise Killed
        return real(self, step=step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(ZipfSource, "batch", batch)
        with pytest.raises(Killed):
            lever.run(setting, seed=0, cache=tmp_path)
    assert list(tmp_path.rglob("*.safetensors")), "nothing was stored to go on from"
    assert equal_but_for_time(lever.run(setting, seed=0, cache=tmp_path), alone)


@needs_torch
def test_nothing_global_is_touched() -> None:
    import torch

    before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), random.getstate())
    noise = np.random.get_state()[1]  # noqa: NPY002 (the legacy global state is what must stay as it is)
    TINY.run({**SMALL, "tokens": 640}, seed=0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads(), random.getstate())
    assert np.array_equal(noise, np.random.get_state()[1])  # noqa: NPY002
    assert torch.is_grad_enabled()


@needs_torch
def test_seeds_differ_in_start_and_data() -> None:
    losses = {TINY.run({**SMALL, "tokens": 640}, seed=seed)["loss"] for seed in range(3)}
    assert len(losses) == 3


@needs_torch
def test_a_model_learns_down_to_the_entropy_rate_and_no_further() -> None:
    words = {"words": 8, "exponent": 1.0, "word_length": 2, "letters": 26}
    lever = replace(TINY, source_settings=words, batch_tokens=256, eval_tokens=8192)
    row = lever.run({"width": 16, "depth": 1, "tokens": 256 * 120}, seed=0)
    assert row["entropy_rate"] - 3 * row["loss_se"] < row["loss"] < row["entropy_rate"] + 0.01
    assert row["loss_se"] < 0.001
    assert row["curve"][0]["loss"] > row["entropy_rate"] + 0.3


@needs_torch
def test_divergence_is_a_failed_row_that_keeps_its_cost(tmp_path: Path) -> None:
    lever = replace(TINY, lr={"base": 1e38, "width": 16, "power": 0.0}, tokens=(6400,), sizes=(SMALL,))
    with pytest.raises(RunFailed, match="loss is not finite at step"):
        lever.run(lever.ladder()[0], seed=0)
    row = sweep(lever, out=tmp_path, progress=False).iloc[0]
    assert row["status"] == "failed"
    assert 0 < row["tokens"] < 6400
    assert row["flops"] == 6 * row["params"] * row["tokens"]
    assert "loss" not in row


@needs_torch
def test_a_run_too_short_for_its_warmup_is_refused() -> None:
    with pytest.raises(ValueError, match="2 steps of batch_tokens=64: too few for warmup_steps=3"):
        TINY.run({**SMALL, "tokens": 128}, seed=0)


@needs_torch
def test_the_lever_keeps_the_contract_and_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_lever(TINY).ok
    table = sweep(TINY, out=tmp_path)
    assert list(table["status"]) == ["ok"] * 4
    assert list(table["saved_tokens"]) == [0, 512, 0, 512]
    assert capsys.readouterr().err.endswith("4 runs, 0 failed; shared trunks saved 27% of the tokens\n")
    points = [json.loads(line) for line in (tmp_path / "curves" / "curves.jsonl").read_text().splitlines()]
    assert {p["run"] for p in points} == set(table["run"])
    longer = sweep(replace(TINY, tokens=(640, 1280, 1920)), out=tmp_path, progress=False)
    assert len(longer) == 6
    with pytest.raises(ValueError, match="holds a sweep with weight_decay"):
        sweep(replace(TINY, weight_decay=0.0), out=tmp_path, progress=False)


@needs_torch
def test_bf16_on_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    row = replace(TINY, device="cuda").run({**SMALL, "tokens": 1280}, seed=0)
    assert row["loss"] == pytest.approx(TINY.run({**SMALL, "tokens": 1280}, seed=0)["loss"], rel=0.05)


def test_without_pytorch_the_install_line_is_given_and_no_run_fails(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from isoflop._lever import sweep
from isoflop.levers.train import Train
lever = Train(source="zipf_words", source_settings={WORDS!r}, context=16)
assert lever.ladder()
try:
    sweep(lever, out={str(tmp_path)!r})
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "the train lever needs PyTorch: pip install 'isoflop[torch]'\n"
    assert not (tmp_path / "runs.jsonl").exists()


# -- the recorded ladders -----------------------------------------------------------------------------------------

ladders = pytest.mark.parametrize("name", ["python_source", "zipf_words"])


def recorded(name: str) -> tuple[Any, Any]:
    import pandas as pd

    return tuple(pd.read_csv(RECORDED / name / f"{part}.csv") for part in ("runs", "curves"))


@ladders
def test_recorded_ladders_are_as_large_as_promised(name: str) -> None:
    runs, curves = recorded(name)
    assert (runs["status"] == "ok").sum() >= 36
    assert runs["params"].nunique() >= 7
    assert runs["params"].max() >= 100 * runs["params"].min()
    assert runs["budget_flops"].nunique() >= 6
    assert set(curves["run"]) == set(runs["run"])
    assert not curves.duplicated(["run", "step"]).any()
    assert sum(p.stat().st_size for p in (RECORDED / name).iterdir()) < 300_000


@ladders
def test_recorded_losses_fall_with_the_budget_of_each_size(name: str) -> None:
    runs, _ = recorded(name)
    for _, column in runs.groupby(["params", "seed"]):
        assert column.sort_values("tokens")["loss"].is_monotonic_decreasing
    if name == "zipf_words":
        assert (runs["loss"] > runs["entropy_rate"]).all()


@ladders
def test_recorded_rates_follow_from_the_columns(name: str) -> None:
    runs, curves = recorded(name)
    for _, run in runs.groupby("params").head(1).iterrows():
        every = np.array(rates(run))
        points = curves[curves["run"] == run["run"]]
        np.testing.assert_allclose(points["lr"], every[points["step"] - 1], rtol=1e-5)


@ladders
def test_recorded_rows_are_what_their_ladder_file_declares(name: str) -> None:
    lever, (runs, _) = Train.from_toml(RECORDED / name / "ladder.toml"), recorded(name)
    wanted = [(s["width"], s["depth"], s["tokens"], k) for s in lever.ladder() for k in range(s.get("repeats", 1))]
    found = zip(runs["width"], runs["depth"], runs["tokens"], runs["seed"], strict=True)
    assert Counter(wanted) == Counter(found)


@needs_torch
def test_the_recorded_trunk_can_be_trained_again() -> None:
    """The first hundred steps of the smallest recorded model; the end of its curve needs the whole minute."""
    runs, curves = recorded("zipf_words")
    lever = replace(Train.from_toml(RECORDED / "zipf_words" / "ladder.toml"), eval_tokens=262_144)
    old = curves[curves["run"] == runs.iloc[0]["run"]].head(9)
    row = lever.run({"width": int(runs.iloc[0]["width"]), "depth": 2, "tokens": 100 * 1024}, seed=0)
    again = [p for p in row["curve"] if p["step"] < row["decay_start"]]
    assert len(again) >= 8
    for new, (_, before) in zip(again, old.iterrows(), strict=False):
        assert new["step"] == before["step"]
        assert new["loss"] == pytest.approx(before["loss"], abs=2e-3)
