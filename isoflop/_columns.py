"""Columns: what the common ones mean, how a cell becomes a number, and the table they make up."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

Array = NDArray[Any]


class RunsError(ValueError):
    """A table that cannot be used as it is. The message is one sentence: what, where, and what to do."""


class Column(NamedTuple):
    """What a column holds: its unit ("label" for names that are never parsed as human numbers) and its meaning."""

    unit: str
    meaning: str


COLUMNS: dict[str, Column] = {
    "run": Column("label", "name of one training or sampling run; rows of one run are its checkpoints"),
    "step": Column("steps", "optimiser steps done when the row was measured"),
    "seed": Column("label", "random seed of the run"),
    "status": Column("label", "ok, or failed: a failed run stays with its cost and an empty metric"),
    "source": Column("label", "where the row comes from: file, paper, machine"),
    "family": Column("label", "model family the run belongs to"),
    "model": Column("label", "model name"),
    "data": Column("label", "name of the training data"),
    "strategy": Column("label", "name of the search strategy"),
    "loss": Column("nats/token", "held-out loss"),
    "loss_se": Column("nats/token", "standard error of loss"),
    "accuracy": Column("fraction", "share of items answered correctly, 0 to 1"),
    "accuracy_se": Column("fraction", "standard error of accuracy"),
    "params": Column("count", "all parameters, embeddings included"),
    "params_nonembed": Column("count", "parameters without embeddings"),
    "params_active": Column("count", "parameters used per token (experts)"),
    "tokens": Column("tokens", "training tokens seen, repeats counted"),
    "unique": Column("tokens", "distinct training tokens"),
    "epochs": Column("passes", "passes over the distinct tokens: tokens / unique"),
    "batch_tokens": Column("tokens", "tokens per optimiser step"),
    "context": Column("tokens", "sequence length"),
    "flops": Column("FLOP", "compute spent, as the meter that filled it counts"),
    "seconds": Column("s", "measured wall time"),
    "usd": Column("USD", "money spent"),
    "lr": Column("1/step", "learning rate in force at the row"),
    "lr_area": Column("lr steps", "S1: sum of the learning rate over steps so far"),
    "anneal_area": Column("lr steps", "S2: accumulated fall of the learning rate, with momentum"),
    "experts": Column("count", "experts per layer"),
    "bits_weights": Column("bit", "bits per weight"),
    "bits_acts": Column("bit", "bits per activation"),
    "samples": Column("count", "samples drawn per problem"),
    "beam_width": Column("count", "beams kept"),
    "turns": Column("count", "rounds of generation"),
    "loss_before": Column("nats/token", "loss of the model as it was, before a lever changed it"),
    "loss_increase": Column("nats/token", "loss after less loss before"),
    "gen_tokens": Column("tokens", "tokens generated per problem, all samples counted"),
    "prompt_tokens": Column("tokens", "prompt tokens read per problem"),
}

LABELS = frozenset(name for name, column in COLUMNS.items() if column.unit == "label")
METRICS = frozenset({"loss", "loss_se", "accuracy", "accuracy_se"})

# Spellings seen in published tables. Only ever used to word a hint, never to rename on their own.
ALIASES: dict[str, tuple[str, ...]] = {
    "run": ("run_id", "run_name", "name", "id", "experiment"),
    "step": ("steps", "iteration", "iter", "train_iters", "current_steps", "global_step"),
    "loss": ("val_loss", "eval_loss", "test_loss", "train_loss", "final_loss", "c4_loss", "L", "nll"),
    "accuracy": ("acc", "acc1", "top1", "score"),
    "params": ("N", "n_params", "num_params", "parameters", "model_size", "params_total", "total_parameter_count"),
    "params_nonembed": ("N_no_emb", "params_no_embed", "non_embedding_params", "N_nonemb"),
    "params_active": ("active_params", "N_active", "n_active"),
    "tokens": ("D", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "dataset_size"),
    "unique": ("U", "unique_tokens", "u_tokens"),
    "flops": ("C", "flop", "train_flop", "training_flops", "train_flops", "compute", "total_flops"),
    "seconds": ("time", "wall_time", "runtime", "duration", "time_s"),
    "usd": ("cost", "price", "dollars", "cost_usd"),
    "lr": ("learning_rate", "peak_lr", "eta"),
    "batch_tokens": ("batch_size_tokens", "tokens_per_step", "B"),
    "epochs": ("epoch", "n_epochs", "total_epochs"),
}


def closest(name: str, present: Iterable[str]) -> list[str]:
    """Up to three of the `present` columns that may be meant by `name`: known aliases first, then similar spellings."""
    import difflib

    have = list(dict.fromkeys(present))
    folded = {re.sub(r"\W|_", "", alias).casefold() for alias in (name, *ALIASES.get(name, ()))}
    known = [h for h in have if re.sub(r"\W|_", "", h).casefold() in folded]
    similar = difflib.get_close_matches(name, have, n=3, cutoff=0.6)
    return list(dict.fromkeys(known + similar))[:3]


def missing_column(name: str, present: Iterable[str], place: str, *, rename: bool = True) -> str:
    """The sentence for a column that is not there: the closest ones, and with `rename` the option that renames one."""
    have = list(present)
    close = closest(name, have)
    if close:
        hint = f" (try --rename {plain(close[0])}={plain(name)})" if rename else ""
        return f"{place}: no column {show(name)}; closest: {' or '.join(map(show, close))}{hint}"
    listed = ", ".join(map(show, have[:8])) + (f" and {len(have) - 8} more" if len(have) > 8 else "")
    hint = f" (--rename THEIRS={plain(name)})" if rename else ""
    return f"{place}: no column {show(name)}; there are {listed or 'none'}{hint}"


def show(value: object, limit: int = 40) -> str:
    """`value` quoted on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def plain(text: str) -> str:
    """`text` as it stands where it prints on one line, else escaped: file names may hold anything."""
    return text if text.isprintable() else ascii(text)[1:-1]


