"""Replay: what every way of choosing among k samples would have scored and cost, from samples recorded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop._answer import Quantity
from isoflop._progress import progress
from isoflop.levers.think._early_stop import early_stop
from isoflop.levers.think._estimators import best_of_k, best_of_k_verified, pass_at_k, pass_hat_k
from isoflop.levers.think._meter import Prices
from isoflop.levers.think._samples import Samples, read_samples
from isoflop.levers.think._votes import in_order, vote_at_k

Array = np.ndarray
TINY = 1e-300


@dataclass(frozen=True)
class Curve:
    """One strategy over budgets: `value` and `cost` by (problem, budget); problems are resampled by `cluster`."""

    name: str
    k: Array
    value: Array
    cost: Mapping[str, Array]
    error: Array  # Monte Carlo standard error of the mean at each budget; 0 where exact
    problems: tuple[str, ...]
    cluster: Array
    needs: str = ""  # what a program that uses it must have besides samples: "labels" (no strategy), "score"

    @property
    def accuracy(self) -> Array:
        """Mean over problems, at each budget."""
        return self.value.mean(0)

    def mean_cost(self, column: str) -> Array:
        """Mean cost of a problem, at each budget. Raises LookupError where it was not recorded."""
        if column not in self.cost:
            more = "; prices make one of tokens" if column == "usd" and "gen_tokens" in self.cost else ""
            raise LookupError(f"the samples record no {column}; their costs are {', '.join(self.cost)}{more}")
        return self.cost[column].mean(0)

    def draws(self, count: int = 1000, *, seed: int = 0) -> Array:
        """Accuracy with problems resampled, (count, budgets): the same seed resamples the same problems."""
        return resampling(self.cluster, count, seed) @ self.value

    def at(self, cost: str, amount: float, *, draws: int = 1000, seed: int = 0) -> Quantity:
        """Accuracy at a mean cost of `amount` a problem: a straight line in ln cost between budgets, nan outside."""
        weight = resampling(self.cluster, draws, seed)
        rows = np.vstack([np.full(len(self.cluster), 1 / len(self.cluster)), weight])
        got = _between(rows @ self.cost[cost], rows @ self.value, amount)
        return Quantity(float(got[0]), got[1:])


@dataclass(frozen=True)
class Curves(Mapping[str, Curve]):
    """Curves by strategy, with how they were made: `how` holds the tie rule, answer equality and subsets."""

    curves: dict[str, Curve]
    level: float
    how: dict[str, Any]
    draws: int = 1000
    seed: int = 0
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Curve:
        if name not in self.curves:
            raise LookupError(f"no curve {name!r}; there are {', '.join(self.curves)}")
        return self.curves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    def rows(self) -> list[dict[str, Any]]:
        """One row a strategy and budget: accuracy with its interval over problems, and mean costs of a problem."""
        out = []
        tail = (100 - self.level) / 2
        for curve in self.curves.values():
            low, high = np.percentile(curve.draws(self.draws, seed=self.seed), [tail, 100 - tail], axis=0)
            for j, k in enumerate(curve.k):
                row: dict[str, Any] = {"strategy": curve.name, "k": int(k), "accuracy": float(curve.accuracy[j])}
                row |= {"low": float(low[j]), "high": float(high[j]), "error": float(curve.error[j])}
                out.append(row | {name: float(v[:, j].mean()) for name, v in curve.cost.items()})
        return out

    def to_dict(self) -> dict[str, Any]:
        """What `isoflop think replay --json` prints."""
        n = len(next(iter(self.curves.values())).problems)
        return {
            "level": self.level, "problems": n, "how": self.how, "rows": self.rows(), "best": self.best(),
            "warnings": list(self.warnings),
        }  # fmt: skip

    def best(self) -> list[dict[str, Any]]:
        """Which strategy is best at each budget of samples, and which others cannot be told from it.

        Strategies that need the labels (coverage, pass^k) are none. All pairs at all budgets are tested at once at
        `level`: the signs of the paired differences are flipped by cluster, and the largest |sum| / root sum of
        squares of each flip sets the bar (Westfall and Young). A pair within 3 Monte Carlo errors is not told apart.
        """
        usable = sorted((c for c in self.curves.values() if c.needs != "labels"), key=lambda c: c.error.max())
        if not usable:
            return []
        _, place = np.unique(usable[0].cluster, return_inverse=True)
        flips = np.random.default_rng(self.seed).choice([-1.0, 1.0], (self.draws, int(place.max()) + 1))
        pairs = [(i, j) for i in range(len(usable)) for j in range(i)]
        told = np.zeros((len(usable), len(usable), len(usable[0].k)), bool)
        if pairs:
            gaps = np.stack([usable[i].value - usable[j].value for i, j in pairs])
            noise = np.stack([np.hypot(usable[i].error, usable[j].error) for i, j in pairs])
            clear = clear_of_chance(gaps, place, flips, self.level) & (np.abs(gaps.mean(1)) > 3 * noise)
            for (i, j), row in zip(pairs, clear, strict=True):
                told[i, j] = told[j, i] = row
        out = []
        for b, k in enumerate(usable[0].k):
            top = int(np.argmax([c.accuracy[b] for c in usable]))
            open_ = [c.name for i, c in enumerate(usable) if i != top and not told[i, top, b]]
            out.append({"k": int(k), "best": usable[top].name, "undecided": open_})
        return out

    def __str__(self) -> str:
        costs = [c for c in next(iter(self.curves.values())).cost if c != "samples"]
        head = f"{'strategy':<14} {'k':>6} {'accuracy':>9}  {f'{self.level:g} % interval':<17} {'samples':>9}"
        lines = [head + "".join(f" {c:>13}" for c in costs)]
        for r in self.rows():
            plus = f" +-{1.96 * r['error']:.4f} (Monte Carlo)" if r["error"] else ""
            line = f"{r['strategy']:<14} {r['k']:>6} {r['accuracy']:>9.4f}  [{r['low']:.4f}, {r['high']:.4f}]  "
            lines.append(line + f"{r['samples']:>9.2f}" + "".join(f" {r[c]:>13.6g}" for c in costs) + plus)
        for b in self.best():
            rest = f"; not told apart from {', '.join(b['undecided'])}" if b["undecided"] else ""
            lines.append(f"best at k = {b['k']}: {b['best']}{rest}")
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def clear_of_chance(gaps: Array, place: Array, flips: Array, level: float) -> Array:
    """Which differences (pairs, problems, budgets) are not chance, all tested at once; (pairs, budgets)."""
    member = (place == np.arange(flips.shape[1])[:, None]).astype(float)
    flat = np.einsum("cp,gpk->cgk", member, gaps).reshape(flips.shape[1], -1)
    scale = np.sqrt((flat**2).sum(0)) + TINY
    bar = np.percentile(np.abs(flips @ (flat / scale)).max(1), level)
    return (np.abs(flat.sum(0)) / scale > bar).reshape(gaps.shape[0], gaps.shape[2])


def resampling(cluster: Array, count: int, seed: int) -> Array:
    """Weights of problems with clusters resampled, (count, problems); each row sums to 1."""
    _, place = np.unique(cluster, return_inverse=True)
    clusters = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), count)[:, place].astype(float)
    return drawn / drawn.sum(1, keepdims=True)


# ---- strategies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What strategies share. subsets: "all" of size k, or the "first" k as recorded."""

    tie: str = "even"
    subsets: str = "all"
    tpr: float = 0.9
    fpr: float = 0.1
    rule: str = "beta"
    risk: float = 0.05
    orders: int = 200
    seed: int = 0


