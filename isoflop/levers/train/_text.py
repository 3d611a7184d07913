"""Sources of tokens: text files, the standard library's own source, and a language whose entropy is known.

A source gives the training batch of a (seed, step), always the same one, and one fixed held-out set.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Source(Protocol):
    """What the trainer reads. Windows are (count, context + 1) token ids: inputs, and one token further, targets."""

    @property
    def vocab(self) -> int: ...

    @property
    def unique_tokens(self) -> float:
        """Distinct training tokens; infinite where the source never repeats."""
        ...

    @property
    def entropy_rate(self) -> float | None:
        """The lowest expected loss in nats per token, where it is known."""
        ...

    def batch(self, *, seed: int, step: int, count: int, context: int) -> IntArray:
        """Training windows: a pure function of the arguments."""
        ...

    def held_out(self, *, count: int, context: int) -> tuple[IntArray, FloatArray]:
        """Windows, and for each its known optimal loss in nats/token less the entropy rate (zero where unknown)."""
        ...

    def facts(self) -> dict[str, Any]:
        """Name, sha256 and sizes, as JSON values."""
        ...


@dataclass(frozen=True)
class TextSource:
    """Token ids of training files and of whole held-out files.

    Training windows do not overlap; each epoch shifts them by another offset and shuffles them, both drawn from
    (seed, epoch), so that the batch of a step never depends on how the run got there.
    """

    train: np.ndarray[Any, Any]
    heldout: np.ndarray[Any, Any]
    vocab: int
    provenance: dict[str, Any] = field(default_factory=dict)
    entropy_rate: float | None = None

    @property
    def unique_tokens(self) -> float:
        return float(len(self.train))

    def batch(self, *, seed: int, step: int, count: int, context: int) -> IntArray:
        per_epoch = (len(self.train) - context - 1) // context
        if per_epoch < 1:
            raise ValueError(f"the training text has {len(self.train)} tokens, fewer than one window of {context + 1}")
        index = np.arange(step * count, (step + 1) * count)
        starts = np.empty(count, dtype=np.int64)
        for epoch in np.unique(index // per_epoch):
            here = index // per_epoch == epoch
            offset, order = _epoch(seed, int(epoch), per_epoch, context)
            starts[here] = offset + context * order[index[here] % per_epoch]
        return _windows(self.train, starts, context)

    def held_out(self, *, count: int, context: int) -> tuple[IntArray, FloatArray]:
        available = (len(self.heldout) - 1) // context
        if available < 2:
            raise ValueError(f"the held-out text has {len(self.heldout)} tokens, fewer than two windows of {context}")
        picked = np.linspace(0, available - 1, min(count, available)).round().astype(np.int64)
        return _windows(self.heldout, picked * context, context), np.zeros(len(picked))

    def facts(self) -> dict[str, Any]:
        return self.provenance


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, windows: int, context: int) -> tuple[int, IntArray]:
    rng = np.random.default_rng([seed, epoch])
    return int(rng.integers(context)), rng.permutation(windows)


def _windows(ids: np.ndarray[Any, Any], starts: IntArray, context: int) -> IntArray:
    return ids[starts[:, None] + np.arange(context + 1)].astype(np.int64)


def text_source(
    train: Mapping[str, bytes], heldout: Mapping[str, bytes], *, name: str, bpe_vocab: int = 0
) -> TextSource:
    """A source of files given as name -> content; `bpe_vocab` 0 is bytes, else a byte-level BPE of about that size."""
    for part, files in (("training", train), ("held-out", heldout)):
        if not any(files.values()):
            raise ValueError(f"source {name!r} has no {part} text; give more files, or heldout_paths")
    texts = [[files[key] for key in sorted(files)] for files in (train, heldout)]
    ids, vocab = _bytes(texts) if bpe_vocab == 0 else _bpe(texts, bpe_vocab)
    size = sum(len(text) for part in texts for text in part)
    provenance = {
        "name": name, "files": len(train) + len(heldout), "heldout_files": len(heldout), "bytes": size,
        "sha256": _digest({**train, **heldout}), "vocab": vocab, "train_tokens": len(ids[0]),
        "heldout_tokens": len(ids[1]), "bytes_per_token": round(size / (len(ids[0]) + len(ids[1])), 4),
    }  # fmt: skip
    return TextSource(train=ids[0], heldout=ids[1], vocab=vocab, provenance=provenance)


def _digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the names, lengths and contents of files, by name."""
    total = hashlib.sha256()
    for key in sorted(files):
        total.update(f"{key}\0{len(files[key])}\0".encode() + files[key])
    return total.hexdigest()


