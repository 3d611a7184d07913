"""Does a law work with this engine? Plant it, fit it, and see whether it comes back, with honest intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop._fit import fit, fitted, prepare
from isoflop._law import Law, get_law
from isoflop._newton import Evaluator
from isoflop._progress import progress

_SPANS = {  # what planted columns run over, by name; any other column runs from 1 to 10^4
    "params": (1e7, 1e10), "tokens": (1e9, 1e12), "unique": (1e9, 1e11), "flops": (1e17, 1e22),
    "lr_area": (0.1, 30.0), "anneal_area": (1e-3, 1.0), "x": (1.0, 1e6),
}  # fmt: skip
_PARTS = {  # of names that stand for several columns: the spans of these, over and over
    "lr_drops": ((1e-6, 3e-5), (3e-5, 3e-4), (1e-3, 10.0)),
}


@dataclass(frozen=True)
class Check:
    """What check_law found. `ok` says whether the law can be relied on; `text` is for people."""

    law: str
    planted: dict[str, float]
    recovered: dict[str, float]
    gradient_error: float
    agreeing: float
    coverage: dict[str, float] | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.law}: {'works' if self.ok else 'has problems'}; {100 * self.agreeing:.0f} % of starts agree"]
        for name, truth in self.planted.items():
            covered = "" if self.coverage is None else f", 90 % interval holds it in {100 * self.coverage[name]:.0f} %"
            lines.append(f"  {name}: planted {truth:.4g}, recovered {self.recovered[name]:.4g}{covered}")
        return "\n".join([*lines, *(f"problem: {p}" for p in self.problems)])


def check_law(
    law: str | Law, *, planted: Mapping[str, float] | None = None, columns: Mapping[str, Any] | None = None,
    noise: float = 0.01, data_sets: int = 0, seed: int = 0,
) -> Check:  # fmt: skip
    """Plant a law's own coefficients and recover them.

    planted: coefficients, else typical ones of the plausible ranges. columns: the design, arrays of equal length, else
    a spread one of 20 rows a coefficient. noise: relative (log objectives) or absolute scatter. data_sets: how many
    noisy data sets to count the coverage of the 90 % intervals over (0: none; 200 takes a minute).

    Checked: value and derivatives are finite and the derivatives agree with finite differences; noise-free rows give
    the coefficients back to 1 %; coverage lies between 85 and 95 %, where it is counted.
    """
    found = get_law(law)
    rng = np.random.default_rng(seed)
    design = {c: np.asarray(v, float) for c, v in columns.items()} if columns else plant_columns(found, rng)
    found.trace(set())  # a law that cannot be traced says so before anything is worked out
    truth = plant_coefs(found, design) | dict(planted or {})
    rows = observe(found, design, truth, 0.0, rng)
    problems = []
    if not np.isfinite(rows[found.target]).all():
        return Check(found.name, truth, {}, np.nan, 0.0, None, ("its value is not finite on the planted rows",))
    error = _gradient_error(found, rows, truth)
    if not error < 1e-4:
        problems.append(f"derivatives differ from finite differences by {error:.2g} relative")
    exact = fit(found, rows, draws=0, seed=seed)
    for name, value in truth.items():
        if abs(exact.coef[name] - value) > 0.01 * max(abs(value), 1e-3):
            problems.append(f"{name} came back as {exact.coef[name]:.4g} instead of {value:.4g} from noise-free rows")
    covered = coverage(found, design, truth, noise=noise, data_sets=data_sets, seed=seed) if data_sets else None
    for name, share in (covered or {}).items():
        margin = 2.0 * np.sqrt(0.9 * 0.1 / data_sets)
        if not 0.85 - margin <= share <= 0.95 + margin:
            problems.append(f"the 90 % interval of {name} holds it in {100 * share:.0f} % of {data_sets} data sets")
    share = exact.agreeing / exact.starts
    return Check(found.name, truth, exact.coef, error, share, covered, tuple(problems))


def coverage(found: Law, design: Mapping[str, np.ndarray], truth: Mapping[str, float], *, noise: float, data_sets: int,
             seed: int, draws: int = 200) -> dict[str, float]:  # fmt: skip
    """Share of noisy data sets whose 90 % interval holds the planted value, by coefficient."""
    inside = dict.fromkeys(truth, 0)
    with progress(f"coverage of {found.name}", data_sets) as tick:
        for k in range(data_sets):
            rows = observe(found, design, truth, noise, np.random.default_rng([seed, k]))
            made = fitted(prepare(found, rows), law=found, draws=draws, seed=k, by=None)  # no rolling calibration
            for name, (low, high) in made.interval(90).items():
                inside[name] += low <= truth[name] <= high
            tick(1)
    return {name: count / data_sets for name, count in inside.items()}


def observe(found: Law, design: Mapping[str, np.ndarray], truth: Mapping[str, float], noise: float,
            rng: np.random.Generator) -> dict[str, np.ndarray]:  # fmt: skip
    """The design with the law's target measured: lognormal scatter under log objectives, else normal."""
    value = np.asarray(found(**design, **truth))
    scatter = noise * rng.standard_normal(value.shape)
    log = found.objective.endswith("_log") or found.objective == "student_t"
    return {**design, found.target: value * np.exp(scatter) if log else value + scatter}


