"""Verdicts on the papers' claims: computed, kept while nothing that they rest on changes, never typed.

agrees: the figures are found on public data. shown: on runs that isoflop made in the small. recovers: a law or a
simulator gives back what was planted in it, which says less. differs: none of these. no data: the data set is not here.
not attempted: the paper has no claim that runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from isoflop._paper import Claim, Expect, Paper

VERDICTS = ("agrees", "shown", "recovers", "differs", "no data", "not attempted", "unchecked")
_HERE = Path(__file__).parent
_FORMAT = 1
_KEPT = 2000  # results of claims as they were are forgotten in the end


@dataclass(frozen=True)
class Result:
    """What became of one claim: the verdict, the figure found for each one expected, and what is to be said."""

    claim: Claim
    verdict: str
    found: tuple[float | str | None, ...] = ()
    note: str = ""
    seconds: float = 0.0  # of processor time, when it was last run

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        rows = zip(self.claim.expect, self.found or [None] * len(self.claim.expect), strict=True)
        return {
            "words": self.claim.words, "kind": self.claim.kind, "data": self.claim.data, "verdict": self.verdict,
            "figures": [{"of": e.of, "expected": str(e), "found": f} for e, f in rows],
            "stands": self.claim.stands, "because": self.claim.because, "note": self.note, "seconds": self.seconds,
        }  # fmt: skip


def standing(results: Iterable[Result]) -> str:
    """One word for a paper: the worst that a claim of it came to, but data that is here outweighs data that is not."""
    verdicts = {r.verdict for r in results}
    for word in ("differs", "unchecked", "agrees", "shown", "recovers", "no data"):
        if word in verdicts:
            return word
    return "not attempted"


def check(
    papers: Iterable[Paper], *, data: str | Path | None = None, run: bool = True, workers: int | None = None
) -> dict[str, list[Result]]:
    """The verdict on every claim, by paper's name. run: work out what is not known yet, else call it unchecked.

    data: the folder of public data sets; without it claims on data have none. What a claim found is kept in a file of
    the user's cache folder and used again while the claim, its data file and the code are the same.
    """
    folder, papers, memory = Path(data) if data else None, list(papers), _remembered()
    jobs = [(p.name, c, _key(c, folder)) for p in papers for c in p.claims]
    todo = {key: c for _, c, key in jobs if key and key not in memory}
    if run and todo:
        memory |= _run(todo, folder, workers)
        _remember({key: made for key, made in memory.items() if "figures" in made})
    out: dict[str, list[Result]] = {p.name: [] for p in papers}
    for name, claim, key in jobs:
        out[name].append(_judged(claim, memory.get(key or ""), key is not None))
    return out


def _judged(claim: Claim, made: Mapping[str, Any] | None, here: bool) -> Result:
    if not here:
        return Result(claim, "no data", note=f"{claim.data} is not here; set ISOFLOP_DATA")
    if made is None:
        return Result(claim, "unchecked")
    if "missing" in made:
        return Result(claim, "no data", note=made["missing"])
    if "error" in made:
        return Result(claim, "differs", note=f"could not be run: {made['error']}")
    figures, seconds = made["figures"], made["seconds"]
    if claim.data is None:
        return Result(claim, "recovers" if figures["ok"] else "differs", (), figures["text"], seconds)
    try:
        found = tuple(_figure(e, figures) for e in claim.expect)
    except ValueError as error:
        return Result(claim, "differs", note=f"could not be read: {error}", seconds=seconds)
    right = all(e.holds(f) for e, f in zip(claim.expect, found, strict=True))
    word = "shown" if claim.own else "agrees"
    return Result(claim, word if right else "differs", found, seconds=seconds)


def _figure(expected: Expect, figures: Mapping[str, Any]) -> float | str:
    from isoflop._where import parse_where

    if expected.of in figures:
        plain: float | str = figures[expected.of]
        return plain
    columns = {k: np.array([v], float) for k, v in figures.items() if not isinstance(v, str)}
    value = float(parse_where(expected.of).values(columns)[0])
    if not np.isfinite(value):
        raise ValueError(f"{expected.of} is not finite")
    return value


# ---- running ---------------------------------------------------------------------------------------------------------


def _run(todo: Mapping[str, Claim], folder: Path | None, workers: int | None) -> dict[str, dict[str, Any]]:
    """Claims run in as many processes as there are cores; in this one where they are few."""
    from isoflop._progress import progress

    workers = min(workers or os.cpu_count() or 1, len(todo) // 4)
    made = {}
    with progress("claims", len(todo)) as tick:
        if workers < 2:
            for key, claim in todo.items():
                made[key] = _safely(claim, folder)
                tick(1)
            return made
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from multiprocessing import get_context

        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(_safely, claim, folder): key for key, claim in todo.items()}
            for done in as_completed(waiting):
                made[waiting[done]] = done.result()
                tick(1)
    return made


def _safely(claim: Claim, folder: Path | None) -> dict[str, Any]:
    """The figures of one claim, or why there are none: one that cannot be run does not stop the others."""
    import time

    began = time.process_time()
    try:
        place = _folder(claim, folder)
        figures = _planted(claim) if place is None or claim.data is None else _on_data(claim, place)
    except ImportError as error:
        return {"missing": str(error)}
    except (ValueError, LookupError, TypeError, OSError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"figures": figures, "seconds": round(time.process_time() - began, 2)}


def _folder(claim: Claim, folder: Path | None) -> Path | None:
    """Where a claim's data lies: the package for what isoflop recorded itself, else the folder of public data."""
    return _HERE if claim.own else folder