def split_files(files: Mapping[str, bytes], *, fraction: float = 0.1) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Training and held-out files: whole files are held out, where the hash of their name is under the fraction."""
    held = {key for key in files if _hash_fraction(key) < fraction}
    return {k: v for k, v in files.items() if k not in held}, {k: v for k, v in files.items() if k in held}


def _hash_fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _bytes(texts: list[list[bytes]]) -> tuple[list[np.ndarray[Any, Any]], int]:
    # A zero byte stands between files: it is in no text, so the end of a file is a token of its own.
    return [np.frombuffer(b"\0".join(part), dtype=np.uint8) for part in texts], 256


def _bpe(texts: list[list[bytes]], size: int) -> tuple[list[np.ndarray[Any, Any]], int]:
    """Train on the training files alone; each file ends with a token of its own."""
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ModuleNotFoundError as error:
        raise ImportError("a BPE tokenizer needs tokenizers: pip install 'isoflop[torch]'") from error
    tokenizer, end = ByteLevelBPETokenizer(), "<|end|>"
    decoded = [[text.decode(errors="replace") for text in part] for part in texts]
    tokenizer.train_from_iterator(decoded[0], vocab_size=size, special_tokens=[end], show_progress=False)
    ids = [[i for e in tokenizer.encode_batch(part) for i in (*e.ids, tokenizer.token_to_id(end))] for part in decoded]
    return [np.array(part, dtype=np.uint32) for part in ids], tokenizer.get_vocab_size()


def stdlib_files() -> dict[str, bytes]:
    """The standard library's own .py files; without site-packages, tests, and tables written by programs."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings", "pydoc_data"}
    files = [p for p in root.rglob("*.py") if not skip & set(p.relative_to(root).parts)]
    return _read([p for p in files if not p.name.startswith("_sysconfigdata")], root)


