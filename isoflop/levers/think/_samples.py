"""Recorded samples by problem: read in chunks from what people have, held as a few numbers a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop.levers.think._sample_files import COSTS, Chunk, chunks_of, prices_of

Array = np.ndarray


@dataclass(frozen=True)
class Samples:
    """Samples in order of problem: those of problem i are rows start[i] to start[i + 1] of every column.

    columns: correct (0, 1), and where recorded answer (a number per problem, -1 for none), score, and costs. In counts
    form there are no rows: n, c and mean costs a sample are all there is. cluster: which problems belong together when
    problems are resampled. how["together"]: samples of one call shared one reading of the prompt.
    """

    problems: tuple[str, ...]
    n: Array
    c: Array
    start: Array
    columns: Mapping[str, Array]
    cost: Mapping[str, Array]  # of one sample, mean by problem
    cluster: Array
    how: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def rows(self) -> bool:
        """Whether the samples themselves are here, and not only their counts."""
        return "correct" in self.columns

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """(problems, rows (problems, n)) of problems with the same number of samples."""
        for n in np.unique(self.n):
            which = np.flatnonzero(self.n == n)
            yield which, self.start[which][:, None] + np.arange(int(n))

    def table(self, name: str, rows: Array) -> Array:
        """A column at the rows of a block: (problems, n)."""
        column = self.columns[name]
        return column.reshape(rows.shape) if rows.size == column.size else column[rows]  # then it is the only block


def read_samples(
    source: Any, *, rename: Mapping[str, str] | None = None, only: Mapping[str, Any] | None = None,
    unit: str | Sequence[str] = "problem", by: str | None = None, same: Callable[[str], str] | None = None,
    prices: Mapping[str, float] | None = None,
) -> Samples:  # fmt: skip
    """Recorded samples from a store, CSV, JSON lines or Parquet, lm-evaluation-harness or Inspect logs, or a table

    One row a sample: problem, correct (0 or 1), and where there are answer, score, gen_tokens, prompt_tokens, seconds,
    usd. Or counts, one row a problem: problem, n, c (costs are then totals over the n). rename: {theirs: ours}. only:
    rows to keep, {column: value}. unit: the column, or several, that make one problem, as ("seed", "problem"). by: the
    column by which problems are resampled; the last of `unit` unless told. same: what makes two answers the same, a
    function to one spelling; unless told the recorded text. prices: USD per million tokens, {prompt, gen}, for samples
    that record tokens and no usd; unless told those of the run whose folder this is. What a store holds besides graded
    samples is left out, and said so. Raises ValueError for what cannot be used.
    """
    units = (unit,) if isinstance(unit, str) else tuple(unit)
    build = _Builder(units, by or units[-1], dict(only or {}), same)
    build.prices = dict(prices_of(source) if prices is None else prices)
    for chunk in chunks_of(source, dict(rename or {}), {*units, by or units[-1], *(only or {})}):
        build.add(chunk)
    return build.done()


class _Builder:
    def __init__(
        self, units: tuple[str, ...], by: str, only: dict[str, Any], same: Callable[[str], str] | None
    ) -> None:
        self.units, self.by, self.only, self.same = units, by, only, same
        self.ids: dict[str, int] = {}
        self.clusters: dict[str, int] = {}
        self.cluster: list[int] = []
        self.parts: dict[str, list[Array]] = {}
        self.left_out: dict[str, int] = {}
        self.counts: bool | None = None
        self.together = False
        self.prices: dict[str, float] = {}
        self.notes = _Notes()
        self.kinds: dict[str, set[str]] = {n: set() for n in ("model", "strategy") if n not in (*only, *units)}

    def add(self, chunk: Chunk) -> None:
        chunk = self.notes.take(chunk)
        keep = self._keep(chunk)
        get = {name: np.asarray(values)[keep] for name, values in chunk.cells.items()}
        lines = np.asarray(chunk.lines)[keep]
        _need(get, self.units, chunk.place)
        counts = "n" in get and "c" in get and "correct" not in get
        if self.counts not in (None, counts):
            raise ValueError(f"{chunk.place}: rows of samples and rows of counts cannot be read as one")
        self.counts = counts
        if not len(lines):
            return
        self._put("problem", self._problems(get))
        names = ("n", "c") if counts else ("correct",)
        for name in names:
            if name not in get:
                raise ValueError(
                    f"{chunk.place} has no column {name!r}; needs correct, or n and c (rename THEIRS=OURS)"
                )
            self._put(name, _whole(get[name], name, chunk.place, lines))
        if "shared_tokens" in get and "prompt_tokens" in get:
            get |= self._own_prompt(get)
        for name in (*COSTS, *(() if counts else ("score",))):
            if name in get and not _all_absent(get[name]):
                self._put(name, _numbers(get[name], name, chunk.place, lines).astype("f4" if name != "score" else "f8"))
        if "answer" in get and not counts:
            self._put("answer", self._answers(get["answer"]))
        if "key" in get and "role" in get:
            self._put("key", _marks(get["key"]))
            self.notes.ways(get.get("settings", ()))

    def _own_prompt(self, get: Mapping[str, Array]) -> dict[str, Array]:
        """Where samples of one call shared a reading of the prompt, the whole prompt and the seconds of each."""
        shared = np.array([0.0 if _absent(v) else float(v) for v in get["shared_tokens"]])
        self.together = self.together or bool((shared > 0).any())
        out = {"prompt_tokens": get["prompt_tokens"].astype(float) + shared}
        if "seconds" in get:
            out["seconds"] = np.where(shared > 0, 0.0, get["seconds"].astype(float))
        return out

    def _keep(self, chunk: Chunk) -> Array:
        keep = np.ones(len(chunk.lines), bool)
        if "role" in chunk.cells:
            keep &= np.asarray(chunk.cells["role"], object) != "probe"  # what the client found out, in every store
        for name, value in self.only.items():
            if name not in chunk.cells:
                raise ValueError(f"{chunk.place} has no column {name!r} to choose rows by")
            keep &= np.array([_text(v) == str(value) for v in chunk.cells[name]], bool)
        for name, good, why in _SKIP:
            if name in chunk.cells:
                fine = np.array([_absent(v) or _text(v) == good for v in chunk.cells[name]], bool)
                self.left_out[why] = self.left_out.get(why, 0) + int((keep & ~fine).sum())
                keep &= fine
        if "role" in chunk.cells and "correct" in chunk.cells:  # a store, where that is no mistake
            graded = np.array([not _absent(v) for v in chunk.cells["correct"]], bool)
            self.left_out[_UNGRADED] = self.left_out.get(_UNGRADED, 0) + int((keep & ~graded).sum())
            keep &= graded
        for name, values in self.kinds.items():
            if name in chunk.cells and len(values) < 2:
                values.update(map(_text, np.asarray(chunk.cells[name], object)[keep]))
        return keep

    def _problems(self, get: Mapping[str, Array]) -> Array:
        codes, names = _factors(get[self.units[0]])
        for unit in self.units[1:]:
            more, texts = _factors(get[unit])
            pairs, codes = np.unique(codes * len(texts) + more, return_inverse=True)
            names = [f"{names[p // len(texts)]}/{texts[p % len(texts)]}" for p in pairs]
        first = np.unique(codes, return_index=True)[1]
        for place in np.argsort(first):  # problems in order of appearance
            group = (
                _text(get[self.by][first[place]]) if self.by != self.units[0] or len(self.units) > 1 else names[place]
            )
            if names[place] not in self.ids:
                self.ids[names[place]] = len(self.ids)
                self.cluster.append(self.clusters.setdefault(group, len(self.clusters)))
        return np.array([self.ids[name] for name in names], np.int32)[codes]

    def _answers(self, values: Array) -> Array:
        """A 64-bit hash of each answer; 0 where there is none."""
        import pandas as pd

        codes, known = pd.factorize(np.asarray(values, object))  # None and nan: code -1
        texts = np.array([_text(v) for v in known], object)
        if self.same is not None:
            texts = np.array([self.same(t) for t in texts], object)
        hashes = pd.util.hash_array(texts).view(np.int64) if len(texts) else np.zeros(0, np.int64)
        hashes = np.where(texts == "", 0, hashes)
        return np.append(hashes, 0)[codes]

    def _put(self, name: str, values: Array) -> None:
        self.parts.setdefault(name, []).append(values)

    def done(self) -> Samples:
        if not self.ids:
            why = "; ".join(f"{k} {why} left out" for why, k in self.left_out.items() if k)
            raise ValueError(f"no samples to use: {why or 'the source has no rows, or none that were asked for'}")
        rows = sum(map(len, self.parts["problem"]))
        short = [k for k, v in self.parts.items() if sum(map(len, v)) != rows]
        if short:
            raise ValueError(f"column {short[0]!r} is there in some of the files only")
        flat = {}
        for name in list(self.parts):
            flat[name] = np.concatenate(self.parts.pop(name))
        words = tuple(f"{k} {why} left out" for why, k in self.left_out.items() if k)
        words += self.notes.give(flat)
        words += tuple(
            f"samples of more than one {name} are taken together; choose with only="
            for name, v in self.kinds.items()
            if len(v) > 1
        )
        how = {"unit": "/".join(self.units), "by": self.by, "equality": _name(self.same), "together": self.together}
        how |= {"sampling": self.notes.settings, "prices": self.prices}
        common = {"problems": tuple(self.ids), "cluster": np.array(self.cluster), "how": how, "warnings": words}
        return self._from_counts(flat, common) if self.counts else self._from_rows(flat, common)

    def _from_counts(self, flat: dict[str, Array], common: dict[str, Any]) -> Samples:
        where = flat.pop("problem")
        if len(where) != len(self.ids):
            twice = tuple(self.ids)[int(np.bincount(where).argmax())]
            raise ValueError(
                f"problem {twice!r} has more than one row of counts; choose rows with only=, or widen unit="
            )
        from isoflop.levers.think._estimators import counts

        n, c = counts(flat.pop("n"), flat.pop("c"))
        cost = {k: v / n for k, v in flat.items()}
        return Samples(
            n=n.astype(int), c=c.astype(int), start=np.zeros(len(n) + 1, int), columns={}, cost=cost, **common
        )

    def _from_rows(self, flat: dict[str, Array], common: dict[str, Any]) -> Samples:
        where = flat.pop("problem")
        n = np.bincount(where, minlength=len(self.ids))
        start = np.concatenate([[0], np.cumsum(n)])
        if (np.diff(where) < 0).any():
            order = np.argsort(where, kind="stable")
            for name in list(flat):
                flat[name] = flat[name][order]
        bad = ~np.isin(flat["correct"], (0, 1))
        if bad.any():
            raise ValueError(f"correct must be 0 or 1; it is {flat['correct'][bad][0]:g}")
        flat["correct"] = flat["correct"].astype(np.int8)
        if "answer" in flat:
            flat["answer"] = _local_codes(flat["answer"], start)
        c = np.add.reduceat(flat["correct"], start[:-1], dtype=int)
        cost = {k: np.add.reduceat(flat[k], start[:-1], dtype=float) / n for k in COSTS if k in flat}
        return Samples(n=n, c=c, start=start, columns=flat, cost=cost, **common)


class _Notes:
    """What a store says beside its samples: a verifier's scores of them, and how they were asked for."""

    def __init__(self) -> None:
        self.keys: list[Array] = []
        self.scores: list[Array] = []
        self.verifiers: dict[str, None] = {}
        self._settings: dict[tuple[Any, ...], None] = {}

    def take(self, chunk: Chunk) -> Chunk:
        """The chunk without its scores, which are kept here."""
        if not {"role", "sample", "verifier"} <= set(chunk.cells):
            return chunk
        mine = np.array([v is not None for v in chunk.cells["verifier"]], bool)
        get = {name: np.asarray(values, object)[mine] for name, values in chunk.cells.items()}
        self.keys.append(_marks(get["sample"]))
        self.scores.append(get["score"].astype(float))
        self.verifiers |= dict.fromkeys(get["verifier"])
        lines = np.asarray(chunk.lines)[~mine]
        return Chunk({k: np.asarray(v, object)[~mine] for k, v in chunk.cells.items()}, lines, chunk.place)

    def ways(self, settings: Iterable[Any]) -> None:
        """Note settings as the store writes them."""
        for s in settings:
            if isinstance(s, Mapping):
                self._settings[s.get("temperature"), s.get("max_tokens"), tuple(s.get("stop") or ())] = None

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        """Each way in which samples were asked for."""
        return tuple({"temperature": t, "max_tokens": m, "stop": list(s)} for t, m, s in self._settings)

    def give(self, flat: dict[str, Array]) -> tuple[str, ...]:
        """Put the scores into the column `score`, where all samples have one; what there is to say about it."""
        keys = flat.pop("key", None)
        if keys is None or not self.keys:
            return ()
        known, score = np.concatenate(self.keys)[::-1], np.concatenate(self.scores)[::-1]  # the last one counts
        known, first = np.unique(known, return_index=True)
        place = np.searchsorted(known, keys).clip(0, len(known) - 1)
        found = known[place] == keys
        names = ", ".join(self.verifiers)
        if not found.all():
            return (f"{int((~found).sum())} samples have no score of {names}: none is used",)
        flat["score"] = score[first][place]
        return (
            (f"scores of {names} are taken together, the last one of each sample",) if len(self.verifiers) > 1 else ()
        )


