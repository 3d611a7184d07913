"""Runs from the tools that recorded them.

done = import_runs("wandb/")
print(done)                              # what became which column, what did not, how N, D and C were counted
fit = isoflop.fit("chinchilla", done.runs)
done.write("runs/")
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop._columns import COLUMNS, LABELS, RunsError, cell_text, number, plain, write_csv
from isoflop.importers._importer import Logged, opened
from isoflop.importers._mapping import COUNTED, Report, Rules, has_held_out, mapped
from isoflop.importers._names import TEXTS

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
_FIRST = ("run", "params", "params_nonembed", "params_active", "tokens", "flops", "loss")
_ADVICE = {
    "params": "give the model's config.json beside the run, --map params=THEIRS, or --set params=NUMBER",
    "tokens": "--map tokens=THEIRS, or --set batch_tokens=NUMBER with --map step=THEIRS where steps are logged",
    "flops": "isoflop fills it as 6 N D once params and tokens are known",
    "loss": "--map loss=THEIRS names the metric",
}


@dataclass(frozen=True)
class Imported:
    """Imported runs: one row a run, its checkpoints, single answers where the tool kept them, and what was done."""

    rows: list[Row]
    points: list[Row]
    samples: dict[str, list[Row]] = field(repr=False)
    report: dict[str, Any]

    @property
    def runs(self) -> pandas.DataFrame:
        """One row a run, as a pandas frame."""
        return _frame(self.rows)

    @property
    def curves(self) -> pandas.DataFrame:
        """One row a checkpoint (run, step, tokens, loss), as a pandas frame; empty where there is no history."""
        return _frame(self.points)

    def write(self, out: str | os.PathLike[str]) -> list[str]:
        """Write runs.csv, curves/curves.csv, samples/*.jsonl and import.json into the folder `out`; return the names.

        All of it appears at once. An earlier import there is replaced; raises RunsError where `out` holds other files.
        """
        final = Path(out)
        if final.exists() and not (final / "import.json").is_file() and (final.is_file() or any(final.iterdir())):
            raise RunsError(f"{plain(str(out))} holds other files than an import's; give a new folder")
        part = final.with_name(f".{final.name}.{os.getpid()}.part")
        try:
            names = self._write(part)
            if final.exists():
                old = final.with_name(f".{final.name}.{os.getpid()}.old")
                final.rename(old)
                part.rename(final)
                shutil.rmtree(old)
            else:
                final.parent.mkdir(parents=True, exist_ok=True)
                part.rename(final)
        except OSError as exc:
            raise RunsError(f"cannot write {plain(str(out))}: {exc.strerror or exc}") from exc
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return names

    def _write(self, folder: Path) -> list[str]:
        (folder / "curves").mkdir(parents=True)
        names = ["runs.csv"]
        _table(folder / "runs.csv", self.rows)
        if self.points:
            _table(folder / "curves" / "curves.csv", self.points)
            names.append("curves/curves.csv")
        else:
            (folder / "curves").rmdir()
        for run, rows in self.samples.items():
            (folder / "samples").mkdir(exist_ok=True)
            name = f"samples/{_file_name(run)}.jsonl"
            (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
            names.append(name)
        (folder / "import.json").write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        return [*names, "import.json"]

    def to_dict(self) -> dict[str, Any]:
        """The report, as plain values."""
        return self.report

    def __str__(self) -> str:
        told = self.report
        head = f"{told['runs']} run{'s' * (told['runs'] != 1)}"
        head += f" and {told['checkpoints']} checkpoints" if told["checkpoints"] else ""
        head += f" and {told['samples']} samples" if told["samples"] else ""
        lines = [f"{head} from {told['source']} ({told['kind']})", ""]
        lines += [f"  {name:<16} {_counted(what, told['runs'])}" for name, what in told["columns"].items()]
        lines += [""] if told["not_mapped"] else []
        for kind, names in told["not_mapped"].items():
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            lines.append(f"  not mapped, {kind}: {', '.join(names[:12])}{more}")
        lines += [""] if told["missing"] else []
        lines += [f"  no {name} in {n} of {told['runs']} runs: {_ADVICE[name]}" for name, n in told["missing"].items()]
        return "\n".join(lines)


def import_runs(
    source: str | os.PathLike[str],
    kind: str | None = None,
    *,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, float | str] | None = None,
    pattern: str | None = None,
) -> Imported:
    """Runs that a tool recorded, as a table of runs and one of checkpoints.

    source: a file, a folder, or an address (an MLflow server's http://..., wandb:entity/project).
    kind: the importer (`isoflop.importers`), recognised from the source where it is not told.
    names: {our column: their name}, for what is not recognised; values: {our column: value} for every run.
    pattern: for plain logs, a regular expression with named groups.

    Loss is held-out where any run has a held-out loss: then a run without one has an empty loss, and its training loss
    is train_loss. Raises RunsError where the source cannot be read or a name is nowhere in it.
    """
    _check_values(values or {})
    found, where, others = opened(os.fspath(source), kind, pattern)
    logged = list(_distinct(found(where)))
    if not logged:
        raise RunsError(f"{plain(os.fspath(source))} holds no run that {found.name} recorded")
    rules = Rules(dict(names or {}), dict(values or {}), any(has_held_out(run, names or {}) for run in logged))
    _check_names(rules.names, logged, found.name)
    report = Report()
    rows, points, samples = [], [], {}
    for run in logged:
        if run.samples:
            samples[run.run] = [dict(r) for r in run.samples]
        if run.row or run.series or run.config or run.summary or not run.samples:
            row, curve = mapped(run, rules, report)
            rows.append(row)
            points += curve
    _doubts(rows, rules, report)
    if others:
        report.note(f"{found.name} was read; {' and '.join(others)} files are there too (--kind)")
    return Imported(rows, points, samples, _told(found.name, os.fspath(source), rows, points, samples, report))


def _check_values(values: Mapping[str, float | str]) -> None:
    for column, value in values.items():
        known = COLUMNS.get(column)
        if known is None or column in TEXTS or column in LABELS:
            continue
        if isinstance(value, str) or not math.isfinite(value):
            raise RunsError(f"--set {column}={plain(str(value))}: {column} is a number ({known.unit})")
        if column in COUNTED and value <= 0:
            raise RunsError(f"--set {column}={value:g}: {column} must be above zero")


def _distinct(runs: Iterable[Logged]) -> Iterator[Logged]:
    """Runs with names of their own: a name that comes again has the tool's id, or its number, behind it."""
    seen: Counter[str] = Counter()
    for run in runs:
        if not (run.row or run.series or run.config or run.summary):  # samples only, of a run that another file tells
            yield run
            continue
        seen[run.run] += 1
        if seen[run.run] > 1:
            ids = [str(v) for k, (v, _) in run.row.items() if k.endswith("_id")]
            run = replace(run, run=f"{run.run}-{ids[0] if ids else seen[run.run]}")
        yield run


def _check_names(names: Mapping[str, str], runs: Sequence[Logged], kind: str) -> None:
    import difflib

    present = {n for run in runs for n in (*run.config, *run.summary, *run.series)}
    for ours, theirs in names.items():
        if theirs not in present:
            close = difflib.get_close_matches(theirs, sorted(present), n=2, cutoff=0.5)
            hint = f"; closest: {' or '.join(map(repr, close))}" if close else ""
            raise RunsError(f"--map {plain(ours)}={plain(theirs)}: no {kind} run has {theirs!r}{hint}")


def _doubts(rows: list[Row], rules: Rules, report: Report) -> None:
    if not rules.held_out and any("loss" in row for row in rows):
        report.note("no run has a held-out loss that is recognised: loss is the loss of training (--map loss=THEIRS)")
    for column in ("params", "tokens", "flops"):
        ways = dict.fromkeys(str(row[f"{column}_source"]) for row in rows if f"{column}_source" in row)
        if len(ways) > 1:
            report.note(f"{column} was counted in {len(ways)} ways: {'; '.join(list(ways)[:4])}")


def _told(
    kind: str, source: str, rows: list[Row], points: list[Row], samples: dict[str, list[Row]], report: Report
) -> dict[str, Any]:
    trained = any("step" in row or "loss" in row for row in rows) or not any("accuracy" in row for row in rows)
    alive = [row for row in rows if trained and row.get("status") != "failed"]
    missing = {c: n for c in _ADVICE if (n := sum(cell_text(row.get(c)) == "" for row in alive))}
    order = [c for c in (*_FIRST, *report.columns) if c in report.columns]
    return {
        "kind": kind,
        "source": source,
        "runs": len(rows),
        "checkpoints": len(points),
        "samples": sum(map(len, samples.values())),
        "columns": {c: {k: n for k, n in report.columns[c].most_common() if n > 0} for c in dict.fromkeys(order)},
        "not_mapped": {kind: [n for n, _ in names.most_common()] for kind, names in report.unmapped.items() if names},
        "missing": missing,
        "notes": report.notes,
    }


def _counted(ways: Mapping[str, int], runs: int) -> str:
    return "; ".join(what if n == runs else f"{what} ({n} run{'s' * (n != 1)})" for what, n in ways.items())


def _frame(rows: list[Row]) -> pandas.DataFrame:
    import pandas

    if not rows:
        return pandas.DataFrame()
    from isoflop._runs import load

    return load([{k: v for k, v in row.items() if cell_text(v) != ""} for row in rows]).to_frame()


def _table(path: Path, rows: list[Row]) -> None:
    present = dict.fromkeys(name for row in rows for name in row)
    order = [*(n for n in (*_FIRST, *COLUMNS) if n in present), *present]
    header = list(dict.fromkeys(order))
    write_csv(path, header, ([_cell(row.get(name)) for name in header] for row in rows))


def _cell(value: Any) -> str:
    """A cell; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return cell_text(value)


def _file_name(run: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", run).strip("._")[:120] or "run"


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """{ours: text} from texts like "loss=val/ce". Raises RunsError for others."""
    out: dict[str, str] = {}
    for pair in pairs:
        ours, sign, text = pair.partition("=")
        if not (sign and ours.strip() and text.strip()):
            raise RunsError(f"{option} {pair!r}: write OURS={'NUMBER' if option == '--set' else 'THEIRS'}")
        out[ours.strip()] = text.strip()
    return out


def as_value(text: str) -> float | str:
    """A value that --set gives: a number where it is one, human or not, else the text."""
    found = number(text)
    return text if found is None or found != found else float(found)
