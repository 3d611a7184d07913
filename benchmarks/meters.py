"""How the meters do where the truth is known: `python benchmarks/meters.py --out checks.csv` (about a minute).

One row a case, seed and figure; isoflop/recorded/meters/checks.csv is what it writes.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from isoflop._meter import get_meter
from isoflop.theory.early_warning import _fold

Row = tuple[str, int, str, float]  # case, seed, figure, value


def gradient_noise_scale() -> Iterator[Row]:
    """Gradients around a known mean: the unbiased pair beside the plug-in from 16 micro-batches."""
    d, steps, small, parts = 300, 100, 4, 16
    deviation = np.linspace(0.5, 1.5, d)
    truth = float((deviation**2).sum() / (d * 0.04**2))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        g = 0.04 + rng.standard_normal((steps, parts, d)) * deviation / np.sqrt(small)
        whole = g.mean(axis=1)
        found = get_meter("gradient_noise_scale")(
            grad_sq_small=(g**2).sum(2).ravel(), grad_sq_big=np.repeat((whole**2).sum(1), parts),
            batch_small=np.full(steps * parts, small), batch_big=np.full(steps * parts, small * parts),
            step=np.repeat(np.arange(steps), parts),
        )  # fmt: skip
        naive = small * ((g - whole[:, None]) ** 2).sum(2).mean() / (whole**2).sum(1).mean()
        yield "gaussian", seed, "relative", found["noise_scale"] / truth
        yield "gaussian", seed, "covered", float(found["low"] <= truth <= found["high"])
        yield "gaussian", seed, "naive_relative", float(naive / truth)


def pate() -> Iterator[Row]:
    """A random score, and a sharp one that comes so many rows late."""
    label = np.zeros(2000)
    for start in range(100, 2000, 200):
        label[start : start + 20] = 1
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = get_meter("pate")(score=rng.random(2000), label=label, early=40, late=40)
        for figure in ("pate", "auc_pr", "adjusted_f1", "range_f1", "prevalence"):
            yield "random", seed, figure, found[figure]
        for late in (0, 10, 20, 40, 80):
            score = np.roll(label, late) + 0.01 * rng.random(2000)
            yield f"late {late}", seed, "pate", get_meter("pate")(score=score, label=label, early=40, late=40)["pate"]


def drift(rows: int = 600, at: int = 300, nulls: int = 200) -> Iterator[Row]:
    """The sequential test beside sliding windows whose thresholds give 5 % false alarms on white noise."""
    window = {"ks": _ks, "wasserstein": _wasserstein, "psi": _psi}
    tops = {k: [] for k in window}
    for seed in range(nulls):
        stream = np.random.default_rng(10_000 + seed).standard_normal(rows)
        for k, f in window.items():
            tops[k].append(max(v for _, v in _windows(stream, f)))
    cuts = {k: float(np.quantile(v, 0.95)) for k, v in tops.items()}
    decline = 3.0 * (500.0 + np.arange(rows)) ** -0.3 / 0.02
    for case, course, size in (("white", 0 * decline, 0.0), ("decline", decline, 0.0), ("white", 0 * decline, 1.0),
                               ("white", 0 * decline, 2.0), ("decline", decline, 1.0),
                               ("decline", decline, 2.0)):  # fmt: skip
        for seed in range(40):
            stream = np.random.default_rng(seed).standard_normal(rows) + course
            stream[at:] += size
            first = {"sprt": get_meter("drift")(loss=stream, step=500 + np.arange(rows))["at"] - 500}
            for k, f in window.items():
                first[k] = next((r for r, v in _windows(stream, f) if v > cuts[k]), np.nan)
            for k, row in first.items():
                early = row < at if size else row == row
                yield f"{case} {size:g}", seed, f"{k}_false", float(early)
                if size:
                    yield (
                        f"{case} {size:g}",
                        seed,
                        f"{k}_delay",
                        float(min(row - at, rows - at)) if row >= at else rows - at,
                    )


def _windows(stream: np.ndarray, statistic: Callable, before: int = 200, now: int = 50) -> Iterator[tuple[int, float]]:
    for end in range(before + now, len(stream) + 1, 5):
        yield end - 1, statistic(stream[end - now - before : end - now], stream[end - now : end])


def _ks(x: np.ndarray, y: np.ndarray) -> float:
    every, x, y = np.concatenate([x, y]), np.sort(x), np.sort(y)
    return float(
        np.abs(np.searchsorted(x, every, "right") / len(x) - np.searchsorted(y, every, "right") / len(y)).max()
    )


def _wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    at = (np.arange(50) + 0.5) / 50
    return float(np.abs(np.quantile(x, at) - np.quantile(y, at)).mean())


def _psi(x: np.ndarray, y: np.ndarray) -> float:
    edges = np.quantile(x, np.linspace(0, 1, 11))[1:-1]
    p, q = ((np.bincount(np.searchsorted(edges, v), minlength=10) + 0.5) / (len(v) + 5) for v in (x, y))
    return float(((q - p) * np.log(q / p)).sum())


def early_warning(n: int = 400, paths: int = 40) -> Iterator[Row]:
    """A fold that comes near, one that stays away, and autoregressions without any."""
    rng = np.random.default_rng(0)
    for case, mu in (("fold", np.linspace(1.0, 0.02, n)), ("held", np.ones(n))):
        for seed, x in enumerate(_fold(np.repeat(mu, 20), paths, 0.02, rng)[::20].T):
            found = get_meter("early_warning")(loss=x, surrogates=199)
            yield case, seed, "warning", float(found["verdict"] == "warning")
    for phi in (0.0, 0.5, 0.9):
        for seed in range(100):
            x = np.random.default_rng(seed).standard_normal(n + 100)
            for i in range(1, len(x)):
                x[i] += phi * x[i - 1]
            found = get_meter("early_warning")(loss=x[100:], surrogates=199)
            yield f"ar {phi:g}", seed, "warning", float(found["verdict"] == "warning")


def control_variate() -> Iterator[Row]:
    """Rare failures: one label in twenty, and a cheap score that knows how near each case is to failing."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        margin = rng.standard_normal(20_000)
        y = (margin + 0.3 * rng.standard_normal(20_000) < -2.0).astype(float)
        cheap = 1 / (1 + np.exp((margin + 2.0) / 0.18))
        known = np.isin(np.arange(20_000), rng.permutation(20_000)[:1000])
        found = get_meter("control_variate")(score=np.where(known, y, np.nan), cheap=cheap, finite=True)
        truth = float(y.mean())
        yield "rare", seed, "covered", float(found["low"] <= truth <= found["high"])
        yield "rare", seed, "error", found["estimate"] - truth
        yield "rare", seed, "plain_error", found["plain"] - truth
        yield "rare", seed, "truth", truth
        yield "rare", seed, "variance_ratio", found["variance_ratio"]