def _marks(keys: Iterable[str]) -> Array:
    """64 bits for each key, the same for the same key within this process."""
    return np.fromiter(map(hash, keys), np.int64)


_SKIP = (
    ("role", "model", "records that are no samples"), ("error", "", "failed calls"), ("status", "ok", "failed calls"),
)  # fmt: skip
_UNGRADED = "samples without a grade (continuations of a begun answer)"


def _need(cells: Mapping[str, Any], names: Iterable[str], place: str) -> None:
    for name in names:
        if name not in cells:
            raise ValueError(
                f"{place} has no column {name!r}; it has {', '.join(cells) or 'none'} (rename THEIRS=OURS)"
            )


def _all_absent(values: Array) -> bool:
    return values.dtype.kind not in "biu" and all(map(_absent, values[:1])) and all(map(_absent, values))


def _absent(v: Any) -> bool:
    return v is None or v == "" or v != v


def _text(v: Any) -> str:
    if isinstance(v, str):
        return str(v)  # numpy's texts are another type
    if _absent(v):
        return ""
    return str(int(v)) if isinstance(v, float | np.floating) and v == int(v) else str(v)


def _factors(values: Array) -> tuple[Array, list[str]]:
    """Codes from 0, and the text of each code."""
    import pandas as pd

    codes, known = pd.factorize(values, use_na_sentinel=False)
    return codes, [_text(v) for v in known]


