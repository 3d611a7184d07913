"""Where the train lever's tokens come from, and the files that declare a ladder."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from _trained import WORDS

from isoflop._find import get
from isoflop.levers.train import Train
from isoflop.levers.train._text import ZipfSource, split_files, stdlib_files, text_source

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


def test_too_little_text_is_refused() -> None:
    source = text_source({"a": b"short"}, {"b": b"shorter"}, name="t")
    with pytest.raises(ValueError, match="training text has 5 tokens, fewer than one window of 9"):
        source.batch(seed=0, step=0, count=1, context=8)
    with pytest.raises(ValueError, match="held-out text has 7 tokens, fewer than two windows of 4"):
        source.held_out(count=2, context=4)


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
