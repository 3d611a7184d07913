"""Which strategy, with how many samples, for problems of which difficulty: planned from a pilot, and while running."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isoflop._answer import Quantity, finite
from isoflop.levers.think._curves import BetaLaw, Saturation, beta_law, coverage_law, saturation
from isoflop.levers.think._replay import Curve, Settings, replay, resampling
from isoflop.levers.think._samples import Samples, read_samples

Array = np.ndarray


class Share(NamedTuple):
    """One setting of a bin, and the share of the bin's problems that get it."""

    strategy: str
    k: int
    share: float


@dataclass(frozen=True)
class Bin:
    """Problems whose difficulty signal lies from `low` up to but not at `high`, and what they get."""

    low: float
    high: float
    problems: int
    settings: tuple[Share, ...]


@dataclass(frozen=True)
class Plan:
    """Settings per bin, with what they are expected to score and cost on problems not used to choose them."""

    bins: tuple[Bin, ...]
    signal: str  # what difficulty is judged by; "labels" needs the answers and is hindsight
    probe: int  # samples drawn before a problem is put in a bin
    cost: str
    accuracy: Quantity  # cross-fitted
    spent: Quantity  # mean cost of a problem, cross-fitted
    uniform: Mapping[str, Any]  # the best single setting at the same cost: setting, accuracy
    oracle: float  # hindsight: the best setting of each problem by its own labels, at the same mean cost
    saving: Quantity  # 1 - cost / cost at which uniform best-of-N is as accurate (nan: never)
    baseline: str
    fits: Mapping[str, Any] = field(default_factory=dict)
    level: float = 90
    warnings: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)  # temperature, max_tokens, stop, where the pilot says
    prices: Mapping[str, float] = field(default_factory=dict)  # USD per million tokens, by which usd was reckoned

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, as --out writes them and `isoflop think run --plan` reads them."""
        out = {
            "version": 1, "signal": self.signal, "probe": self.probe, "cost": self.cost, "level": self.level,
            "bins": [{"low": b.low, "high": b.high, "problems": b.problems,
                      "settings": [s._asdict() for s in b.settings]} for b in self.bins],
            "uniform": {**self.uniform, "settings": [s._asdict() for s in self.uniform["settings"]]},
            "oracle_hindsight": self.oracle, "baseline": self.baseline,
            "sampling": dict(self.sampling), "prices": dict(self.prices), "fits": dict(self.fits),
            "warnings": list(self.warnings),
        }  # fmt: skip
        for name in ("accuracy", "spent", "saving"):
            q = getattr(self, name)
            out[name] = {"best": q.best, "median": q.median, "interval": list(q.interval(self.level))}
        return finite(out)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def __str__(self) -> str:
        head = "" if self.signal == "none" else f"{self.signal} after {self.probe}"
        lines = [f"{head:<26} {'problems':>8}  setting"]
        for b in self.bins:
            text = ", ".join(f"{s.strategy} k={s.k}" + (f" ({s.share:.0%})" if s.share < 1 else "") for s in b.settings)
            lines.append(f"{_range(b.low, b.high):<26} {b.problems:>8}  {text}")
        u = self.uniform
        never = f"{self.baseline} never reaches this accuracy in the pilot"
        both = ", ".join(f"{s.strategy} k={s.k}" for s in u["settings"])
        saved = never if np.isnan(self.saving.best) else _percents(self.saving, self.level)
        lines += [
            f"accuracy (cross-fitted)      {_words(self.accuracy, self.level)}",
            f"{f'{self.cost} a problem':<28} {_words(self.spent, self.level)}",
            f"one setting for all          {u['accuracy']:.4g} ({both})",
            f"{f'{self.cost} saved against {self.baseline}':<28} {saved}",
            f"oracle, with hindsight       {self.oracle:.4g}",
        ]
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def _range(low: float, high: float) -> str:
    if np.isinf(low) and np.isinf(high):
        return "all"
    if np.isinf(low):
        return f"below {high:.3g}"
    return f"from {low:.3g}" if np.isinf(high) else f"{low:.3g} to {high:.3g}"


def _percents(q: Quantity, level: float) -> str:
    low, high = q.interval(level)
    return f"{q.best:.0%} [{low:.0%}, {high:.0%}]"


def _words(q: Quantity, level: float) -> str:
    low, high = q.interval(level)
    return f"{q.best:.4g} [{low:.4g}, {high:.4g}]"


# ---- the best mixture under a budget ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """For each bin two settings (by index) and the share of the second; what they score and cost on average."""

    first: Array
    second: Array
    part: Array
    value: float
    cost: float

    def apply(self, table: Array, bins: Array) -> Array:
        """table (problems, settings) under this mixture, one number a problem."""
        rows = np.arange(len(table))
        part = self.part[bins]
        return (1 - part) * table[rows, self.first[bins]] + part * table[rows, self.second[bins]]


def best_mixture(
    value: Array, cost: Array, weight: Array, *, budget: float | None = None, target: float | None = None
) -> Mixture:
    """The settings per bin that score most within a mean cost, or cost least for a mean score

    value, cost: (bins, settings); weight: each bin's share of the problems. Each bin starts at its cheapest setting and
    moves up the concave hull of (cost, value); steps are taken over all bins in order of gain per cost, the last one in
    part. This is the exact optimum of the mixtures (the linear relaxation of the multiple-choice knapsack). Raises
    ValueError where even the cheapest costs more than the budget, or the best scores less than the target.
    """
    hulls = [_hull(c, v) for c, v in zip(cost, value, strict=True)]
    at = np.array([h[0] for h in hulls])
    rows = np.arange(len(hulls))
    spent, score = float(weight @ cost[rows, at]), float(weight @ value[rows, at])
    if budget is not None and spent > budget * (1 + 1e-12):
        raise ValueError(f"the cheapest settings cost {spent:.4g} a problem, more than the budget of {budget:.4g}")
    steps = sorted(
        (-(value[b, j] - value[b, i]) / (cost[b, j] - cost[b, i]), b, n)
        for b, hull in enumerate(hulls)
        for n, (i, j) in enumerate(pairwise(hull))
    )
    first, second, part = at.copy(), at.copy(), np.zeros(len(hulls))
    for _, b, n in steps:
        i, j = hulls[b][n], hulls[b][n + 1]
        more, gain = weight[b] * (cost[b, j] - cost[b, i]), weight[b] * (value[b, j] - value[b, i])
        need = (budget - spent) / more if budget is not None else 1.0
        if target is not None:
            need = (target - score) / gain
        if need <= 0:
            break
        share = min(1.0, need)
        first[b], second[b], part[b] = (j, j, 0.0) if share == 1.0 else (i, j, share)
        spent, score = spent + share * more, score + share * gain
        if share < 1.0:
            break
    if target is not None and score < target - 1e-9:
        raise ValueError(f"no setting of the pilot reaches accuracy {target:g}; the best reach {score:.4g}")
    return Mixture(first, second, part, score, spent)


def _hull(cost: Array, value: Array) -> list[int]:
    """Settings on the rising part of the upper concave hull, cheapest first."""
    out: list[int] = []
    for i in np.lexsort((-value, cost)):
        if out and (value[i] <= value[out[-1]] or cost[i] <= cost[out[-1]]):
            continue
        while len(out) > 1 and _steeper(cost, value, out[-1], i, out[-2]):
            out.pop()
        out.append(int(i))
    return out


def _steeper(cost: Array, value: Array, middle: int, new: int, old: int) -> bool:
    rise = (value[new] - value[old]) * (cost[middle] - cost[old])
    return bool(rise >= (value[middle] - value[old]) * (cost[new] - cost[old]))


# ---- a plan from a pilot ---------------------------------------------------------------------------------------------

SIGNALS = ("agreement", "score", "labels")


def allocate_samples(
    pilot: Any, *, budget: float | None = None, accuracy: float | None = None, cost: str = "gen_tokens", bins: int = 5,
    signal: str | None = None, settings: Mapping[str, Any] | None = None, **read: Any,
) -> Plan:  # fmt: skip
    """Strategy and samples per difficulty, best for a mean cost of a problem, or cheapest for an accuracy

    Compute-optimal in the sense of Snell et al. 2024 (arXiv 2408.03314): problems are put in bins of equal size by a
    signal, and each bin gets its own strategy and number of samples, mixed where that is better. Accuracy and cost are
    those of problems not used for choosing (folds over clusters of problems), with intervals over problems.

    pilot: recorded samples, see `read_samples`, or curves of several models on the same problems (a sequence of
    `Curve`, as after `with_kinetics`). budget: mean cost of one problem in units of `cost`. signal: "agreement", the
    share of the leading answer among the first `probe` samples; "score", their mean score; "labels", the share right,
    which at run time nobody has: hindsight, marked so. The first there is, unless told. settings: probe (4), folds (5),
    draws (1000), seed (0), level (90), checked (False; True: answers can be checked at run time, so coverage counts),
    score_cost (0), strategies, budgets, replay (`Settings`). Raises ValueError where no setting fits.
    """
    s = dict(_DEFAULTS) | dict(settings or {})
    unknown = set(s) - set(_DEFAULTS)
    if unknown:
        raise ValueError(f"there is no setting {sorted(unknown)[0]!r}; there are {', '.join(_DEFAULTS)}")
    if (budget is None) == (accuracy is None):
        raise ValueError("give either a budget (mean cost of a problem) or an accuracy to reach")
    samples, curves = _curves_of(pilot, s, read)
    value, price, options = _options(curves, cost)
    mark, name, probe = _signal(samples, curves, signal, s)
    if bins == 1:
        mark, name, probe = np.zeros(len(mark)), "none", 0
    task = _Task(value, price, options, mark, curves[0].cluster, bins if name != "none" else 1, budget, accuracy)
    if len(mark) < 2 * s["folds"]:
        raise ValueError(
            f"a plan needs at least {2 * s['folds']} problems in the pilot, twice the folds; got {len(mark)}"
        )
    if task.bins > 1:  # the probe is paid for before anything is decided
        probed = task._replace(price=np.maximum(price, _probe_price(curves, cost, probe)[:, None]))
        task, name, probe = (probed, name, probe) if _pays(probed, task, s) else (task._replace(bins=1), "none", 0)
    return _plan(task, samples, curves, cost, (name, probe), s)


def _pays(probed: _Task, task: _Task, s: Mapping[str, Any]) -> bool:
    """Whether bins with their probe beat one setting for all, on problems not used for choosing."""
    everyone = np.arange(len(task.mark))
    try:
        _fit(probed, everyone)
    except ValueError:  # the probe alone is too dear
        return False
    goal = 0 if task.budget is not None else 1
    binned = _cross_fitted(probed, s["folds"], s["seed"])[goal].mean()
    uniform = _cross_fitted(task._replace(bins=1), s["folds"], s["seed"])[goal].mean()
    return bool(binned > uniform if task.budget is not None else binned < uniform)


_DEFAULTS: dict[str, Any] = {
    "probe": 4, "folds": 5, "draws": 1000, "seed": 0, "level": 90.0, "checked": False, "score_cost": 0.0,
    "strategies": None, "budgets": None, "replay": None,
}  # fmt: skip


class _Task(NamedTuple):
    value: Array
    price: Array
    options: list[tuple[str, int]]
    mark: Array
    cluster: Array
    bins: int
    budget: float | None
    target: float | None


def _curves_of(pilot: Any, s: Mapping[str, Any], read: Mapping[str, Any]) -> tuple[Samples | None, list[Curve]]:
    if isinstance(pilot, Sequence) and not isinstance(pilot, str) and all(isinstance(c, Curve) for c in pilot):
        if not pilot or any(c.problems != pilot[0].problems for c in pilot):
            raise ValueError("curves to plan over must be of the same problems in the same order")
        return None, list(pilot)
    samples = pilot if isinstance(pilot, Samples) else read_samples(pilot, **read)
    made = replay(
        samples, strategies=s["strategies"], budgets=s["budgets"], score_cost=s["score_cost"],
        settings=s["replay"] or Settings(seed=s["seed"]),
    )  # fmt: skip
    use = [c for c in made.curves.values() if c.needs != "labels" or (s["checked"] and c.name == "coverage")]
    if not use:
        raise ValueError("no strategy can be planned from this pilot: it has no answers and no scores. Where answers "
                         "can be checked at run time, plan with checked")  # fmt: skip
    return samples, use


def _options(curves: Sequence[Curve], cost: str) -> tuple[Array, Array, list[tuple[str, int]]]:
    for c in curves:
        c.mean_cost(cost)  # says which costs there are
    options = [(c.name, int(k)) for c in curves for k in c.k]
    return np.hstack([c.value for c in curves]), np.hstack([c.cost[cost] for c in curves]), options


def _signal(
    samples: Samples | None, curves: Sequence[Curve], asked: str | None, s: Mapping[str, Any]
) -> tuple[Array, str, int]:  # fmt: skip
    """One number a problem, its name, and how many samples it takes."""
    if asked not in (None, *SIGNALS):
        raise ValueError(f"there is no signal {asked!r}; there are {', '.join(SIGNALS)}")
    if samples is None or (asked is None and not {"answer", "score"} & set(samples.columns)):
        if asked is not None:
            raise ValueError(f"signal={asked!r} needs a pilot of samples, not curves")
        return np.zeros(len(curves[0].problems)), "none", 0
    name = asked or ("agreement" if "answer" in samples.columns else "score")
    probe = min(int(s["probe"]), int(samples.n.min()))
    if name == "labels":
        law = beta_law(samples.n, samples.c)
        return law.rate(samples.n, samples.c)[0], name, probe
    column = "answer" if name == "agreement" else "score"
    if column not in samples.columns:
        raise ValueError(f"signal={name!r} needs the column {column!r}")
    out = np.zeros(len(samples))
    for which, rows in samples.blocks():
        part = samples.table(column, rows)[:, :probe]
        out[which] = part.mean(1) if name == "score" else [_agreement(row) for row in part]
    return out, name, probe


def _agreement(codes: Array) -> float:
    votes = codes[codes >= 0]
    return float(np.bincount(votes).max() / len(codes)) if len(votes) else 0.0


def _probe_price(curves: Sequence[Curve], cost: str, probe: int) -> Array:
    """What the first `probe` samples cost: on the curve whose samples at the smallest budget are cheapest."""
    cheapest = min(curves, key=lambda c: c.mean_cost(cost)[0])
    price, drawn = cheapest.cost[cost], cheapest.cost["samples"]
    if len(cheapest.k) == 1 or cheapest.name == "adaptive":
        return price[:, 0] / drawn[:, 0] * probe
    return price[:, 0] + (price[:, 1] - price[:, 0]) * (probe - drawn[:, 0]) / (drawn[:, 1] - drawn[:, 0])


def _assign(mark: Array, edges: Array) -> Array:
    return np.searchsorted(edges, mark, side="right")


def _fit(task: _Task, rows: Array, *, fold: bool = False) -> tuple[Mixture, Array]:
    """The best mixture for these problems, and the edges of their bins; in a fold the goal is moved within reach."""
    edges = (
        np.unique(np.quantile(task.mark[rows], np.arange(1, task.bins) / task.bins)) if task.bins > 1 else np.zeros(0)
    )
    where = _assign(task.mark[rows], edges)
    size = np.bincount(where, minlength=len(edges) + 1).astype(float)
    value, price = (np.zeros((len(size), task.value.shape[1])) for _ in range(2))
    np.add.at(value, where, task.value[rows])
    np.add.at(price, where, task.price[rows])
    full = size > 0
    value[full] /= size[full, None]
    price[full] /= size[full, None]
    price[~full] = price[full].mean(0)
    weight, budget, target = size / size.sum(), task.budget, task.target
    if fold and budget is not None:
        budget = max(budget, float(weight @ price.min(1)))
    if fold and target is not None:
        target = min(target, float(weight @ value.max(1)))
    return best_mixture(value, price, weight, budget=budget, target=target), edges


def _cross_fitted(task: _Task, folds: int, seed: int) -> tuple[Array, Array]:
    """Value and cost of every problem under a mixture chosen without its fold."""
    _, place = np.unique(task.cluster, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(int(place.max()) + 1)[place] % folds
    value, price = np.zeros(len(place)), np.zeros(len(place))
    for f in np.unique(fold):
        rows = np.flatnonzero(fold == f)
        found, edges = _fit(task, np.flatnonzero(fold != f), fold=True)
        where = _assign(task.mark[rows], edges)
        value[rows] = found.apply(task.value[rows], where)
        price[rows] = found.apply(task.price[rows], where)
    return value, price


def _plan(
    task: _Task, samples: Samples | None, curves: list[Curve], cost: str, signal: tuple[str, int], s: Mapping[str, Any]
) -> Plan:
    everyone = np.arange(len(task.mark))
    found, edges = _fit(task, everyone)
    value, price = _cross_fitted(task, s["folds"], s["seed"])
    weight = resampling(task.cluster, s["draws"], s["seed"])
    spent = Quantity(float(price.mean()), weight @ price)
    one = task._replace(bins=1, budget=spent.best, target=None, price=_options(curves, cost)[1])
    single = _fit(one, everyone)[0]
    base = _baseline(curves)
    where = _assign(task.mark, edges)
    ways: Sequence[Mapping[str, Any]] = samples.how.get("sampling", ()) if samples is not None else ()
    warnings = list(samples.warnings if samples is not None else ())
    if len(ways) > 1:
        warnings.append(
            f"the pilot was sampled in {len(ways)} ways ({_ways(ways)}): a run of the plan must be told one"
        )
    if signal[0] == "labels":
        warnings.append(
            "signal 'labels' is hindsight: it puts problems in bins by their answers; no program can run it"
        )
    if any(k == max(c.k) for b in range(len(found.first)) for n, k in (task.options[found.second[b]],) for c in curves
           if c.name == n):  # fmt: skip
        warnings.append("some settings use as many samples as the pilot has: more might pay, and it cannot say")
    return Plan(
        bins=_bins(task, found, edges, where), signal=signal[0], probe=signal[1], cost=cost,
        accuracy=Quantity(float(value.mean()), weight @ value), spent=spent,
        uniform={"settings": _shares_of(task, single, 0), "accuracy": single.value},
        oracle=_oracle(one), saving=saved_against(base, cost, value, price, weight), baseline=f"{base.name}",
        fits=_fits(samples, curves), level=s["level"], warnings=tuple(warnings),
        sampling=ways[0] if len(ways) == 1 else {}, prices=samples.how.get("prices", {}) if samples is not None else {},
    )  # fmt: skip


def _ways(ways: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"temperature {w['temperature']}, max_tokens {w['max_tokens']}" for w in ways[:3])


def _shares_of(task: _Task, found: Mixture, b: int) -> list[Share]:
    out = [_share(task, int(found.first[b]), 1 - found.part[b])]
    if found.part[b] > 0:
        out.append(_share(task, int(found.second[b]), found.part[b]))
    return out


def _share(task: _Task, option: int, part: float) -> Share:
    name, k = task.options[option]
    return Share(name, k, float(part))


def _bins(task: _Task, found: Mixture, edges: Array, where: Array) -> tuple[Bin, ...]:
    used = [b for b in range(len(edges) + 1) if (where == b).any()]
    ends = [-np.inf, *(float(edges[b - 1]) for b in used[1:]), np.inf]
    return tuple(
        Bin(ends[i], ends[i + 1], int((where == b).sum()), tuple(_shares_of(task, found, b)))
        for i, b in enumerate(used)
    )


def _oracle(task: _Task) -> float:
    """Each problem its own best setting by its own labels: what no plan can know, at the same mean cost."""
    size = np.full(len(task.value), 1 / len(task.value))
    cheapest = float(task.price.min(1).mean())
    return best_mixture(task.value, task.price, size, budget=max(task.budget or 0.0, cheapest)).value


def _baseline(curves: Sequence[Curve]) -> Curve:
    by_name = {c.name: c for c in curves}
    for name in ("best_of_n", "majority", "coverage"):
        if name in by_name:
            return by_name[name]
    return curves[0]


def saved_against(base: Curve, cost: str, value: Array, price: Array, weight: Array) -> Quantity:
    rows = np.vstack([np.full(len(value), 1 / len(value)), weight])
    accuracy, costs = np.maximum.accumulate(rows @ base.value, axis=1), rows @ base.cost[cost]
    got, paid = rows @ value, rows @ price
    out = np.full(len(rows), np.nan)
    for i, (a, c) in enumerate(zip(accuracy, costs, strict=True)):
        j = int(np.searchsorted(a, got[i] - 1e-12))
        if j < len(a):
            rise = a[j] - a[j - 1] if j else 0.0
            part = (got[i] - a[j - 1]) / rise if rise > 0 else 1.0
            needed = c[j] if j == 0 else c[j - 1] + part * (c[j] - c[j - 1])
            out[i] = round(1 - paid[i] / needed, 12)
    return Quantity(float(out[0]), out[1:])


def _fits(samples: Samples | None, curves: Sequence[Curve]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if samples is not None:
        law: BetaLaw = beta_law(samples.n, samples.c)
        out["beta"] = law._asdict()
        mine = replay(samples, strategies=["coverage"])["coverage"]
        if (np.count_nonzero((mine.accuracy > 0) & (mine.accuracy < 1))) > 1:
            out["coverage"] = coverage_law(mine.k, mine.accuracy)._asdict()
    for c in curves:
        if len(c.k) > 1 and c.name != "single":
            fit: Saturation = saturation(c.k, c.accuracy)
            out[f"saturation {c.name}"] = {"top": fit.top, "p": fit.p, "one_point_at": fit.point(0.01)}
    return out


def with_kinetics(
    curve: Curve, *, params: float, depth: float, width: float, kv_width: float, intensity: float = 562.5,
    name: str | None = None,
) -> Curve:  # fmt: skip
    """The curve with the cost `kinetics_flops` of each problem and budget (see that meter), under a name of your own

    Needs the costs gen_tokens and prompt_tokens. So a small model with more samples is compared with a larger one.
    """
    from isoflop._meter import get_meter

    for need in ("gen_tokens", "prompt_tokens"):
        curve.mean_cost(need)
    n = curve.cost["samples"]
    flops = get_meter("kinetics_flops")(
        params=params, depth=depth, width=width, kv_width=kv_width, intensity=intensity, samples=n,
        gen_tokens=curve.cost["gen_tokens"] / n, prompt_tokens=curve.cost["prompt_tokens"] / n,
    )  # fmt: skip
    cost = dict(curve.cost) | {"kinetics_flops": flops}
    return Curve(
        name or curve.name, curve.k, curve.value, cost, curve.error, curve.problems, curve.cluster, curve.needs
    )
