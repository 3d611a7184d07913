"""Noise scale, growing batches, mended losses and gradients, and what goes wrong at high rates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import _trained
import numpy as np
import pandas as pd
import pytest
from _trained import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop._meter import get_meter
from isoflop.levers.train import Train
from isoflop.levers.train._batch import LEAST, least_tokens, multiple_wanted, norm_test, tokens_to_loss
from isoflop.levers.train._options import OPTION_FIELDS, Options
from isoflop.levers.train._text import ZipfSource

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'isoflop[torch]'")

one_thread = _trained.one_thread
TINY = Train(
    source="zipf_words", source_settings=WORDS, sizes=({"width": 8, "depth": 1},), tokens=(1280,), context=16,
    batch_tokens=64, warmup_steps=3, eval_tokens=1024, curve_tokens=256, lr={"base": 1e-2, "width": 16, "power": 0.5},
    device="cpu", checkpoint_seconds=0.0,
)  # fmt: skip
SETTING = {"width": 8, "depth": 1, "tokens": 1280}
ADAPTIVE = {"batch": "adaptive", "noise_every": 1, "micro_batches": 2, "schedule": "cosine", "batch_most": 4,
            "batch_theta": 0.2}  # fmt: skip
EACH = {
    "noise": {"noise_every": 2}, "watch": {"watch": True}, "stablemax": {"loss_kind": "stablemax"},
    "z_loss": {"z_loss": 1e-2}, "perp_grad": {"perp_grad": True}, "adaptive": ADAPTIVE,
}  # fmt: skip


def draw(*shape: int, seed: int = 0, kind: Any = None) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=kind)


# -- the noise scale ----------------------------------------------------------------------------------------------


class Quadratic(torch.nn.Module):
    """Half the squared distance to each example: the gradient is w less their mean."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((size,), 0.2))

    def forward(self, x: Any) -> Any:
        return 0.5 * (self.w - x).square().sum(dim=1)


def test_the_noise_scale_of_a_quadratic_is_unbiased() -> None:
    from isoflop.levers.train._noise_scale import by_micro_batches

    model, deviation = Quadratic(20), torch.linspace(0.2, 1.0, 20)
    signal, noise = 20 * 0.2**2, float(deviation.square().sum())
    found = []
    for step in range(600):
        batch = draw(8, 20, seed=step) * deviation
        loss, small, big = by_micro_batches(
            model, batch, parts=4, objective=lambda part: (model(part).mean(), model(part).mean())
        )
        assert float(loss) == pytest.approx(float(model(batch).mean().detach()), rel=1e-5)
        found.append(((8 * big - 2 * small) / 6, (small - big) / (1 / 2 - 1 / 8)))
    mean, se = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(len(found))
    assert (np.abs(mean - [signal, noise]) < 4 * se).all()
    assert (se < [0.05 * signal, 0.05 * noise]).all()


def test_curve_columns_are_the_meters() -> None:
    from isoflop.levers.train._noise_scale import WINDOW, noise_columns

    rng = np.random.default_rng(0)
    rows = [[3 + 0.1 * x, 2 + 0.1 * y, 16.0, 64.0] for x, y in rng.standard_normal((WINDOW, 2))]
    made = noise_columns(rows)
    found = get_meter("gradient_noise_scale")(
        **dict(zip(("grad_sq_small", "grad_sq_big", "batch_small", "batch_big"), np.transpose(rows), strict=True))
    )
    assert made["noise_scale"] == found["noise_scale"]
    assert made["noise_low"] < made["noise_scale"] < made["noise_high"]
    assert made["noise_scale"] == pytest.approx((1 / (1 / 16 - 1 / 64)) / ((64 * 2 - 16 * 3) / 48), rel=0.1)
    assert noise_columns(rows[:1]) == {}
    lost = noise_columns([[4.0, 1.0, 16.0, 64.0], [4.0, 1.01, 16.0, 64.0], [4.0, 0.99, 16.0, 64.0]])
    assert lost["noise_scale"] is None


def test_a_step_in_micro_batches_is_the_same_step() -> None:
    from isoflop.levers.train._gpt import GPT
    from isoflop.levers.train._loop import objective
    from isoflop.levers.train._noise_scale import by_micro_batches

    shape, options = TINY.shape(SETTING), Options(z_loss=1e-3)
    windows = torch.from_numpy(ZipfSource(**WORDS).batch(seed=0, step=0, count=8, context=16))
    model, other = GPT(shape, context=16, seed=0), GPT(shape, context=16, seed=0)
    goal, loss = objective(model, windows, options)
    goal.backward()
    again, small, big = by_micro_batches(other, windows, parts=4, objective=lambda p: objective(other, p, options))
    assert float(again) == pytest.approx(float(loss.detach()), rel=1e-6)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    assert big == pytest.approx(sum(float(p.grad.double().square().sum()) for p in model.parameters()), rel=1e-4)
    assert small > big