def plant_columns(found: Law, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A design of 20 rows a coefficient: each column log-spaced over its span, in random order."""
    n = 20 * len(found.coefs)
    out = {}
    for column in found.table_columns:
        low, high = _span(column)
        out[column] = rng.permutation(np.geomspace(low, high, n))
    if {"tokens", "unique"} <= out.keys():
        out["unique"] = out["tokens"] / rng.permutation(np.geomspace(1.0, 60.0, n))
    return out


def _span(column: str) -> tuple[float, float]:
    name, _, number = column.rpartition("_")
    if name in _PARTS:
        return _PARTS[name][(int(number) - 1) % len(_PARTS[name])]
    return _SPANS.get(column, (1.0, 1e4))


def plant_coefs(found: Law, design: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Typical coefficients: inside their plausible ranges, amplitudes such that every term is felt on the design."""
    middles = {}
    for name, s in found.coefs.items():
        if s.like == "target":
            middles[name] = 1e-6
            continue
        if s.like:
            bound = dict(found.axis)
            low, high = s.range({s.like: design[bound.get(s.like, s.like)]})
        else:
            low, high = s.low, s.high
        wide = s.kind == "positive"
        middles[name] = float(np.sqrt(low * high)) if wide else low + 0.7 * (high - low)
    offsets = [name for name, s in found.coefs.items() if s.like == "target"]
    if offsets:
        rest = np.asarray(found(**design, **middles))
        rest = rest[np.isfinite(rest)]
        middles[offsets[0]] = float(max(np.median(rest), -1.5 * rest.min()))  # above zero everywhere
    return middles


def _gradient_error(found: Law, rows: Mapping[str, np.ndarray], truth: Mapping[str, float]) -> float:
    """Largest difference between exact and central-difference gradients of the objective, relative to its size."""
    setup = prepare(found, rows)
    evaluate = Evaluator(setup.problem, 1)
    theta = found.inward(np.array([truth[c] for c in found.coefs])) + 0.01
    if setup.problem.objective.scaled:
        theta = np.append(theta, 0.0)
    exact = evaluate(theta[None], None).gradient[0]
    numeric = np.empty_like(exact)
    for i in range(len(theta)):
        h = np.zeros_like(theta)
        h[i] = 1e-5
        numeric[i] = (evaluate((theta + h)[None], None).value[0] - evaluate((theta - h)[None], None).value[0]) / 2e-5
    return float(np.abs(exact - numeric).max() / max(np.abs(exact).max(), 1e-300))
