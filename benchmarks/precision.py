"""Training in low precision, in the small: what each recipe does to loss, error and oscillation.

    python benchmarks/precision.py --out isoflop/recorded/qat        # all, about 6 minutes of one core
    python benchmarks/precision.py --only coat --out .

Writes NAME.csv of each experiment. Figures are one row a seed, with a column for each method; `gemm.csv` has one row a
shape. The digits are scikit-learn's, the text the standard library's own.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._apply import Target
from isoflop.levers.precision._gemm import held_out_forecasts
from isoflop.levers.precision._inject import channel_ratio, kurtosis
from isoflop.levers.precision.round_nearest import round_nearest
from isoflop.levers.precision.training import _train
from isoflop.levers.precision.training._cast import Cast
from isoflop.levers.precision.training._layers import Recipe, extra_flops, lower
from isoflop.levers.precision.training._learned import LearnedStep, Vision, classifier
from isoflop.levers.precision.training._train import trained
from isoflop.levers.precision.training.coat import stored
from isoflop.levers.precision.training.fp4_training import fp4_training
from isoflop.levers.precision.training.fp8_training import fp8_training
from isoflop.levers.precision.training.gaqat import gaqat
from isoflop.levers.precision.training.ofq import Oscillation, confident, hold, ofq
from isoflop.levers.precision.training.qat import increases
from isoflop.levers.precision.training.smooth_swiglu import smooth_swiglu, swiglu_alignment
from isoflop.levers.train import Train

Row = dict[str, Any]
LADDER = Train(
    source="python_source", sizes=({"width": 32, "depth": 2},), tokens=(49152,), context=64, batch_tokens=1024,
    warmup_steps=5, eval_tokens=16384, lr={"base": 1e-2, "width": 64, "power": 0.5}, device="cpu",
)  # fmt: skip


def digits(*, seed: int, angle: float = 0.0) -> tuple[Tensor, Tensor]:
    """Images (1797, 64) in an order of the seed, turned by an angle in degrees, of mean 0 and size about 1; labels."""
    from scipy.ndimage import rotate
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    if angle:
        x = rotate(x.reshape(-1, 8, 8), angle, axes=(1, 2), reshape=False, order=1).reshape(-1, 64)
    order = np.random.default_rng(seed).permutation(len(y))
    x = (x[order] - 4.9) / 6.0
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y[order])


def batches(count: int, *, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of each step's batch."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(count, (size,), generator=generator) for _ in range(steps))


@torch.no_grad()
def scored(model: nn.Module, x: Tensor, y: Tensor) -> Row:
    logits = model(x)
    return {"loss": float(F.cross_entropy(logits, y)), "accuracy": float((logits.argmax(1) == y).double().mean())}


def mlp(sizes: tuple[int, ...], *, seed: int) -> nn.Sequential:
    """A plain classifier with nn.Linear, drawn without torch's global generator."""
    layers: list[nn.Module] = []
    for layer in classifier(sizes, seed=seed):
        if isinstance(layer, nn.ReLU):
            layers.append(layer)
            continue
        with torch.device("meta"):
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        linear.weight, linear.bias = layer.weight, layer.bias
        layers.append(linear)
    return nn.Sequential(*layers)


# -- FP4: a factorial ------------------------------------------------------------------------------------------------