Result = tuple[Array, Array, Array]  # value, samples drawn, Monte Carlo error; each (problems, budgets)


def _exact(value: Array, k: Array) -> Result:
    return value, np.broadcast_to(np.asarray(k, float), value.shape), np.zeros(value.shape)


def _coverage(s: Samples, k: Array, how: Settings) -> Result:
    return _exact(_first_correct(s, k, "max") if how.subsets == "first" else pass_at_k(s.n, s.c, k), k)


def _pass_hat(s: Samples, k: Array, how: Settings) -> Result:
    return _exact(_first_correct(s, k, "min") if how.subsets == "first" else pass_hat_k(s.n, s.c, k), k)


def _single(s: Samples, k: Array, how: Settings) -> Result:
    """One of k at random: the accuracy of one sample at the price of k."""
    value = _first_correct(s, k, "mean") if how.subsets == "first" else np.repeat((s.c / s.n)[:, None], len(k), 1)
    return _exact(value, k)


def _first_correct(s: Samples, k: Array, how: str) -> Array:
    def one(right: Array) -> Array:
        return np.stack([getattr(right[:, :x], how)(1) for x in k], 1)

    return _by_block(s, k, lambda rows: one(s.table("correct", rows).astype(float)))


def _best_of(s: Samples, k: Array, how: Settings) -> Result:
    def one(rows: Array) -> Array:
        score, right = s.table("score", rows), s.table("correct", rows).astype(float)
        if how.subsets == "all":
            return best_of_k(score, right, k)
        places = [score[:, :x].argmax(1) for x in k]  # the first of equals
        return np.stack([right[np.arange(len(right)), p] for p in places], 1)

    return _exact(_by_block(s, k, one), k)


