"""Runs of the think lever side by side: accuracy against cost, the frontier, difficulty, and what a plan saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._answer import Quantity, finite
from isoflop._curves import amount
from isoflop._lever import _read_lines
from isoflop._report import Grid, aligned
from isoflop.levers.think._allocate import saved_against
from isoflop.levers.think._replay import Curve, clear_of_chance, resampling
from isoflop.levers.think._samples import read_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray
_THIRDS = ("hard third", "middle third", "easy third")


@dataclass(frozen=True)
class Point:
    """One setting: right or wrong and cost of each problem, means over seeds."""

    group: str  # the strategy, with what is set besides n: points of one group are one line
    n: str
    value: Array
    cost: Array
    seeds: int
    plan: bool = False

    @property
    def label(self) -> str:
        return f"{self.group} {self.n}".strip()


@dataclass(frozen=True)
class ThinkReport:
    """Points cheap to dear, on the same problems. Made by `think_report`."""

    points: tuple[Point, ...]
    cost: str
    share: Array  # of each problem's samples that were right
    level: float
    draws: int
    seed: int
    clear: Array = field(repr=False)  # (points, points): told apart, all pairs tested at once

    @property
    def weights(self) -> Array:
        """Problems resampled, (draws, problems)."""
        return resampling(np.arange(len(self.share)), self.draws, self.seed)

    def accuracy(self, point: Point) -> Quantity:
        """With its draws over problems."""
        return Quantity(float(point.value.mean()), self.weights @ point.value)

    def frontier(self) -> list[tuple[Point, list[str]]]:
        """Points more accurate than all cheaper ones; and, of those no dearer, which cannot be told from each."""
        out: list[tuple[Point, list[str]]] = []
        best = -1.0
        for i, point in enumerate(self.points):
            if point.value.mean() > best:
                best = float(point.value.mean())
                out.append((point, [self.points[j].label for j in range(i) if not self.clear[i, j]]))
        return out

    def thirds(self) -> list[Array]:
        """Problems, hard to easy, by their share of right samples."""
        return np.array_split(np.argsort(self.share, kind="stable"), 3)

    def saving(self) -> dict[str, Any] | None:
        """1 - cost of the plan / cost at which uniform best-of-N (without a score: majority) is as accurate."""
        plan = next((p for p in self.points if p.plan), None)
        names = [p.group for p in self.points]
        base = next((g for s in ("best_of_n", "majority") for g in names if g.split()[0] == s), None)
        if plan is None or base is None:
            return None
        line = [p for p in self.points if p.group == base]
        value, cost = (np.stack([getattr(p, what) for p in line], 1) for what in ("value", "cost"))
        k = np.arange(len(line))
        curve = Curve(base, k, value, {self.cost: cost}, np.zeros(len(k)), tuple(map(str, k)), k)
        found = saved_against(curve, self.cost, plan.value, plan.cost, self.weights)
        reached = float(np.isfinite(found.draws).mean())
        return {"against": base, "best": found.best, "interval": list(found.interval(self.level)), "reached": reached}

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        thirds = self.thirds()
        rows = []
        for p in self.points:
            low, high = self.accuracy(p).interval(self.level)
            row = {"strategy": p.group, "n": p.n, "seeds": p.seeds, self.cost: float(p.cost.mean())}
            row |= {"accuracy": float(p.value.mean()), "low": low, "high": high}
            rows.append(row | {name: float(p.value[w].mean()) for name, w in zip(_THIRDS, thirds, strict=True)})
        edge = [{"setting": p.label, self.cost: float(p.cost.mean()), "undecided": u} for p, u in self.frontier()]
        how = {"level": self.level, "problems": len(self.share), "cost": self.cost}
        return finite({**how, "rows": rows, "frontier": edge, "saving": self.saving()})

    def grid(self) -> Grid:
        """The settings, as words."""
        header = ("setting", self.cost, "accuracy", f"{self.level:g} % interval", *_THIRDS, "frontier")
        edge = {p.label for p, _ in self.frontier()}
        rows = []
        for p, row in zip(self.points, self.to_dict()["rows"], strict=True):
            numbers = (f"{row['accuracy']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}")
            thirds = tuple(f"{row[name]:.3f}" for name in _THIRDS)
            rows.append((p.label, amount(self.cost, row[self.cost]), *numbers, *thirds, "*" * (p.label in edge)))
        return Grid(header, rows)

    def notes(self) -> list[str]:
        """The frontier's open questions, the saving, and how to read the table."""
        out = []
        for p, rest in self.frontier():
            if rest:
                out.append(f"{p.label} is not told apart from {', '.join(rest)}, at no more cost")
        if found := self.saving():
            out.append(_saving_words(found, self.cost, self.level))
        out.append(f"{len(self.share)} problems; {self.cost} a problem; intervals over problems")
        out.append("thirds: problems by the share of their samples that were right, seen afterwards")
        return out

    def __str__(self) -> str:
        return "\n".join([aligned(self.grid(), len(self.points)), *self.notes()])

    def figure(self) -> Axes:
        """Accuracy against cost, over all problems and for each third; the first panel."""
        from isoflop.levers.think._think_figure import draw

        return draw(self)

    def save(self, path: str | Path) -> None:
        """One self-contained page as .html, or the figure as .png, .svg or .pdf."""
        from isoflop._figures import save
        from isoflop.levers.think._think_figure import page

        if Path(path).suffix.lower() == ".html":
            Path(path).write_text(page(self), encoding="utf-8")
        else:
            save(self.figure(), path)