# ---- cells -----------------------------------------------------------------------------------------------------------

MISSING = frozenset({"", "-", "na", "n/a", "<na>", "nan", "nat", "null", "none"})
_POWER = {"k": "e3", "K": "e3", "M": "e6", "B": "e9", "b": "e9", "G": "e9", "T": "e12"}
_SUFFIXED = re.compile(r"([+-]?(?:\d[\d_,]*\.?\d*|\.\d+))\s?([kKMBbGT])")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_PLAIN_INT = re.compile(r"-?(?:0|[1-9]\d{0,14})")


def number(cell: str, *, commas: bool = True) -> float | None:
    """The number that a person wrote, nan where the cell says it has none, None where it is not a number.

    Accepts what Python's float does, `1.4B 300M 70k 2T` (k K M B b G T; a lone `m` could be milli and is not taken)
    and, with `commas`, thousands in groups of three: `1,000`.
    """
    text = cell.strip()
    if text.casefold() in MISSING:
        return np.nan
    power = ""
    if match := _SUFFIXED.fullmatch(text):
        text, power = match[1], _POWER[match[2]]
    if "," in text:
        if not (commas and _GROUPED.fullmatch(text)):
            return None
        text = text.replace(",", "")
    try:  # the suffix becomes an exponent so that 1.4B is the float nearest 1.4e9, not 1.4 * 1e9
        return float(text + power)
    except ValueError:
        return None


def numbers(cells: Sequence[str], *, commas: bool = True) -> NDArray[np.float64] | None:
    """All `cells` as float64, missing ones as nan; None if any is not a number, or none is and some say so in words."""
    with contextlib.suppress(ValueError):
        return np.array(cells, dtype=np.float64)
    out = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            out[i] = float(cell or "nan")
        except ValueError:
            value = number(cell, commas=commas)
            if value is None:
                return None
            out[i] = value
    return out if not np.isnan(out).all() or not any(cells) else None


