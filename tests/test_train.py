"""The train lever: exact counts, schedules, sources, and runs that do not depend on how they got there."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop._find import get
from isoflop._lever import RunFailed, check_lever, sweep
from isoflop.levers.train import Train
from isoflop.levers.train._schedule import decay_start, even_points, log_points, rate, rates
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._text import ZipfSource, split_files, stdlib_files, text_source

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch: pip install 'isoflop[torch]'")
RECORDED = Path(__file__).parents[1] / "isoflop" / "recorded"
WORDS = {"words": 64, "exponent": 1.0, "word_length": 4, "letters": 8}
TINY = Train(
    source="zipf_words", source_settings=WORDS, sizes=({"width": 8, "depth": 1}, {"width": 16, "depth": 1}),
    tokens=(640, 1280), context=16, batch_tokens=64, warmup_steps=3, eval_tokens=1024, curve_tokens=256,
    lr={"base": 1e-2, "width": 16, "power": 0.5}, device="cpu",
)  # fmt: skip
SMALL = {"width": 8, "depth": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Models this small are slower on more threads."""
    if not HAS_TORCH:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


# -- sources ------------------------------------------------------------------------------------------------------


def test_text_batches_depend_on_seed_and_step_and_cover_an_epoch_once() -> None:
    source = text_source({"a": bytes(range(1, 201))}, {"b": b"held out, whole"}, name="t")
    kept = {"seed": 3, "count": 2, "context": 10}
    windows = [source.batch(step=step, **kept) for step in range(9)]  # 18 of 18 windows of the first epoch
    again = source.batch(step=4, **kept)
    assert np.array_equal(again, windows[4])
    assert not np.array_equal(source.batch(seed=4, step=4, count=2, context=10), again)
    inputs = np.concatenate(windows)[:, :-1].ravel()
    assert len(set(inputs)) == len(inputs) == 180
    assert all(np.array_equal(w[:, 1:], w[:, :-1] + 1) for w in windows)


def test_whole_files_are_held_out_by_their_names() -> None:
    files = {f"{i}.txt": str(i).encode() for i in range(500)}
    train, held = split_files(files, fraction=0.1)
    assert 30 < len(held) < 70
    assert train | held == files
    more_train, more_held = split_files(files | {"new.txt": b""}, fraction=0.1)
    assert set(held) <= set(more_held)
    assert set(train) <= set(more_train)