def _name(same: Callable[[str], str] | None) -> str:
    return "recorded text" if same is None else getattr(same, "__name__", "a function")


_TRUTH = {"true": 1.0, "false": 0.0, "c": 1.0, "i": 0.0}


def _numbers(values: Array, name: str, place: str, lines: Array) -> Array:
    plain = values.dtype.kind in "biuf"
    out = values.astype(float) if plain else np.array([_number(v) for v in values], float)
    bad = ~np.isfinite(out)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"{place} row {lines[i]}: {name} is {_text(values[i])!r}; needs a number in every row")
    return out


def _number(v: Any) -> float:
    try:
        return float(v)
    except (TypeError, ValueError):
        return _TRUTH.get(_text(v).strip().lower(), float("nan"))


def _whole(values: Array, name: str, place: str, lines: Array) -> Array:
    out = _numbers(values, name, place, lines)
    return out.astype("f4") if name == "correct" else out


def _local_codes(hashes: Array, start: Array) -> Array:
    """Answers of each problem as 0, 1, ...; -1 for none."""
    out = np.full(len(hashes), -1, np.int32)
    for i in range(len(start) - 1):
        part = hashes[start[i] : start[i + 1]]
        has = part != 0
        out[start[i] : start[i + 1]][has] = np.unique(part[has], return_inverse=True)[1]
    return out