def ot_projection() -> Iterator[Row]:
    """Nearest neighbours on mixtures of a good and a shifted source: pilots of 60 and 120 points, targets of 960."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        val_x, val_y = _points(200, 1.0, rng)
        test_x, test_y = _points(1000, 1.0, rng)
        rows = []
        for size, mixes, repeats in (
            (60, np.linspace(0, 1, 5), 6),
            (120, np.linspace(0, 1, 5), 6),
            (960, (0.15, 0.5, 0.85), 1),
        ):
            for mix in mixes:
                for _ in range(repeats):
                    x, y = _points(size, mix, rng)
                    side = np.repeat([0, 1], [60, 200])  # all distances on 60 points, as they depend on how many
                    apart = get_meter("ot_distance")(x=np.vstack([x[:60], val_x]), target=side,
                                                     label=np.concatenate([y[:60], val_y]), tolerance=0.03)  # fmt: skip
                    rows.append((size, apart["ot_distance"], _neighbours(x, y, test_x, test_y)))
        size, apart, truth = np.array(rows).T
        pilot = np.where(size < 960, truth, np.nan)
        ahead = get_meter("ot_projection")(accuracy=pilot, ot_distance=apart, examples=size)[size == 960]
        small, large = (float(np.nanmean(pilot[size == s])) for s in (60, 120))
        blind = large + (large - small) * np.log(960 / 120) / np.log(2)
        errors = [float(np.abs(guess - truth[size == 960]).mean()) for guess in (ahead, blind)]
        for figure, value in zip(("error", "blind_error", "relative"), (*errors, errors[0] / errors[1]), strict=True):
            yield "neighbours", seed, figure, value


def _points(n: int, good: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, 3, n)
    off = np.where(rng.random(n) < good, 0.0, 1.5)
    return rng.standard_normal((n, 5)) + 1.2 * np.eye(5)[y] + off[:, None] * np.eye(5)[(y + 1) % 3], y


def _neighbours(x: np.ndarray, y: np.ndarray, new: np.ndarray, truth: np.ndarray, k: int = 5) -> float:
    near = np.argsort(((new[:, None] - x) ** 2).sum(-1), axis=1)[:, :k]
    votes = np.stack([(y[near] == c).sum(axis=1) for c in range(3)], axis=1)
    return float((votes.argmax(axis=1) == truth).mean())


def transferability(sets: int = 10, models: int = 10) -> Iterator[Row]:
    """A low-rank table of scores, ten data sets by ten models, and a zero-shot score that is a noisy guess of it."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        u, v = rng.standard_normal((sets, 3)), rng.standard_normal((models, 3))
        score = u @ v.T + 0.1 * rng.standard_normal((sets, models))
        guess = score + 1.2 * rng.standard_normal(score.shape)
        d, m = (i.ravel() for i in np.meshgrid(range(sets), range(models), indexing="ij"))
        x = np.hstack([u[d], v[m], guess.reshape(-1, 1)])
        first, other = (get_meter("transferability")(score=score.ravel(), data=d, x=x, method=method)
                        .reshape(sets, models) for method in ("kernel", "knn"))  # fmt: skip
        yield "low rank", seed, "kernel_tau", _mean_tau(score, first)
        yield "low rank", seed, "knn_tau", _mean_tau(score, other)
        yield "low rank", seed, "zero_shot_tau", _mean_tau(score, guess)
        yield "low rank", seed, "gain", _mean_tau(score, first) / _mean_tau(score, guess)