def _read(files: Iterable[Path], root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _match(patterns: Sequence[str], *, what: str) -> list[Path]:
    found = {Path(p).resolve() for pattern in patterns for p in glob.glob(pattern, recursive=True)}
    if files := sorted(p for p in found if p.is_file()):
        return files
    raise ValueError(f"no file matches {what} = {list(patterns)}; globs are read from the working directory")


def _text_files(paths: Sequence[str], heldout_paths: Sequence[str], fraction: float) -> list[dict[str, bytes]]:
    """Training and held-out files of "files": by name, so that moving the folder changes neither split nor sha256."""
    train = _match(paths, what="paths")
    heldout = _match(heldout_paths, what="heldout_paths") if heldout_paths else []
    root = Path(os.path.commonpath([p.parent for p in (*train, *heldout)]))
    if heldout:
        return [_read([p for p in train if p not in heldout], root), _read(heldout, root)]
    return list(split_files(_read(train, root), fraction=fraction))


@dataclass(frozen=True)
class ZipfSource:
    """Words drawn independently with p_r ~ r^-exponent from a lexicon of distinct words of one length.

    A word is word_length - 1 random letters and a separator. Windows hold whole words and the input starts with a
    separator, so no prediction can have a lower expected loss than

        entropy_rate = H(p) / word_length      nats per token.

    Text is generated from (seed, step) without end: nothing is ever repeated but the words themselves.
    """

    words: int = 2**20
    exponent: float = 1.4
    word_length: int = 8
    letters: int = 26
    lexicon_seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.letters < 256 or self.letters ** (self.word_length - 1) < 2 * self.words:
            raise ValueError(
                f"{self.letters} letters give too few words of length {self.word_length} for {self.words} distinct ones"
            )

    @property
    def vocab(self) -> int:
        return self.letters + 1

    @property
    def unique_tokens(self) -> float:
        return math.inf

    @cached_property
    def probabilities(self) -> FloatArray:
        """p of each word, (words,), most frequent first."""
        weight = np.arange(1, self.words + 1, dtype=np.float64) ** -self.exponent
        return weight / weight.sum()

    @cached_property
    def entropy_rate(self) -> float:
        """H(p) / word_length in nats per token."""
        p = self.probabilities
        return float(-(p * np.log(p)).sum() / self.word_length)

    @cached_property
    def lexicon(self) -> np.ndarray[Any, Any]:
        """Token ids of the words, (words, word_length); 0 is the separator, which ends each word."""
        rng = np.random.default_rng([self.lexicon_seed, 0])
        drawn = rng.integers(self.letters ** (self.word_length - 1), size=2 * self.words)
        # In the order drawn: sorting would give neighbouring ranks similar spellings.
        _, first = np.unique(drawn, return_index=True)
        codes = drawn[np.sort(first)]
        while len(codes) < self.words:
            more = rng.integers(self.letters ** (self.word_length - 1), size=self.words)
            codes = np.concatenate([codes, np.setdiff1d(more, codes)])
        powers = self.letters ** np.arange(self.word_length - 1)
        spelled = 1 + codes[: self.words, None] // powers % self.letters
        return np.pad(spelled, ((0, 0), (0, 1))).astype(np.uint8)

    def batch(self, *, seed: int, step: int, count: int, context: int) -> IntArray:
        return self._spell(self._draw(np.random.default_rng([1, seed, step]), count, context))

    def held_out(self, *, count: int, context: int) -> tuple[IntArray, FloatArray]:
        ranks = self._draw(np.random.default_rng([2, self.lexicon_seed]), count, context)
        optimal = -np.log(self.probabilities)[ranks].mean(axis=1) / self.word_length
        return self._spell(ranks), optimal - self.entropy_rate

    def _draw(self, rng: np.random.Generator, count: int, context: int) -> IntArray:
        if context % self.word_length:
            raise ValueError(f"context {context} must be a multiple of the word length {self.word_length}")
        uniform = rng.random((count, context // self.word_length))
        return np.minimum(np.searchsorted(self._cumulative, uniform, side="right"), self.words - 1)

    @cached_property
    def _cumulative(self) -> FloatArray:
        return np.cumsum(self.probabilities)

    def _spell(self, ranks: IntArray) -> IntArray:
        text = self.lexicon[ranks].reshape(len(ranks), -1)
        return np.pad(text, ((0, 0), (1, 0))).astype(np.int64)

    def facts(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.lexicon.tobytes() + self.probabilities.tobytes()).hexdigest()
        return {"name": "zipf_words", "sha256": digest, "vocab": self.vocab, "entropy_rate": self.entropy_rate}


def _open_stdlib(*, bpe_vocab: int = 0, heldout: float = 0.1) -> Source:
    train, held = split_files(stdlib_files(), fraction=heldout)
    return text_source(train, held, name="python_source", bpe_vocab=bpe_vocab)


def _open_files(
    *, paths: Sequence[str], heldout_paths: Sequence[str] = (), bpe_vocab: int = 0, heldout: float = 0.1
) -> Source:
    train, held = _text_files(paths, heldout_paths, heldout)
    return text_source(train, held, name="files", bpe_vocab=bpe_vocab)


SOURCES: dict[str, Callable[..., Source]] = {
    "python_source": _open_stdlib,
    "files": _open_files,
    "zipf_words": ZipfSource,
}