def _vote(s: Samples, k: Array, how: Settings, weigh: Callable[[Array], Array] | None = None) -> Result:
    value, error = np.zeros((len(s), len(k))), np.zeros((len(s), len(k)))
    rng = np.random.default_rng(how.seed)
    for which, rows in s.blocks():
        codes, right = s.table("answer", rows), s.table("correct", rows)
        w = None if weigh is None else np.maximum(weigh(s.table("score", rows)), TINY)
        if how.subsets == "first":
            value[which] = in_order(codes, right, k, weights=w, last=how.tie == "last")
            continue
        value[which], error[which] = vote_at_k(
            codes, right, k, weights=w, tie=how.tie, orders=how.orders, rng=rng
        )  # fmt: skip
    return value, _exact(value, k)[1], error


def _weighted(s: Samples, k: Array, how: Settings) -> Result:
    return _vote(s, k, how, lambda score: np.maximum(score, 0.0))


def _weighted_exp(s: Samples, k: Array, how: Settings) -> Result:
    return _vote(s, k, how, lambda score: np.exp(score - score.max(1, keepdims=True)))


def _verified(s: Samples, k: Array, how: Settings) -> Result:
    if how.subsets == "first":
        raise ValueError("'verified' is an average over verdicts and subsets; it has no subsets='first'")
    return _exact(best_of_k_verified(s.n, s.c, k, tpr=how.tpr, fpr=how.fpr), k)


def _adaptive(s: Samples, k: Array, how: Settings) -> Result:
    out = np.zeros((3, len(s), len(k)))
    rng = np.random.default_rng(how.seed)
    for which, rows in s.blocks():
        codes, right = s.table("answer", rows), s.table("correct", rows)
        out[:, which] = early_stop(codes, right, k, rule=how.rule, risk=how.risk, orders=how.orders, rng=rng)
    return out[0], out[1], out[2]


def _by_block(s: Samples, k: Array, one: Callable[[Array], Array]) -> Array:
    out = np.zeros((len(s), len(k)))
    for which, rows in s.blocks():
        out[which] = one(rows)
    return out


# name: (function, columns it reads, what it needs to be used)
_STRATEGIES: dict[str, tuple[Callable[[Samples, Array, Settings], Result], tuple[str, ...], str]] = {
    "coverage": (_coverage, (), "labels"),
    "pass_hat": (_pass_hat, (), "labels"),
    "single": (_single, (), ""),
    "majority": (_vote, ("answer",), ""),
    "adaptive": (_adaptive, ("answer",), ""),
    "best_of_n": (_best_of, ("score",), "score"),
    "weighted_vote": (_weighted, ("answer", "score"), "score"),
    "weighted_exp": (_weighted_exp, ("answer", "score"), "score"),
    "verified": (_verified, (), "score"),
}
STRATEGIES = tuple(_STRATEGIES)