def _mean_tau(score: np.ndarray, made: np.ndarray) -> float:
    each = [get_meter("rank_agreement")(score=s, predicted=p)["tau"] for s, p in zip(score, made, strict=True)]
    return float(np.mean(each))


def honest_pass_at_k(problems: int = 100, n: int = 64) -> Iterator[Row]:
    """Flawed answers come by problems; a person reads up to four right answers of four problems in ten."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        c = rng.binomial(n, rng.beta(0.5, 1.0, problems))
        good = rng.binomial(c, 1 - rng.beta(0.5, 1.5, problems))
        checked = np.where(rng.random(problems) < 0.4, np.minimum(c, 4), 0)
        flawed = rng.hypergeometric(c - good, good, checked)
        for k in (1, 8, 32):
            found = get_meter("honest_pass_at_k")(
                n=np.full(problems, n), c=c, checked=checked, flawed=flawed, k=k, draws=60
            )
            truth = float(np.mean(1 - np.prod([np.maximum(n - good - i, 0) / (n - i) for i in range(k)], axis=0)))
            yield f"k {k}", seed, "covered", float(found["low"] <= truth <= found["high"])
            yield f"k {k}", seed, "error", found["corrected"] - truth
            yield f"k {k}", seed, "naive_error", found["naive"] - truth


def budget_peak(problems: int = 60) -> Iterator[Row]:
    """A planted inverted U with its peak at 4096 tokens, and a curve that only rises."""
    u = np.tile(np.arange(8.0, 15.0), problems)
    name = np.repeat(np.arange(problems), 7)
    for case, curve in (("peak", 0.5 - 0.015 * (u - 12) ** 2), ("rising", 0.2 + 0.03 * (u - 8))):
        for seed in range(100):
            rng = np.random.default_rng(seed)
            hit = rng.random(len(u)) < np.clip(curve + 0.15 * rng.standard_normal(problems)[name], 0, 1)
            found = get_meter("budget_peak")(gen_tokens=2.0**u, accuracy=hit.astype(float), problem=name)
            yield case, seed, "called", float(found["verdict"] == case)
            if case == "peak" and found["verdict"] == "peak":
                yield case, seed, "covered", float(found["low"] <= 4096 <= found["high"])


def arise(levels: int = 6) -> Iterator[Row]:
    """Problems that are solved, stay as they are, or are lost as the budget doubles."""
    tokens = 2.0 ** np.arange(8, 8 + levels)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for case, trend in (("rising", 0.12), ("flat", 0.0), ("falling", -0.12)):
            steps = 0.5 + trend * (np.arange(levels) - (levels - 1) / 2)
            a = (rng.random((200, 1)) < steps).astype(float)
            made = get_meter("arise")(
                accuracy=a.ravel(), gen_tokens=np.tile(tokens, 200), run=np.repeat(np.arange(200), levels)
            )
            yield case, seed, "arise", float(made[levels - 1 :: levels].mean())


def compute_optimal(problems: int = 200, samples: int = 32) -> Iterator[Row]:
    """Parallel samples with a noisy verifier win on easy problems, revisions on hard ones."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        p = rng.beta(0.6, 0.9, problems)
        rows = []
        for t in (2, 4, 8, 16, 32):
            best = np.clip(1 - (1 - 0.8 * p) ** t, 0, 1) * (0.75 + 0.25 * p)
            revised = np.clip(0.35 + 0.3 * p + 0.05 * np.log2(t), 0, 1)
            for name, chance in (("best_of_n", best), ("revise", revised)):
                hits = rng.binomial(samples, chance) / samples
                rows += [(q, name, t, h, 1 - x) for q, (h, x) in enumerate(zip(hits, p, strict=True))]
        columns = dict(
            zip(("problem", "strategy", "gen_tokens", "accuracy", "difficulty"), zip(*rows, strict=True), strict=True)
        )
        found = get_meter("compute_optimal")(**columns, baseline="best_of_n")
        yield "two strategies", seed, "saving", found["saving"]
        yield "two strategies", seed, "gain", found["policy"] - found["baseline_accuracy"]