def test_a_run_measured_is_the_run_itself_to_rounding() -> None:
    plain, measured = TINY.run(SETTING, seed=0), replace(TINY, noise_every=1).run(SETTING, seed=0)
    assert measured["loss"] == pytest.approx(plain["loss"], abs=2e-4)
    assert measured["noise_scale"] is None or measured["noise_scale"] >= 0
    assert {"noise_scale", "noise_low", "noise_high", "noise_latest"} <= set(measured["curve"][-1])


# -- options that were not asked for ------------------------------------------------------------------------------


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    row = TINY.run(SETTING, seed=0)
    added = {*OPTION_FIELDS, "noise_scale", "unstable", "updates"}
    assert not added & set(row)
    assert set(row["curve"][0]) == {"params", "step", "tokens", "lr", "loss", "train_loss"}


def test_a_state_stored_before_there_were_options_is_taken_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from isoflop.levers.train import _loop

    first, long = {**SETTING, "tokens": 640}, SETTING
    alone = TINY.run(long, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(_loop, "FACTS", ("step", "branch", "seconds", "loss_count", "curve"))
        TINY.run(first, seed=0, cache=tmp_path)
    after = TINY.run(long, seed=0, cache=tmp_path)
    assert after["loss"] == alone["loss"]
    assert after["saved_tokens"] > 0


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("at", [9, 18])
def test_a_run_killed_goes_on_to_the_same_row(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    lever, real = replace(TINY, **EACH[name]), ZipfSource.batch
    alone = lever.run(SETTING, seed=0)

    def batch(self: ZipfSource, *, step: int, **rest: Any) -> Any:
        if step == at:
            raise Killed
        return real(self, step=step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(ZipfSource, "batch", batch)
        with pytest.raises(Killed):
            lever.run(SETTING, seed=0, cache=tmp_path)
    assert list(tmp_path.rglob("*.safetensors"))
    after = lever.run(SETTING, seed=0, cache=tmp_path)
    assert {k: v for k, v in after.items() if "second" not in k} == {
        k: v for k, v in alone.items() if "second" not in k
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"loss_kind": "stablemin"}, "loss_kind is 'stablemin', and should be one of softmax, stablemax"),
        ({"batch": "adaptive"}, "needs noise_every"),
        ({"batch": "adaptive", "noise_every": 1}, 'needs schedule = "cosine"'),
        ({"noise_every": 1, "micro_batches": 3}, "4 windows .* cannot be taken in 3 micro_batches"),
        ({"z_loss": 1e-4, "loss_kind": "stablemax"}, "z_loss is for the softmax"),
        ({"batch_theta": 1.0}, "batch_theta 1.0 between 0 and 1"),
        ({"micro_batches": 1}, "micro_batches at least 2"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(TINY, **fields)


def test_a_ladder_file_takes_options(tmp_path: Any) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(
        "tokens = [65536]\nnoise_every = 8\nwatch = true\nz_loss = 1e-4\n[[sizes]]\nwidth = 16\ndepth = 2\n"
    )
    assert Train.from_toml(path).options == Options(noise_every=8, watch=True, z_loss=1e-4)


# -- batches that grow --------------------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-3, 6), st.floats(0, 4), st.integers(2, 16), st.floats(0.1, 0.95))
def test_the_norm_test_fails_below_its_share_of_the_noise_scale(
    g: float, s: float, b: float, m: int, theta: float
) -> None:
    signal, noise, batch = 10.0**g, 10.0**s, 10.0**b
    wanted = norm_test(signal + noise * m / batch, signal + noise / batch, batch / m, batch, theta=theta)
    assert wanted == pytest.approx(noise / (theta**2 * (signal + noise / batch)), rel=1e-6)
    end = noise / signal * (1 - theta**2) / theta**2
    if abs(batch / end - 1) > 1e-6:
        assert (wanted > batch) == (batch < end)


def test_the_norm_test_waits_for_measurements_at_the_latest_batch() -> None:
    one, other = [5.0, 2.0, 16.0, 64.0], [5.0, 2.0, 32.0, 128.0]
    assert multiple_wanted([], unit=64, theta=0.5) == 1
    assert multiple_wanted([one] * (LEAST - 1), unit=64, theta=0.5) == 1
    assert multiple_wanted([one] * LEAST, unit=64, theta=0.5) == 2
    assert multiple_wanted([*[one] * LEAST, other], unit=64, theta=0.5) == 1


def test_an_adaptive_batch_grows_and_reads_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = ZipfSource.batch

    def batch(self: ZipfSource, *, step: int, **rest: Any) -> Any:
        read.append(step)
        return real(self, step=step, **rest)

    monkeypatch.setattr(ZipfSource, "batch", batch)
    row = replace(TINY, **ADAPTIVE).run(SETTING, seed=0)
    assert read == list(range(20))
    assert (row["tokens"], row["steps"], row["last_batch_tokens"]) == (1280, 20, 256)
    assert LEAST <= row["updates"] < 20
    assert [p["batch_tokens"] for p in row["curve"]] == sorted(p["batch_tokens"] for p in row["curve"])
    assert row["curve"][-1]["step"] == 20


# -- the critical batch -------------------------------------------------------------------------------------------


def test_tokens_to_a_loss_lie_between_two_rows() -> None:
    curve = {"tokens": [100, 400, 1600], "loss": [3.0, 2.0, 1.5]}
    assert tokens_to_loss(curve, 2.5) == pytest.approx(200)
    assert tokens_to_loss(curve, 3.5) == 100
    assert tokens_to_loss(curve, 1.4) is None


def planted(critical: float) -> pd.DataFrame:
    """Curves L = (1e4 / D)^1/4, with 1 + B / critical times the tokens at batch B, and twice those at other rates."""
    rows = []
    for batch in (64, 128, 256, 512, 1024, 2048):
        for off in (-1, 0, 1):
            for seed in range(2):
                tokens = np.geomspace(1e3, 1e8, 40)
                worth = tokens / (1 + batch / critical) / (1 + off**2)
                column = {"batch_tokens": batch, "lr": 1e-3 * 2.0**off, "seed": seed, "tokens": tokens}
                rows.append(pd.DataFrame({**column, "loss": (1e4 / worth) ** 0.25}))
    return pd.concat(rows)


def test_the_critical_batch_comes_back_from_curves() -> None:
    table = least_tokens(planted(300.0), 0.6)
    assert set(table["lr"]) == {1e-3}
    assert not table["edge"].any()
    fit = isoflop.fit("batch_tradeoff", table, draws=0)
    assert fit.coef["B_crit"] == pytest.approx(300, rel=0.02)
    with pytest.raises(ValueError, match="no rate at batch_tokens 64 reaches the loss"):
        least_tokens(planted(300.0), 0.001)


# -- losses and gradients -----------------------------------------------------------------------------------------


def test_stablemax_is_its_formula_with_slope_one_at_zero() -> None:
    from isoflop.levers.train._losses import stablemax
    from isoflop.theory.softmax_collapse import log_stablemax

    logits = 5 * draw(50, 7, kind=torch.float64)
    targets = torch.arange(50) % 7
    expected = -np.take_along_axis(log_stablemax(_first(logits, targets)), np.zeros((50, 1), int), 1)[:, 0]
    assert stablemax(logits, targets).numpy() == pytest.approx(expected, rel=1e-9)
    near = torch.tensor([[1e-6, 0.0], [-1e-6, 0.0]], dtype=torch.float64)
    slopes = np.diff(stablemax(near, torch.tensor([0, 0])).numpy()) / 2e-6
    assert slopes == pytest.approx(0.5, abs=1e-5)


def _first(logits: Any, targets: Any) -> np.ndarray:
    """Each row turned so that its target stands first."""
    return np.stack([np.roll(row, -int(t)) for row, t in zip(logits.numpy(), targets, strict=True)])


def test_stablemax_keeps_a_gradient_where_softmax_has_none() -> None:
    from isoflop.levers.train._losses import cross_entropy, stablemax

    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    target = torch.tensor([0])
    assert float(cross_entropy(logits, target).detach()) == 0
    (slope,) = torch.autograd.grad(stablemax(logits, target).sum(), logits)
    assert float(slope.abs().max()) > 1e-7


def test_the_z_loss_draws_log_z_to_zero() -> None:
    from isoflop.levers.train._losses import z_loss

    logits = (3 + draw(6, 5, kind=torch.float64)).requires_grad_()
    (found,) = torch.autograd.grad(z_loss(logits), logits)
    log_z = torch.logsumexp(logits, dim=1, keepdim=True)
    assert torch.allclose(found, 2 * log_z * torch.softmax(logits, dim=1) / 6, atol=1e-12)
    free = replace(TINY, watch=True).run(SETTING, seed=0)
    held = replace(TINY, watch=True, z_loss=0.3).run(SETTING, seed=0)
    assert abs(held["log_z"]) < abs(free["log_z"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_perp_grad_takes_out_what_scales_the_weights(seed: int, size: int) -> None:
    from isoflop.levers.train._optim import perp_grad
    from isoflop.theory.softmax_collapse import perp_grad as reference

    w = torch.nn.Parameter(draw(size, seed=seed, kind=torch.float64))
    g = draw(size, seed=seed + 1, kind=torch.float64)
    w.grad = g.clone()
    perp_grad([w])
    assert abs(float((w.grad * w.detach()).sum())) < 1e-6 * float(g.norm() * w.detach().norm())
    assert float(w.grad.norm()) == pytest.approx(float(g.norm()), rel=1e-9)
    across = reference(g.numpy(), w.detach().numpy())
    assert w.grad.numpy() / np.linalg.norm(w.grad) == pytest.approx(across / np.linalg.norm(across), abs=1e-7)


def test_perp_grad_leaves_what_has_nothing_across() -> None:
    from isoflop.levers.train._optim import perp_grad

    along, zero = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.zeros(4))
    along.grad, zero.grad = torch.full((4,), 2.0), torch.arange(4.0)
    perp_grad([along, zero, torch.nn.Parameter(torch.ones(2))])
    assert along.grad.tolist() == [2.0] * 4
    assert zero.grad.tolist() == [0.0, 1.0, 2.0, 3.0]


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_what_is_watched_is_what_the_model_computes() -> None:
    from isoflop.levers.train._gpt import GPT, rotate
    from isoflop.levers.train._watch import watched

    model = GPT(TINY.shape(SETTING), context=16, seed=0)
    windows = torch.from_numpy(ZipfSource(**WORDS).batch(seed=0, step=0, count=3, context=16))
    found = watched(model, windows)
    block = model.blocks[0]
    x = torch.nn.functional.rms_norm(model.embedding[windows[:, :-1]], (8,))
    q, k, _ = (x @ block.qkv.T).view(3, 16, 3, 1, 8).permute(2, 0, 3, 1, 4)
    scores = rotate(q, model.cos, model.sin) @ rotate(k, model.cos, model.sin).transpose(-2, -1) / 8**0.5
    assert found["max_attention_logit"] == pytest.approx(
        float(scores[..., torch.ones(16, 16).tril() > 0].max().detach()), rel=1e-5
    )
    logits = model(windows[:, :-1])
    assert found["log_z"] == pytest.approx(float(logits.logsumexp(-1).mean().detach()), rel=1e-6)
    assert found["max_logit"] == pytest.approx(float(logits.abs().max().detach()), rel=1e-6)
    assert found["lost"] == 0


@pytest.mark.parametrize(("kind", "lost"), [(torch.float32, 0.5), (torch.float64, 0.0)])
def test_losses_rounded_to_nothing_are_counted_in_the_float_they_are_made_in(kind: Any, lost: float) -> None:
    from isoflop.levers.train._watch import watched

    class Sure(torch.nn.Module):
        """Of two tokens the last alone is predicted: twenty nats for what follows 0, none for what follows 1."""

        def forward(self, tokens: Any) -> Any:
            return torch.tensor([[20.0, 0.0], [0.0, 0.0]], dtype=kind)[tokens[:, -1:]]

    found = watched(Sure(), torch.tensor([[1, 0, 0], [0, 1, 0]]))
    assert found["lost"] == lost
    assert found["max_attention_logit"] is None


@pytest.mark.parametrize(
    ("column", "values", "verdict", "step"),
    [
        ("max_attention_logit", [2, 20, 150, 900], "attention logits", 3),
        ("log_z", [3, -5, -30, -60], "output logits", 3),
        ("loss", [3.0, 2.0, 2.1, 2.5], "loss", 4),
        ("loss", [3.0, 2.0, 2.1, 2.2], "stable", math.inf),
    ],
)
def test_the_detector_says_which_and_when(column: str, values: list[float], verdict: str, step: float) -> None:
    columns = {"loss": [3.0, 2.5, 2.2, 2.1], "max_attention_logit": [2.0, 3.0, 4.0, 5.0], "log_z": [3.0, 2.0, 2.0, 2.0]}
    found = get_meter("instability")(step=[1, 2, 3, 4], **{**columns, column: values})
    assert (found["verdict"], found["unstable_step"]) == (verdict, step)


def test_the_detector_is_asked_for_every_watched_run() -> None:
    calm = replace(TINY, watch=True).run(SETTING, seed=0)
    assert (calm["unstable"], calm["unstable_step"], calm["lost"]) == ("stable", None, 0.0)
    wild = replace(TINY, watch=True, lr={"base": 30.0, "width": 16, "power": 0.0}).run(SETTING, seed=0)
    assert wild["unstable"] != "stable"
    assert 0 < wild["unstable_step"] <= 20