def replay(
    samples: Any, *, strategies: Sequence[str] | None = None, budgets: Sequence[int] | None = None, level: float = 90,
    score_cost: float = 0.0, draws: int = 1000, settings: Settings | None = None, **read: Any,
) -> Curves:  # fmt: skip
    """Accuracy and cost of sampling strategies at every budget, from recorded samples

    Over all subsets of size k in closed form (coverage: unbiased pass@k; pass_hat: all of k; single; best_of_n by
    score, equals evenly; verified: sample until a verifier with settings.tpr and fpr passes one), exactly where
    feasible and else by Monte Carlo with its standard error (majority, weighted_vote by score, weighted_exp by
    exp(score), adaptive: majority that stops early). Intervals: problems resampled. Without `strategies`, all for which
    the samples have the columns, save verified. budgets: numbers of samples k; powers of 2 to the fewest samples of a
    problem unless told. score_cost: tokens of scoring one sample, as a multiple of its gen_tokens. settings: see
    `Settings`. read: how a file is read, see `read_samples` (unit, by, rename, only, same). Returns Curves. Raises
    ValueError for a budget above the samples there are, or a column that is missing.
    """
    how = settings or Settings()
    s = samples if isinstance(samples, Samples) else read_samples(samples, **read)
    k = _budgets(s, budgets)
    if how.subsets not in ("all", "first") or (how.subsets == "first" and how.tie not in ("even", "first", "last")):
        raise ValueError(f"subsets={how.subsets!r}, tie={how.tie!r}: subsets are 'all' (ties 'even' or 'wrong') or "
                         "'first' (ties 'first' or 'last')")  # fmt: skip
    curves, names = {}, strategies or _possible(s, how)
    with progress("replayed, strategies", len(names)) as tick:
        for name in names:
            function, _, needs = _lookup(name, s, how)
            value, drawn, error = function(s, k, how)
            cost = _costs(s, k, drawn, how, score_cost if needs == "score" else 0.0, once=name != "adaptive")
            spread = np.sqrt((error**2).sum(0)) / len(s)
            curves[name] = Curve(name, k, value, cost, spread, s.problems, s.cluster, needs)
            tick(1)
    record = dict(s.how) | {
        "tie": how.tie, "subsets": how.subsets, "score_cost": score_cost, "draws": draws, "seed": how.seed
    }  # fmt: skip
    return Curves(curves, level, record, draws, how.seed, s.warnings + _doubts(s))


def _budgets(s: Samples, budgets: Sequence[int] | None) -> Array:
    fewest = int(s.n.min())
    if budgets is None:
        powers = 2 ** np.arange(fewest.bit_length())
        return np.unique(np.append(powers, fewest))
    k = np.unique(np.asarray(list(budgets), int))
    if not len(k) or k[0] < 1 or k[-1] > fewest:
        few = s.problems[int(s.n.argmin())]
        raise ValueError(f"budgets must be from 1 to {fewest}, the samples of problem {few!r}; got {list(budgets)}")
    return k


def _possible(s: Samples, how: Settings) -> list[str]:
    return [n for n, (_, columns, _) in _STRATEGIES.items() if n != "verified" and _has(s, columns, how, n)]


def _has(s: Samples, columns: Sequence[str], how: Settings, name: str) -> bool:
    if name == "adaptive" and how.subsets == "first":
        return False
    return all(c in s.columns for c in columns) and (s.rows or how.subsets == "all")


def _lookup(name: str, s: Samples, how: Settings) -> tuple[Callable[..., Result], tuple[str, ...], str]:
    if name not in _STRATEGIES:
        raise LookupError(f"no strategy {name!r} to replay; there are {', '.join(STRATEGIES)}")
    found = _STRATEGIES[name]
    if not _has(s, found[1], how, name):
        have = ", ".join(s.columns) or "counts only"
        raise ValueError(
            f"{name!r} cannot be replayed with subsets={how.subsets!r} from these samples: they have {have}"
        )
    return found


def _costs(
    s: Samples, k: Array, drawn: Array, how: Settings, score_cost: float, *, once: bool
) -> dict[str, Array]:  # fmt: skip
    """once: all k are asked for together; where the record says that such samples share it, the prompt is read once."""
    cost = {"samples": np.array(drawn)}
    for name, mean in s.cost.items():
        if name == "prompt_tokens" and once and s.how.get("together"):
            cost[name] = np.repeat(mean[:, None], len(k), 1)
        elif how.subsets == "first":
            cost[name] = _first_cost(s, k, name)
        else:
            cost[name] = drawn * mean[:, None]
    if score_cost and "gen_tokens" in cost:
        cost["gen_tokens"] = cost["gen_tokens"] * (1 + score_cost)
    if "gen_tokens" in cost and "prompt_tokens" in cost:
        cost["tokens"] = cost["gen_tokens"] + cost["prompt_tokens"]
    if "usd" not in cost and "gen_tokens" in cost:
        prices = Prices(**s.how.get("prices", {}))
        usd = prices.usd(prompt=cost.get("prompt_tokens", 0.0), cached=0, gen=cost["gen_tokens"])
        if np.any(usd):
            cost["usd"] = usd
    return cost