def capacity_choice() -> Iterator[Row]:
    """Heavy-tailed demand: the quantile of 2000 draws beside a normal quantile and the mean, on 20,000 fresh draws."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        seen, fresh = 10 * rng.pareto(2.5, 2000), 10 * rng.pareto(2.5, 20_000)
        found = get_meter("capacity_choice")(demand=seen, price=1.0, penalty=10.0)
        choices = (found["capacity"], seen.mean() + 1.2816 * seen.std(), seen.mean())
        cost, normal, mean = (float(c + 10.0 * np.maximum(fresh - c, 0).mean()) for c in choices)
        yield "pareto", seed, "cost", cost
        yield "pareto", seed, "of_normal_cost", cost / normal
        yield "pareto", seed, "of_mean_cost", cost / mean


def attention_similarity() -> Iterator[Row]:
    """A model that shares half a standard deviation with its reader, under a trivial pattern that both follow."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, shared = (rng.random(1000) < 0.1).astype(float), rng.standard_normal(1000)
        model = 4 * first + shared + rng.standard_normal(1000)
        human = 4 * first + shared + rng.standard_normal(1000)
        found = get_meter("attention_similarity")(model=model, human=human, trivial=first)
        yield "planted", seed, "similarity", found["similarity"]
        yield "planted", seed, "raw", found["raw"]