def fp4_cell(setting: Row, *, seed: int) -> Row:
    """One training of a digits classifier; the output layer stays in float32."""
    began = time.process_time()
    model = mlp((64, 96, 96, 10), seed=seed)
    recipe = None if not setting else fp4_training(**setting)
    if recipe is not None:
        lower(model, replace(recipe, keep=("4",)), seed=seed)
    x, y = digits(seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for picked in batches(1300, size=64, steps=100, seed=seed):
        optimizer.zero_grad()
        F.cross_entropy(model(x[picked]), y[picked]).backward()
        optimizer.step()
    extra = extra_flops(recipe, inputs=4096, outputs=4096, rows=4096) if recipe else 0.0
    return {**setting, "seed": seed, **scored(model, x[1300:], y[1300:]), "extra_flops_4096": extra,
            "cpu_seconds": round(time.process_time() - began, 2)}  # fmt: skip


def fp4(seeds: int) -> pd.DataFrame:
    """Scale format x tensor scale x Hadamard x stochastic rounding, and half of the smooth gradient (by parity)."""
    cells = list(itertools.product(("e8m0", "e4m3", "ue5m3"), (False, True), (False, True), (False, True)))
    rows = []
    for seed in range(seeds):
        rows.append({**fp4_cell({}, seed=seed), "scale": "none"})
        for scale, tensor, mixed, drawn in cells:
            smooth = (tensor + mixed + drawn + seed) % 2 == 1
            setting = {"scale": scale, "tensor_scale": tensor, "hadamard": mixed, "stochastic": drawn,
                       "smooth_gradient": smooth}  # fmt: skip
            rows.append(fp4_cell(setting, seed=seed))
    return pd.DataFrame(rows)


FACTORS = ("tensor_scale", "hadamard", "stochastic", "smooth_gradient")


def fp4_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Loss by seed: of no rounding, of each scale with and without a tensor scale, and with less without each factor.

    The effects of the last three factors are over the cells that do not fail, all but E4M3 scales alone.
    """
    rows = []
    for seed, part in table.groupby("seed"):
        low = part[part["scale"] != "none"]
        row: Row = {"seed": seed, "plain": part.loc[part["scale"] == "none", "loss"].item()}
        for (scale, whole), cells in low.groupby(["scale", "tensor_scale"]):
            row[scale if whole else f"{scale}_alone"] = cells["loss"].mean()
        sound = low[(low["scale"] != "e4m3") | (low["tensor_scale"] == True)]  # noqa: E712
        for factor in FACTORS:
            means = (low if factor == "tensor_scale" else sound).groupby(factor)["loss"].mean()
            row[f"{factor}_effect"] = means[True] - means[False]
        rows.append(row)
    return pd.DataFrame(rows)


# -- FP8: Smooth-SwiGLU, moments, whole trainings --------------------------------------------------------------------


def swiglu(seeds: int) -> pd.DataFrame:
    """One channel's gate and up weights alike and `gain` times larger: error of the other 63 channels in E4M3."""
    rows = []
    for seed, gain in itertools.product(range(seeds), (1.0, 10.0, 100.0, 1000.0)):
        rng = np.random.default_rng(seed)
        x, gate, up = (
            torch.tensor(rng.standard_normal(s), dtype=torch.float32) for s in ((256, 64), (64, 64), (64, 64))
        )
        gate, up = gate / 8, up / 8
        gate[0] = up[0] = gain * gate[0]
        h = smooth_swiglu(x @ gate.T, x @ up.T, cast=None)[:, 1:]
        row: Row = {"gain": gain, "seed": seed}
        for name, smooth in (("plain", False), ("smooth", True)):
            got = smooth_swiglu(x @ gate.T, x @ up.T, cast=Cast("fp8_e4m3"), smooth=smooth)[:, 1:]
            row[name] = float(((got - h) ** 2).sum() / (h**2).sum())
        rows.append(row)
    return pd.DataFrame(rows)


FP8 = {
    "plain": Recipe(),
    "fp8": fp8_training(smooth=False, moments=""),
    "fp8_smooth": fp8_training(smooth=True, moments=""),
    "fp8_moments": fp8_training(smooth=True, moments="fp8"),
    "fp8_group": fp8_training(smooth=True, moments="fp8_group"),
    "fp8_coat": fp8_training(smooth=True, moments="coat"),
}
MIXED = {
    "fp8_coat": FP8["fp8_coat"],
    "by_group": fp8_training(smooth=True, moments="coat", nonlinear=16),
    "by_tensor": fp8_training(smooth=True, moments="coat", nonlinear=-1),
}


def fp8(seeds: int, recipes: dict[str, Recipe] = FP8) -> pd.DataFrame:
    """Held-out loss of a small transformer of the ladder, 48 steps, by recipe."""
    rows = []
    for seed in range(seeds):
        row: Row = {"figure": "loss", "seed": seed}
        began = time.process_time()
        for name, recipe in recipes.items():
            model, made = trained(LADDER, LADDER.ladder()[0], recipe, seed=seed)
            row[name] = made["loss"]
        row |= {"alignment": swiglu_alignment(model)["largest"], "params": made["params"], "tokens": made["tokens"]}
        rows.append({**row, "cpu_seconds": round(time.process_time() - began, 1)})
    return pd.DataFrame(rows)


def mixed(seeds: int) -> pd.DataFrame:
    """The same with inputs of norms and of the gate in E4M3 too, a scale for each 16 values or one a tensor (COAT)."""
    return fp8(seeds, MIXED)


def moments(seeds: int) -> pd.DataFrame:
    """Moments of Adam in training: relative squared error of m, of v, and of m / (sqrt(v) + 1e-8)."""
    rows = []
    for seed, (data, made) in itertools.product(
        range(seeds), {"digits": _digits_moments, "text": _text_moments}.items()
    ):
        m, v = made(seed)
        for figure, of in (("m", (m, None)), ("v", (None, v)), ("m / sqrt(v)", (m, v))):
            rows.append(
                {"data": data, "figure": figure, "seed": seed, **{way: _moment_error(*of, way) for way in WAYS}}
            )
    return pd.DataFrame(rows)


def _digits_moments(seed: int) -> tuple[Tensor, Tensor]:
    """Of the middle matrix of a digits classifier after 100 steps."""
    model, (x, y) = mlp((64, 128, 128, 10), seed=seed), digits(seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for picked in batches(1300, size=64, steps=100, seed=seed):
        optimizer.zero_grad()
        F.cross_entropy(model(x[picked]), y[picked]).backward()
        optimizer.step()
    state = optimizer.state[model[2].weight]
    return state["exp_avg"], state["exp_avg_sq"]


def _text_moments(seed: int) -> tuple[Tensor, Tensor]:
    """Of a down projection of a small transformer after 48 steps."""
    model = _train.new_model(LADDER, LADDER.ladder()[0], seed=seed)
    optimizer = _train._optimizer(model, LADDER, Recipe())
    for step in range(48):
        _train._step(model, optimizer, _train._batch(LADDER, step, seed), lr=1e-2, clip=1.0)
    state = optimizer.state[model.layers[1].mlp.down_proj.weight]
    return state["exp_avg"], state["exp_avg_sq"]


WAYS = ("fp8", "fp8_group", "coat")


def _moment_error(m: Tensor | None, v: Tensor | None, way: str) -> float:
    got_m = None if m is None else stored(m, way, first=True)
    got_v = None if v is None else stored(v, way, first=False)
    if m is None or v is None:
        true, got = (v, got_v) if m is None else (m, got_m)
    else:
        true, got = m / (v.sqrt() + 1e-8), got_m / (got_v.sqrt() + 1e-8)
    return float(((got.double() - true) ** 2).sum() / (true.double() ** 2).sum())


# -- QAT ---------------------------------------------------------------------------------------------------------------


def oscillation(seeds: int) -> pd.DataFrame:
    """2-bit weights of a digits classifier, 400 steps: a learned scale, one from statistics, and annealing."""
    found = [{"seed": s, "way": w, **_oscillating(w, seed=s)} for s in range(seeds) for w in OFQ]
    table = pd.DataFrame(found).melt(["seed", "way"], var_name="figure")
    return table.pivot_table("value", ["figure", "seed"], "way")[list(OFQ)].reset_index()


OFQ = ("learned", "learned_annealed", "stats", "stats_annealed")


def _oscillating(way: str, *, seed: int) -> Row:
    model, (x, y) = classifier((64, 128, 128, 10), seed=seed), digits(seed=seed)
    layers = list(model)
    if way.startswith("stats"):
        ofq(model, bits=2)
        layers[-1].weight_rounding = None
    else:
        for layer in layers[:-1:2]:
            layer.weight_rounding = LearnedStep(layer.weight, bits=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    meter, back, free = Oscillation(model), [], None
    for step, picked in enumerate(batches(1300, size=64, steps=400, seed=seed)):
        optimizer.zero_grad()
        F.cross_entropy(model(x[picked]), y[picked]).backward()
        if way.endswith("annealed") and step >= 320:
            free = free or confident(model)
            hold(model, free)
            optimizer.param_groups[0]["lr"] = 2e-3 * (400 - step) / 80
        optimizer.step()
        back.append(meter.update())
    return {"swings": float(np.mean(back[200:320])), "swings_end": float(np.mean(back[360:])), "share": meter.share(),
            **scored(model, x[1300:], y[1300:])}  # fmt: skip


def query_key(seeds: int) -> pd.DataFrame:
    """A vision transformer of 18,000 weights on digits in 16 patches, inner weights of 2 to 4 bits, 400 steps: queries
    and keys as two rounded matrices, or their product rounded. swings: of what is rounded of queries and keys alone.
    """
    rows = []
    for seed, bits in itertools.product(range(seeds), (2, 3, 4)):
        found = {way: _viewing(bits, product=way == "product", seed=seed) for way in ("factors", "product")}
        for figure in found["factors"]:
            rows.append({"figure": figure, "bits": bits, "seed": seed, **{way: v[figure] for way, v in found.items()}})
    return pd.DataFrame(rows)


def _viewing(bits: int, *, product: bool, seed: int) -> Row:
    x, y = digits(seed=seed)
    x = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
    model = ofq(Vision(patches=16, pixels=4, classes=10, seed=seed), bits=bits, query_key=product)
    optimizer, back = torch.optim.Adam(model.parameters(), lr=2e-3), []
    meters = [Oscillation(part) for block in model.blocks
              for part in ([block.product] if product else [block.query, block.key])]  # fmt: skip
    for picked in batches(1300, size=64, steps=400, seed=seed):
        optimizer.zero_grad()
        F.cross_entropy(model(x[picked]), y[picked]).backward()
        optimizer.step()
        back.append(np.mean([meter.update() for meter in meters]))
    return {"swings": float(np.mean(back[300:])), **scored(model, x[1300:], y[1300:])}


ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0)


def domains(seeds: int) -> pd.DataFrame:
    """Digits turned by 0 to 60 degrees, one angle left out; 3-bit weights and inputs; accuracy in and out of domain."""
    found = [{"seed": s, "way": w, **_domain(w, out=o, seed=s)} for s in range(seeds) for o in (2, 4) for w in GAQAT]
    table = pd.DataFrame(found).melt(["seed", "way"], var_name="figure")
    return table.pivot_table("value", ["figure", "seed"], "way")[list(GAQAT)].reset_index()


GAQAT = {"qat": (0.0, 1.0), "sam": (0.05, 1.0), "gaqat": (0.05, 0.3)}


def _domain(way: str, *, out: int, seed: int) -> Row:
    data = [digits(seed=seed, angle=a) for a in ANGLES]
    x = torch.cat([d[0][:1300] for i, d in enumerate(data) if i != out])
    y = torch.cat([d[1][:1300] for i, d in enumerate(data) if i != out])
    model = classifier((64, 96, 96, 10), seed=seed)
    for layer in list(model)[2:-1:2]:
        layer.weight_rounding, layer.act_rounding = LearnedStep(layer.weight, bits=3), LearnedStep(x.abs(), bits=3)
    radius, threshold = GAQAT[way]
    guide = gaqat(model, radius=radius, threshold=threshold)
    optimizer, frozen = torch.optim.Adam(model.parameters(), lr=2e-3), []
    for picked in batches(len(x), size=64, steps=300, seed=seed):
        guide.gradients(lambda: F.cross_entropy(model(x[picked]), y[picked]))  # noqa: B023
        optimizer.step()
        frozen.append(np.mean(guide.frozen))
    inside = scored(model, torch.cat([d[0][1300:] for i, d in enumerate(data) if i != out]),
                    torch.cat([d[1][1300:] for i, d in enumerate(data) if i != out]))  # fmt: skip
    outside = scored(model, data[out][0][1300:], data[out][1][1300:])
    return {"accuracy_out": outside["accuracy"], "accuracy_in": inside["accuracy"], "frozen": float(np.mean(frozen)),
            "conflicts": float(np.mean(guide.conflicts)) if guide.conflicts else 0.0,
            "disorder": float(np.mean(guide.disorder))}  # fmt: skip


# -- recipes and outliers, unit scaling, products --------------------------------------------------------------------


def recipes(seeds: int) -> pd.DataFrame:
    """Weight decay .001 or .1, clipping at 1 or off: outliers of a small transformer, and what 8 bits cost it."""
    rows = []
    for seed, decay, clip in itertools.product(range(seeds), (0.001, 0.1), (1.0, 1e9)):
        lever = replace(LADDER, weight_decay=decay, clip=clip)
        model, made = trained(lever, lever.ladder()[0], Recipe(), seed=seed)
        windows, _ = lever.text.held_out(count=64, context=lever.context)
        seen: list[Tensor] = []
        hook = model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))  # noqa: B023
        held = torch.from_numpy(windows)
        with torch.no_grad():
            model(held[:16, :-1])
        hook.remove()
        inputs = seen[0].flatten(0, 1)
        target = Target("int8", 0, True, "int8", act_range="tensor")
        _, report = round_nearest(model, [held[:8, :-1]], target=target, heldout=held)
        figures = {"loss": made["loss"], "int8_increase": report.plain()["loss"] - report.plain()["loss_before"],
                   "kurtosis": kurtosis(inputs), "channel_ratio": channel_ratio(inputs)}  # fmt: skip
        way = f"decay_{str(decay).removeprefix('0.')}" + ("_clipped" if clip == 1 else "")
        rows += [{"figure": name, "seed": seed, "way": way, "value": value} for name, value in figures.items()]
    return pd.DataFrame(rows).pivot_table("value", ["figure", "seed"], "way").reset_index()