def _first_cost(s: Samples, k: Array, name: str) -> Array:
    return _by_block(s, k, lambda rows: np.cumsum(s.table(name, rows), 1, dtype=float)[:, k - 1])


def _doubts(s: Samples) -> tuple[str, ...]:
    out = []
    if len(np.unique(s.cluster)) < 20:
        out.append(f"only {len(np.unique(s.cluster))} problems: intervals over so few are too narrow")
    if len(np.unique(s.n)) > 1:
        from isoflop.levers.think._forecast_coverage import stops_on_success

        if stops_on_success(s.n, s.c):
            out.append(
                "problems with rarer successes have more samples: if sampling stopped on success, c / n is biased"
            )
    return tuple(out)


# ---- two curves ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """a - b at equal cost, problems resampled together. cross: the costs at which the sign changes."""

    cost: Array
    gap: tuple[Quantity, ...]
    cross: tuple[Quantity, ...] = field(default=())

    def told_apart(self, level: float = 90) -> Array:
        """Where the interval leaves out 0."""
        ends = [q.interval(level) for q in self.gap]
        return np.array([low > 0 or high < 0 for low, high in ends])


def difference(
    a: Curve, b: Curve, *, cost: str = "samples", points: int = 200, draws: int = 1000, seed: int = 0
) -> Difference:  # fmt: skip
    """Curve a minus curve b over the costs that both reach, paired by problem where the problems are the same

    Straight lines in ln cost between budgets. Where the sign of the gap changes, the cost of the crossing with its
    draws (nan for resamplings that do not cross). Raises ValueError where the curves share no range of costs.
    """
    wa, wb = _paired(a, b, draws, seed)
    ca, va = wa @ a.cost[cost], wa @ a.value
    cb, vb = wb @ b.cost[cost], wb @ b.value
    low, high = max(ca[0, 0], cb[0, 0]), min(ca[0, -1], cb[0, -1])
    if not low < high:
        raise ValueError(f"{a.name} and {b.name} share no range of {cost}")
    grid = np.geomspace(low, high, points)
    gap = _between(ca, va, grid, edge=True) - _between(cb, vb, grid, edge=True)
    crossed = [_crossing(grid, row) for row in gap]
    gaps = tuple(Quantity(float(gap[0, j]), gap[1:, j]) for j in range(points))
    cross = tuple(Quantity(x, np.array([_nearest(c, x) for c in crossed[1:]])) for x in crossed[0])
    return Difference(grid, gaps, cross)


def _paired(a: Curve, b: Curve, draws: int, seed: int) -> tuple[Array, Array]:
    def rows(curve: Curve, s: int) -> Array:
        return np.vstack([np.full(len(curve.problems), 1 / len(curve.problems)), resampling(curve.cluster, draws, s)])

    if set(a.problems) != set(b.problems):
        return rows(a, seed), rows(b, seed + 1)
    wa = rows(a, seed)
    place = {p: i for i, p in enumerate(a.problems)}
    return wa, wa[:, [place[p] for p in b.problems]]


def _between(cost: Array, value: Array, at: Any, *, edge: bool = False) -> Array:
    """Row by row, value at a cost: linear in ln cost; outside the row's costs nan, or its end's value."""
    x = np.log(np.atleast_1d(np.asarray(at, float)))
    outside = {} if edge else {"left": np.nan, "right": np.nan}
    out = np.stack([np.interp(x, np.log(c), v, **outside) for c, v in zip(cost, value, strict=True)])
    return out[:, 0] if np.ndim(at) == 0 else out


def _crossing(grid: Array, gap: Array) -> list[float]:
    at = np.flatnonzero(gap[1:] * gap[:-1] < 0)
    share = gap[at] / (gap[at] - gap[at + 1])
    return list(np.exp(np.log(grid[at]) + share * np.log(grid[at + 1] / grid[at])))


def _nearest(found: list[float], x: float) -> float:
    return min(found, key=lambda y: abs(np.log(y / x))) if found else float("nan")