def _on_data(claim: Claim, folder: Path) -> dict[str, Any]:
    from isoflop._paper_kinds import figures

    return {k: v if isinstance(v, str) else float(v) for k, v in figures(claim.kind, claim.settings, folder).items()}


def _planted(claim: Claim) -> dict[str, Any]:
    if claim.kind == "theory":
        from isoflop._simulated import simulate

        made = simulate(claim.settings["name"])
        figures = (f"{k} {f.value:.4g} for {f.predicted:.4g}" for k, f in made.found.items())
        return {"ok": made.ok, "text": "found " + ", ".join(figures)}
    from isoflop._check import check_law

    found = check_law(claim.settings["law"])
    text = "; ".join(found.problems) or f"{len(found.planted)} planted coefficients come back to 1 %"
    return {"ok": found.ok, "text": text}


# ---- what is kept ----------------------------------------------------------------------------------------------------


def cache_file() -> Path:
    """Where results are kept: isoflop/papers.json in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isoflop" / "papers.json"


def _remembered() -> dict[str, Any]:
    """What is kept; nothing where the file is absent, broken or of another format: it is only a cache."""
    try:
        whole = json.loads(cache_file().read_text())
        return dict(whole["claims"]) if whole["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(claims: Mapping[str, Any]) -> None:
    from isoflop._fit import write_whole

    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        latest = dict(list(claims.items())[-_KEPT:])
        write_whole(path, json.dumps({"format": _FORMAT, "claims": latest}))
    except OSError as error:
        import click

        click.echo(f"warning: results are not kept for the next time ({error})", err=True)


def _key(claim: Claim, folder: Path | None) -> str | None:
    """Hash of all that a claim's figures rest on; None where its data is not here."""
    data = ""
    if claim.data is not None:
        place = _folder(claim, folder)
        path = place / claim.data if place else None
        if path is None or not path.is_file():
            return None
        data = _file_hash(path)
    how = json.dumps([claim.kind, claim.settings], sort_keys=True)
    return hashlib.sha256("\n".join([how, data, _machinery(), *_own_code(claim.settings)]).encode()).hexdigest()


def _own_code(settings: Mapping[str, Any]) -> list[str]:
    """Hashes of the laws' and simulators' own files."""
    steps = [s for s in (settings, settings.get("first"), settings.get("second")) if isinstance(s, Mapping)]
    paths = [_HERE / "laws" / f"{s['law']}.py" for s in steps if "law" in s]
    paths += [_HERE / "laws" / f"{name}.py" for name in settings.get("rivals", ())]
    paths += [Path(s["law"].rpartition(":")[0]) for s in steps if ".py:" in s.get("law", "")]
    paths += [_HERE / "theory" / f"{settings['name']}.py"] if "name" in settings else []
    return [_file_hash(p) for p in paths if p.is_file()]


@cache
def _machinery() -> str:
    """Hash of the code that every claim may run: more than it does run, so that nothing stale is ever shown."""
    votes = ("_estimators", "_forecast_coverage", "_votes", "_early_stop", "_replay", "_samples", "_sample_files")
    paths = [*_HERE.glob("*.py"), *_HERE.glob("meters/*.py"), *(_HERE / f"levers/think/{v}.py" for v in votes)]
    return hashlib.sha256("".join(_file_hash(p) for p in sorted(paths) if p.is_file()).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    state = path.stat()
    return _hash_of(path, state.st_mtime_ns, state.st_size)


@cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