def linear_error_share() -> Iterator[Row]:
    """Errors of which half the variance is linear in the activations."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((4000, 16))
        linear = x @ rng.standard_normal((16, 16)) / 4
        found = get_meter("linear_error_share")(x=x, error=linear + rng.standard_normal((4000, 16)) * linear.std())
        yield "half", seed, "linear_share", found["linear_share"]


def multifractal() -> Iterator[Row]:
    """A binomial cascade of 2^12 rows, whose tau(2) and alpha0 are known."""
    mu = np.ones(1)
    for _ in range(12):
        mu = np.stack([0.3 * mu, 0.7 * mu], axis=1).ravel()
    found = get_meter("multifractal")(mass=mu)
    yield "binomial", 0, "tau2_error", found["tau2"] + float(np.log2(0.3**2 + 0.7**2))
    yield "binomial", 0, "alpha0_error", found["alpha0"] + 0.5 * float(np.log2(0.3) + np.log2(0.7))


def prototype_distance() -> Iterator[Row]:
    """Ten classes on the sphere; a tenth of the points lie off their prototypes. How often is one of these farther?"""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((10, 16))
        odd = rng.random(1000) < 0.1
        x = centres[rng.integers(0, 10, 1000)] + np.where(odd, 2.0, 0.5)[:, None] * rng.standard_normal((1000, 16))
        far = get_meter("prototype_distance")(x=x, clusters=10, seed=seed)
        yield "ten classes", seed, "auc", float((far[odd][:, None] > far[~odd]).mean())


def coverage_weight() -> Iterator[Row]:
    """The slope of -log(1 - (1 - p)^N) in log p over that of -log p, by differences."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p, n = 10 ** rng.uniform(-4, -0.05, 50), rng.integers(1, 200, 50)
        up, down = (-np.log1p(-((1 - p * np.exp(h)) ** n)) for h in (1e-4, -1e-4))
        found = get_meter("coverage_weight")(pass_rate=p, samples=n)
        yield "differences", seed, "error", float(np.abs(found - (down - up) / 2e-4).max())


def active_units() -> Iterator[Row]:
    """Rectified normal units of which a planted number is dead and the rest fire as often as their bias says."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        dead, bias = int(rng.integers(0, 40)), 0.5
        x = np.maximum(rng.standard_normal((4000, 100)) + bias, 0)
        x[:, :dead] = 0
        found = get_meter("active_units")(x=x)
        yield "planted", seed, "error", found["active_units"] - (1 - dead / 100) * NormalDist().cdf(bias)
        yield "planted", seed, "dormant_error", found["dormant_share"] - dead / 100


def gemm_seconds() -> Iterator[Row]:
    """Square products at the corner of the roofline, twice and half as large: time over what arithmetic alone takes."""
    peak, bandwidth, item = 1e12, 1e11, 2
    corner = 3 * item * peak / (2 * bandwidth)  # 2 n^3 / peak = 3 item n^2 / bandwidth
    for case, size in (("small", corner / 2), ("corner", corner), ("large", corner * 2)):
        found = get_meter("gemm_seconds")(m=[size], n=[size], k=[size], peak=peak, bandwidth=bandwidth, item=item)
        yield case, 0, "of_arithmetic", float(found[0] * peak / (2 * size**3))


def failed_step_fraction() -> Iterator[Row]:
    """Traces that fail the more steps they give up, whatever their length: the best of eight by either."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        steps = rng.integers(10, 60, (400, 8))
        failed = rng.binomial(steps, rng.beta(1.0, 2.0, steps.shape))
        share = get_meter("failed_step_fraction")(steps=steps, steps_failed=failed)
        right = rng.random(steps.shape) < 0.9 * (1 - failed / steps)
        for figure, by in (("gain", share), ("shortest_gain", steps)):
            chosen = np.take_along_axis(right, by.argmin(axis=1)[:, None], axis=1)
            yield "planted", seed, figure, float(chosen.mean() - right.mean())