def test_the_digest_follows_contents_and_names() -> None:
    digests = [
        text_source(train, {"h": b"x"}, name="t").facts()["sha256"]
        for train in ({"a": b"1", "b": b"2"}, {"b": b"2", "a": b"1"}, {"a": b"12", "b": b""}, {"c": b"1", "b": b"2"})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_standard_library_is_always_there() -> None:
    files = stdlib_files()
    assert {"json/decoder.py", "textwrap.py"} <= set(files)
    assert not [f for f in files if "site-packages" in f or "/test/" in f or f.startswith(("_sysconfigdata", "test/"))]
    assert sum(map(len, files.values())) > 5_000_000


def test_files_source_by_glob_with_held_out_files(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.txt").write_text(name * 10)
    settings = {"paths": [f"{tmp_path}/*.txt"], "heldout_paths": [f"{tmp_path}/two.txt"]}
    facts = Train(source="files", source_settings=settings).facts()
    assert (facts["files"], facts["heldout_files"], facts["heldout_tokens"], facts["vocab"]) == (3, 1, 30, 256)
    with pytest.raises(ValueError, match="no file matches paths"):
        Train(source="files", source_settings={"paths": ["nothing/*.txt"]}).facts()
    with pytest.raises(ValueError, match="no held-out text; give more files, or heldout_paths"):
        Train(source="files", source_settings={"paths": [f"{tmp_path}/one.txt"]}).facts()


def test_bpe_is_trained_on_training_files_and_ends_each_file() -> None:
    pytest.importorskip("tokenizers", reason="needs tokenizers: pip install 'isoflop[torch]'")
    train = {f"{i}": b"the cat sat on the mat " * 20 for i in range(3)}
    source = text_source(train, {"h": b"the dog " * 5}, name="t", bpe_vocab=280)
    assert 256 < source.vocab <= 280
    assert source.facts()["bytes_per_token"] > 2
    assert (source.train == 0).sum() == 3
    assert source.train.max() < source.vocab


def test_the_entropy_rate_is_that_of_the_words() -> None:
    source = ZipfSource(**WORDS)
    p = [r**-1.0 for r in range(1, 65)]
    p = [x / sum(p) for x in p]
    assert source.entropy_rate == pytest.approx(-sum(x * math.log(x) for x in p) / 4, rel=1e-12)
    # Brute force over pairs of words: two words cost twice as much, so nothing is gained across the separator.
    pairs = [a * b for a, b in itertools.product(p, p)]
    assert source.entropy_rate == pytest.approx(-sum(x * math.log(x) for x in pairs) / 8, rel=1e-9)


def test_zipf_text_is_whole_distinct_words_of_the_declared_frequencies() -> None:
    source = ZipfSource(**WORDS)
    spelled = [tuple(word) for word in source.lexicon.tolist()]
    assert len(set(spelled)) == 64
    assert all(word[-1] == 0 and 0 not in word[:-1] for word in spelled)
    windows = source.batch(seed=0, step=0, count=4000, context=16)
    assert (windows[:, ::4] == 0).all()
    counts = Counter(map(tuple, windows[:, 1:].reshape(-1, 4).tolist()))
    assert set(counts) <= set(spelled)
    share = np.array([counts[word] for word in spelled]) / 16000
    assert np.abs(share - source.probabilities).max() < 0.01
    empirical = -(share * np.log(source.probabilities)).sum() / 4
    assert empirical == pytest.approx(source.entropy_rate, abs=0.01)


def test_the_luck_of_held_out_windows_is_their_own_optimum() -> None:
    source = ZipfSource(**WORDS)
    windows, luck = source.held_out(count=50, context=16)
    cost = {tuple(word): -math.log(p) for word, p in zip(source.lexicon.tolist(), source.probabilities, strict=True)}
    for window, off in zip(windows, luck, strict=True):
        optimal = sum(cost[tuple(word)] for word in window[1:].reshape(-1, 4).tolist()) / 16
        assert optimal - source.entropy_rate == pytest.approx(off, abs=1e-12)
    assert not np.array_equal(windows, source.batch(seed=0, step=0, count=50, context=16))


def test_an_impossible_language_is_refused() -> None:
    with pytest.raises(ValueError, match="too few words of length 3"):
        ZipfSource(words=100, word_length=3, letters=4)
    with pytest.raises(ValueError, match="multiple of the word length"):
        ZipfSource(**WORDS).batch(seed=0, step=0, count=1, context=10)


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


# -- ladder files -------------------------------------------------------------------------------------------------

LADDER = """
source = "zipf_words"
source_settings = { words = 64, word_length = 4, letters = 8 }
budgets = [1e8, 1e9]
tokens_per_param = [0.5, 5000]
context = 16
batch_tokens = 64
lr = { base = 1e-2, width = 16, power = 1 }
[[sizes]]
width = 8
depth = 1
[[sizes]]
width = 32
depth = 1
heads = 2
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ladder.toml"
    path.write_text(text)
    return path


def test_a_ladder_file_gives_isoflop_profiles(tmp_path: Path) -> None:
    lever = Train.from_toml(write(tmp_path, LADDER))
    assert get("levers", "train") is Train
    settings = lever.ladder()
    assert [s["budget_flops"] for s in settings] == sorted(s["budget_flops"] for s in settings)
    for setting in settings:
        params = lever.shape(setting).params
        assert setting["tokens"] % 64 == 0
        assert 6 * params * setting["tokens"] == pytest.approx(setting["budget_flops"], rel=0.05)
        assert 0.4 < setting["tokens"] / params < 5500
    assert settings[-1]["heads"] == 2
    assert lever.peak_rate(32) == pytest.approx(5e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("context", "contxt", "unknown key 'contxt'; did you mean 'context'?"),
        ("heads", "haeds", "unknown key in sizes 'haeds'; did you mean 'heads'?"),
        ("power", "powr", "unknown key in lr 'powr'; did you mean 'power'?"),
        (", power = 1", "", "lr lacks 'power'"),
        ("depth = 1\nheads = 2", "", "a size lacks 'depth'"),
        ("letters", "leters", "unknown key in source_settings of 'zipf_words' 'leters'; did you mean 'letters'?"),
        ('"zipf_words"', '"zipf_word"', "unknown source 'zipf_word'; did you mean 'zipf_words'?"),
        ("context = 16", "context = 15", "batch_tokens 64 is not a multiple of context 15"),
        ("context = 16", 'context = "16"', "context is '16', and should be of type int"),
        ("context = 16", "context = true", "context is True, and should be of type int"),
        ("context = 16", "context = 0", "context is 0, and should be above 0"),
        ("context = 16", "context = 16\neval_tokens = 20", "eval_tokens 20 is less than two windows of context 16"),
        ("context = 16", 'schedule = "wds"', "unknown schedule 'wds'; did you mean 'wsd'?"),
        ("[0.5, 5000]", "[1]", "tokens_per_param is (1,), and should be 2 numbers"),
        ("[1e8, 1e9]", "1e8", "budgets is 100000000.0, and should be a list of numbers"),
        ("[1e8, 1e9]", "[-1.0]", "budgets hold -1.0; give positive numbers"),
        ("budgets = [1e8, 1e9]", "", "give either budgets (FLOPs) or tokens"),
        ("context = 16", "tokens = [64]", "give either budgets (FLOPs) or tokens"),
        ("[[sizes]]", "[[size]]", "unknown key 'size'; did you mean 'sizes'?"),
        ("[1e8", "[1e8,,", "not valid TOML"),
        ("decay", "decay", ""),
    ],
)
def test_a_bad_ladder_file_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, LADDER.replace(old, new))
    if not message:
        Train.from_toml(path)
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        Train.from_toml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_ladder_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the ladder file .*nothing\.toml: No such file"):
        Train.from_toml(tmp_path / "nothing.toml")


def test_too_little_text_is_refused() -> None:
    source = text_source({"a": b"short"}, {"b": b"shorter"}, name="t")
    with pytest.raises(ValueError, match="training text has 5 tokens, fewer than one window of 9"):
        source.batch(seed=0, step=0, count=1, context=8)
    with pytest.raises(ValueError, match="held-out text has 7 tokens, fewer than two windows of 4"):
        source.held_out(count=2, context=4)


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