def _saving_words(found: Mapping[str, Any], cost: str, level: float) -> str:
    if not np.isfinite(found["best"]):
        return f"{found['against']} never is as accurate as the plan at the settings that were run"
    low, high = found["interval"]
    text = f"{found['best']:.0%} of the {cost} of {found['against']} are saved by the plan [{low:.0%}, {high:.0%}]"
    return text + (f"; in {1 - found['reached']:.0%} of the draws that never is as accurate" * (found["reached"] < 1))


def think_report(
    folders: Sequence[str | Path], *, cost: str = "tokens", level: float = 90, draws: int = 2000, seed: int = 0
) -> ThinkReport:
    """Compare what `isoflop think run` wrote into folders, on the same problems

    cost: tokens (read and generated), gen_tokens, prompt_tokens, usd, flops, kv_bytes, call_seconds or samples, mean
    of a problem. Raises ValueError where a folder holds no runs, or others' problems.
    """
    problems: list[str] = []
    found: dict[tuple[str, str], list[tuple[Array, Array]]] = {}
    for folder in map(Path, folders):
        for row in _runs(folder):
            answers = {a["problem"]: a for a in _read_lines(folder / "answers" / f"{row['run']}.jsonl")[0]}
            problems = problems or list(answers)
            if set(answers) != set(problems):
                raise ValueError(f"{folder} has runs on {len(answers)} problems that are not those of the runs before; "
                                 "compare runs on the same problems")  # fmt: skip
            in_order = [answers[p] for p in problems]
            value = np.array([a["correct"] or 0 for a in in_order], float)
            found.setdefault(_name(row), []).append((value, np.array([_cost(a, cost) for a in in_order], float)))
    points = tuple(sorted((_point(*name, seeds) for name, seeds in found.items()), key=lambda p: p.cost.mean()))
    share = _shares(folders, problems, points)
    return ThinkReport(points, cost, share, level, draws, seed, _told_apart(points, level, draws, seed))


def _runs(folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    rows = [row for row in _read_lines(folder / "runs.jsonl")[0] if row["status"] == "ok"]
    if not rows:
        raise ValueError(f"{folder} holds no finished runs of `isoflop think run`")
    return rows


def _name(row: Mapping[str, Any]) -> tuple[str, str]:
    """Strategy with its own settings, and n. A row begins with run, the setting and seed."""
    names = list(row)
    own = {k: row[k] for k in names[names.index("run") + 1 : names.index("seed")] if k not in ("strategy", "n")}
    plan = [str(own.pop("plan"))[:8]] if "plan" in own else []
    words = plan + [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in own.items() if k != "temperature"]
    return " ".join([str(row["strategy"]), *words]), f"n={row['n']}" if "n" in row else ""


def _cost(answer: Mapping[str, Any], cost: str) -> float:
    if cost == "tokens":
        return float(answer["prompt_tokens"] + answer["gen_tokens"])
    if not isinstance(answer.get(cost), int | float) or cost == "correct":
        raise ValueError(f"there is no cost {cost!r}; there are tokens, gen_tokens, prompt_tokens, usd, flops, ...")
    return float(answer[cost])


def _point(group: str, n: str, seeds: Sequence[tuple[Array, Array]]) -> Point:
    value, cost = (np.mean(part, axis=0) for part in zip(*seeds, strict=True))
    return Point(group, n, value, cost, len(seeds), group.split()[0] == "plan")


def _shares(folders: Sequence[str | Path], problems: Sequence[str], points: Sequence[Point]) -> Array:
    """Share of right samples by problem; where none were graded, of right answers."""
    count, right = dict.fromkeys(problems, 0), dict.fromkeys(problems, 0)
    for folder in folders:
        try:
            samples = read_samples(folder)
        except ValueError:
            continue
        for problem, n, c in zip(samples.problems, samples.n, samples.c, strict=True):
            if problem in count:
                count[problem], right[problem] = count[problem] + int(n), right[problem] + int(c)
    if not all(count.values()):
        return np.mean([p.value for p in points], axis=0)
    return np.array([right[p] / count[p] for p in problems])


def _told_apart(points: Sequence[Point], level: float, draws: int, seed: int) -> Array:
    """(points, points): whether a difference is more than chance, signs flipped by problem, all pairs at once."""
    out = np.zeros((len(points), len(points)), bool)
    pairs = [(i, j) for i in range(len(points)) for j in range(i)]
    if pairs:
        count = len(points[0].value)
        flips = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, count))
        gaps = np.stack([points[i].value - points[j].value for i, j in pairs])[:, :, None]
        for (i, j), told in zip(pairs, clear_of_chance(gaps, np.arange(count), flips, level)[:, 0], strict=True):
            out[i, j] = out[j, i] = told
    return out