def whole_labels(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Labels as numbers only where nothing is lost: every cell a plain integer below 1e15, or empty."""
    if all(_PLAIN_INT.fullmatch(c) or not c for c in set(cells)):
        return np.array([c or "nan" for c in cells], dtype=np.float64)
    return None


def not_a_number(cell: str) -> str:
    """Why `cell` was not taken as a number, as the end of a sentence that starts with the cell."""
    text = cell.strip()
    if re.fullmatch(r"[+-]?[\d.]+\s?m", text):
        return f"could be milli or million; write {text[:-1].strip()}M or {text[:-1].strip()}e-3"
    if re.fullmatch(r"[+-]?[\d.]+\s?[gt]", text):
        return f"is not a number; write {text[:-1].strip()}{text[-1].upper()}"
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return f"has a comma that may be decimal; write {text.replace(',', '.')} or {text.replace(',', '')}"
    if text[:1] in ("{", "["):
        return "is nested, not a number; flatten it to one column per value"
    return "is not a number"


def cell_text(value: object) -> str:
    """Any single value as the text that a CSV cell of it would hold; "" where it is missing."""
    if isinstance(value, str):
        return value.strip()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    if isinstance(value, (dict, list, tuple)):
        import json

        return json.dumps(value, default=str)
    try:
        return str(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "inf"


def number_text(value: float) -> str:
    """The shortest text that reads back as `value`: integers without a point, "" for nan."""
    if np.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def settle(cells: Sequence[str], text: bool, commas: bool = True) -> Array | list[str]:
    """One column of a file as numbers if it is one, else as stripped texts, equal ones sharing memory."""
    parsed = None if text else numbers(cells, commas=commas)
    seen: dict[str, str] = {}
    return [seen.setdefault(cell, cell) for cell in map(str.strip, cells)] if parsed is None else parsed


def from_values(values: list[Any], text: bool) -> Array | list[str]:
    """A list of Python values as numbers if all are, else as the texts that a CSV file would hold."""
    if not text and set(map(type, values)) <= {int, float, type(None)}:
        try:
            return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        except OverflowError:  # an integer beyond 1.8e308: its text reads as inf, which the checks refuse
            pass
    return settle([cell_text(v) for v in values], text)


def as_array(values: Any) -> Array:
    if "numpy.ma" in sys.modules and isinstance(values, np.ma.MaskedArray):  # 15 ms to import
        return np.ma.filled(values.astype(object), np.nan)
    if isinstance(values, (list, tuple)):  # numpy would turn a list of numbers and texts into texts of its own making
        return np.fromiter(values, dtype=object, count=len(values))
    return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)


def from_array(name: str, array: Array, text: bool) -> Array | list[str]:
    if array.dtype.kind in "fiu" and not text:
        with np.errstate(over="ignore"):
            out = array.astype(np.float64)
        known = out[~np.isnan(out)]
        if name not in LABELS or bool(np.all((np.abs(known) < 1e15) & (np.trunc(known) == known))):
            return out
    values = array.astype(str).tolist() if array.dtype.kind in "Mm" else array.tolist()
    return from_values(values, text or name in LABELS)


# ---- the table -------------------------------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A row that was not taken, and why."""

    file: str
    line: int
    column: str
    value: str
    reason: str
    row: Mapping[str, str] = {}
    unit: str = "line"

    def __str__(self) -> str:
        place = f"{self.file} {self.unit} {self.line}" if self.line > 0 or self.unit == "row" else self.file
        column = f", column {show(self.column)}" if self.column else ""
        return f"{place}{column}: {_quoted(self.value)}{self.reason}"


@dataclass(frozen=True, eq=False)
class Origin:
    """Where each row stood: `files[file[i]]`, at `line[i]` (1-based lines of a text file, 0-based rows otherwise)."""

    files: tuple[str, ...]
    units: tuple[str, ...]
    file: NDArray[np.int32]
    line: NDArray[np.int64]
    commas: bool = True  # False where a ;-separated file makes a comma in a number ambiguous

    def select(self, rows: Array) -> Origin:
        return replace(self, file=self.file[rows], line=self.line[rows])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length: float64 for numbers (missing is nan), objects for text (missing is "")."""

    columns: dict[str, Array]
    where_from: Origin
    refused: list[Refused] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.where_from.line)

    def __getitem__(self, name: str) -> Array:
        """The column called `name`; RunsError with the closest names where there is none."""
        if name not in self.columns:
            raise RunsError(missing_column(name, self.columns, self.name))
        return self.columns[name]

    @property
    def name(self) -> str:
        """What to call the table in a message: its file, or how many there are."""
        files = self.where_from.files
        return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more" if files else "table"

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over all columns; file names and the order of columns do not enter, the order of rows does."""
        return self.hash_of(self.columns)

    def hash_of(self, names: Iterable[str]) -> str:
        """SHA-256 over some columns: one nan, one zero, lengths before texts, so that no two tables share it."""
        digest = hashlib.sha256()
        for name in sorted(set(names)):
            values = self[name]
            text = values.dtype == object
            digest.update(_framed([name, "text" if text else "number", str(len(values))]))
            digest.update(_framed(values) if text else _canonical(values))
        return digest.hexdigest()

    def select(self, rows: Array) -> Table:
        """The rows that a boolean mask or an integer index picks."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, where_from=self.where_from.select(rows))

    def with_column(self, name: str, values: Any) -> Table:
        """The table with one column added or replaced. Raises RunsError where the length does not fit."""
        array = np.asarray(values)
        array = array.astype(np.float64) if array.dtype.kind in "fiu" else array.astype(object)
        if array.shape != (len(self),):
            raise RunsError(f"column {show(name)} has shape {array.shape}; the table has {len(self)} rows")
        return replace(self, columns={**self.columns, name: array})

    def cell(self, row: int, column: str) -> str:
        """One cell as text, quoted where it is text."""
        value = self[column][row]
        return show(value) if isinstance(value, str) else number_text(float(value))

    def place(self, row: int) -> str:
        """Where a row came from, as in `runs.csv line 14`."""
        file = self.where_from.file[row]
        return f"{self.where_from.files[file]} {self.where_from.units[file]} {self.where_from.line[row]}"

    def refusal(self, row: int, column: str, reason: str) -> Refused:
        """The record of a row that is not taken because of one of its cells."""
        origin, file = self.where_from, self.where_from.file[row]
        cells = {name: _as_text(values[row]) for name, values in self.columns.items()}
        line = int(origin.line[row])
        return Refused(origin.files[file], line, column, cells[column], reason, cells, origin.units[file])

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame: numbers as float64, text as text, columns of only True and False as booleans."""
        import pandas

        def plain_column(values: Array) -> Array:
            is_bool = values.dtype == object and len(values) > 0 and set(values) <= {"True", "False"}
            return values == "True" if is_bool else values

        return pandas.DataFrame({name: plain_column(values) for name, values in self.columns.items()})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file that `load` reads back to the same table; all of it appears at once or nothing does."""
        write_csv(path, list(self.columns), zip(*map(_texts, self.columns.values()), strict=True))

    def write_refused(self, path: str | os.PathLike[str]) -> int:
        """Write the refused rows with file, line, column and reason to a CSV side file, and say how many there are.

        With none refused nothing is written. The original values follow; a row that has no columns is under `raw`.
        """
        if not self.refused:
            return 0
        if any(Path(path).resolve() == Path(file).resolve() for file in self.where_from.files):
            raise RunsError(f"refused rows would overwrite {plain(str(path))}, where they come from; give another file")
        ours = ["file", "line", "column", "value", "reason"]
        theirs = list(dict.fromkeys(name for r in self.refused for name in r.row))
        header = ours + [f"{name}_" if name in ours else name for name in theirs]
        rows = ([r.file, str(r.line), r.column, r.value, r.reason, *(r.row.get(n, "") for n in theirs)]
                for r in self.refused)  # fmt: skip
        write_csv(path, header, rows)
        return len(self.refused)


def write_csv(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file beside its final place and move it there, so that a reader never sees half of it."""
    final = Path(path)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:  # a lone surrogate (JSON allows them) has no UTF-8 form: it is written as its escape
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
            usual = csv.writer(out, lineterminator="\n")
            quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
            for row in chain([header], rows):  # Python before 3.13 leaves a bare carriage return unquoted
                (quoted if "\r" in "".join(row) else usual).writerow(row)
        os.replace(part, final)
    except OSError as exc:
        raise RunsError(f"cannot write {plain(str(path))}: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    """A cell as a sentence names it: numbers bare, all else quoted, nothing where there is no value."""
    if not value:
        return ""
    is_number = number(value, commas=False) is not None and value.isprintable() and len(value) <= 40
    return f"{value if is_number else show(value)} "


def _texts(values: Array) -> Iterable[str]:
    """A column as cells: integers without a point only where all are, which is what makes it quick."""
    if values.dtype == object:
        return values.tolist()
    empty = np.isnan(values)
    if np.all((np.abs(values) < 1e15) & (np.trunc(values) == values) | empty):
        texts = map(str, np.where(empty, 0, values).astype(np.int64).tolist())
    else:
        texts = map(repr, values.tolist())
    return ("" if gone else text for gone, text in zip(empty.tolist(), texts, strict=True))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else number_text(float(value))


def _framed(texts: Iterable[str]) -> bytes:
    def parts() -> Iterator[bytes]:
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            yield f"{len(encoded)}:".encode() + encoded

    return b"".join(parts())


def _canonical(values: Array) -> bytes:
    clean = values.astype("<f8") + 0.0  # -0.0 becomes 0.0
    clean[np.isnan(clean)] = np.nan
    return clean.tobytes()