def unit_scaling(seeds: int) -> pd.DataFrame:
    """A digits classifier of six layers, operands and gradients cast to E4M3 and E5M2 without any scale: held-out loss.

    `standard_fp8_1m` has gradients as of a mean over 2^20 examples, 2^-10 times those of the 1024 here; unit scaling's
    rule divides that number out, so that its net would be the same.
    """
    rows = []
    for seed in range(seeds):
        row: Row = {"figure": "loss", "seed": seed}
        for unit, low in itertools.product((False, True), (False, True)):
            row[("unit" if unit else "standard") + "_fp8" * low] = _deep(unit=unit, low=low, seed=seed)
        row["standard_fp8_1m"] = _deep(unit=False, low=True, seed=seed, shrink=2**-10)
        rows.append(row)
    return pd.DataFrame(rows)


class _Bare(torch.autograd.Function):
    """Forward to E4M3, gradients to E5M2, as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].clamp(-57344, 57344).to(torch.float8_e5m2).float()


def _deep(*, unit: bool, low: bool, seed: int, shrink: float = 1.0) -> float:
    from isoflop.levers.train._units import scaled

    sizes = (64, 128, 128, 128, 128, 128, 10)
    generator = torch.Generator().manual_seed(seed)
    weights = [nn.Parameter(torch.empty(o, i).normal_(0, 1 if unit else i**-0.5, generator=generator))
               for i, o in itertools.pairwise(sizes)]  # fmt: skip
    cast = _Bare.apply if low else (lambda t: t)
    x, y = digits(seed=seed)
    optimizer = torch.optim.Adam(weights, lr=0.03 if unit else 0.003)

    def logits(x: Tensor) -> Tensor:
        for i, w in enumerate(weights):
            into = scaled(x, backward=w.shape[0] ** -0.5) if unit else x
            made = F.linear(cast(into), cast(scaled(w, backward=len(x) ** -0.5) if unit else w))
            made = scaled(made, forward=w.shape[1] ** -0.5) if unit else made
            last = i == len(weights) - 1
            x = cast(made) if low else made
            x = x if last else F.relu(x) * (2**0.5)
        return scaled(x, backward=len(x) * 10 / 3) if unit else x

    for picked in batches(1300, size=1024, steps=60, seed=seed):
        optimizer.zero_grad()
        (shrink * F.cross_entropy(logits(x[picked]), y[picked])).backward()
        for w in weights:
            w.grad /= shrink
        optimizer.step()
    with torch.no_grad():
        return float(F.cross_entropy(logits(x[1300:]), y[1300:]))


def gemm(seeds: int) -> pd.DataFrame:
    """Least of nine times of products of float32 matrices on one thread, over log-uniform shapes, in a random order."""
    rng = np.random.default_rng(0)
    shapes = np.round(2 ** rng.uniform(3, 10, (400, 3))).astype(int)
    best = np.full(len(shapes), np.inf)
    for _ in range(3):
        for index in rng.permutation(len(shapes)):
            m, n, k = shapes[index]
            a, b = torch.ones(int(m), int(k)), torch.ones(int(k), int(n))
            inner = int(np.clip(2e6 / (m * n * k), 1, 200))
            for _ in range(3):
                began = time.perf_counter_ns()
                for _ in range(inner):
                    a @ b
                best[index] = min(best[index], (time.perf_counter_ns() - began) / inner * 1e-9)
    table = pd.DataFrame({"m": shapes[:, 0], "n": shapes[:, 1], "k": shapes[:, 2], "seconds": best})
    return table.join(held_out_forecasts(table, seed=0))


def grid_tables(runs: Path) -> dict[str, pd.DataFrame]:
    """What 3 bits cost in a recorded grid, a column for each group, token count and width: the rows of three claims."""
    low = increases(pd.read_csv(runs)).query("bits_acts == 3")
    factors = {"group_size": "group", "tokens": "tokens", "width": "width"}
    made = {}
    for factor, name in factors.items():
        others = [f for f in (*factors, "seed") if f != factor]
        wide = low.pivot_table("loss_increase", others, factor)
        made[f"{name.removesuffix('s')}s"] = wide.set_axis([f"{name}_{v}" for v in wide], axis=1).reset_index()
    return made


EXPERIMENTS: dict[str, tuple[Callable[[int], pd.DataFrame], int]] = {
    "swiglu": (swiglu, 5), "moments": (moments, 5), "unit_scaling": (unit_scaling, 5), "gemm": (gemm, 1),
    "oscillation": (oscillation, 5), "query_key": (query_key, 3), "domains": (domains, 5), "fp4": (fp4, 3),
    "fp8": (fp8, 8), "mixed": (mixed, 5), "recipes": (recipes, 3),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--only", action="append", choices=list(EXPERIMENTS), help="experiment; may be repeated")
    parser.add_argument("--grid", type=Path, metavar="RUNS.csv", help="only the tables of a recorded grid of trainings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.grid:
        for name, table in grid_tables(given.grid).items():
            table.to_csv(given.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        return
    for name in given.only or EXPERIMENTS:
        run, seeds = EXPERIMENTS[name]
        began = time.process_time()
        table = run(seeds)
        table.to_csv(given.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        if name == "fp4":
            effects = fp4_effects(table)
            effects.to_csv(given.out / "fp4_effects.csv", index=False, float_format="%.6g", lineterminator="\n")
        print(f"{name}: {len(table)} rows, {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