def outlier_dimensions() -> Iterator[Row]:
    """Planted dimensions beyond 6 in a tenth of the tokens, of half the layers."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, layer = rng.standard_normal((8 * 200, 64)), np.repeat(np.arange(8), 200)
        wide = rng.permutation(64)[: int(rng.integers(0, 6))]
        x[:, wide] += 30.0 * ((rng.random((1600, 1)) < 0.1) & (layer < 4)[:, None])
        yield (
            "planted",
            seed,
            "error",
            get_meter("outlier_dimensions")(x=x, layer=layer)["outlier_dimensions"] - len(wide),
        )


def metric_chain(questions: int = 200) -> Iterator[Row]:
    """Right and wrong choices that all grow likelier with compute, each wrong one in fits of its own."""
    compute = np.repeat(10.0 ** np.arange(18, 24), 3)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rise = np.log10(compute / 1e18) * rng.uniform(0.5, 1.5, (questions, 1))
        right = rng.normal(-12, 2, (questions, 1)) + rise + 0.3 * rng.standard_normal((questions, 18))
        wrong = rng.normal(-12, 2, (questions, 1, 3)) + 0.7 * rise[..., None] + rng.standard_normal((questions, 18, 3))
        found = get_meter("metric_chain")(
            question=np.repeat(np.arange(questions), 18), flops=np.tile(compute, questions), right=right.ravel(),
            wrong=wrong.reshape(-1, 3),
        )  # fmt: skip
        for figure in ("log_p", "p", "p_choice", "accuracy", "lost"):
            yield "planted", seed, figure, found[figure]


def stiffness() -> Iterator[Row]:
    """Euler steps of a linear system whose fastest rate times the step is known."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        fast = rng.uniform(0.2, 1.8)
        turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
        rates = np.concatenate([[fast], rng.uniform(0, 0.1, 7)])
        x = [rng.standard_normal((50, 8)) * np.concatenate([[100.0], np.ones(7)])]
        for _ in range(3):
            x.append(x[-1] * (1 - rates))
        stream = np.stack(x) @ turn
        found = get_meter("stiffness")(x=stream.reshape(-1, 8), layer=np.repeat(np.arange(4), 50),
                                       sample=np.tile(np.arange(50), 4))  # fmt: skip
        yield "linear", seed, "relative", found["stiffness"] / fast


CASES = (gradient_noise_scale, pate, drift, early_warning, control_variate, ot_projection, transferability,
         honest_pass_at_k, budget_peak, arise, compute_optimal, capacity_choice, attention_similarity,
         linear_error_share, multifractal, prototype_distance, coverage_weight, active_units, gemm_seconds,
         failed_step_fraction, outlier_dimensions, metric_chain, stiffness)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names of meters, with commas between them")
    parser.add_argument("--out", help="a CSV file for every row")
    given = parser.parse_args()
    rows = []
    for case in CASES:
        if given.only and case.__name__ not in given.only.split(","):
            continue
        began = time.process_time()
        made = [(case.__name__, *row) for row in case()]
        print(f"{case.__name__}: {time.process_time() - began:.1f} CPU s")
        for key in dict.fromkeys((c, f) for _, c, _, f, _ in made):
            values = np.array([v for _, c, _, f, v in made if (c, f) == key])
            se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            middle = f"{values.mean():>9.4g} +- {se:.2g}  median {np.median(values):.4g}"
            print(f"  {key[0]:<16} {key[1]:<18} {middle}  n {len(values)}")
        rows += made
    if given.out:
        with open(given.out, "w", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["meter", "case", "seed", "figure", "value"])
            writer.writerows((*row[:4], f"{row[4]:.6g}") for row in rows)


if __name__ == "__main__":
    sys.exit(main())
