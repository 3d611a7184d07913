"""Out-of-distribution scores: a table worked out apart from the code, NumPy against PyTorch, and the premise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop import _find, measure
from isoflop.levers.activations.ood._adaptive import Calibration, calibrate, percentiles, shift
from isoflop.levers.activations.ood._arrays import ratio
from isoflop.levers.activations.ood._premise import auroc, fpr95, guarded_scale, premise

FOLDER = "levers/activations/ood"
F = np.array([[0.5, 2, 0, 1.25, 3, 0.1, 0.75, 0.25], [1] * 8, [0, 0, 4, 0, 0, 0.5, 0, 0]])
G = np.array([[0.4, 2.5, 0, 1.25, 2, 0.1, 0.9, 0.25], [1, 1.2, 1, 1, 1, 0.7, 1, 1], [0.1, 0, 3.5, 0, -0.3, 0.5, 0, 0]])
HEAD = {
    "weight": np.array([
        [0.2, -0.1, 0.3, 0, 0.15, 0.4, -0.25, 0.1],
        [-0.3, 0.25, 0.05, 0.2, -0.1, 0, 0.35, -0.15],
        [0.1, 0.1, -0.2, -0.05, 0.3, 0.2, 0, 0.45],
    ]),
    "bias": np.array([0.1, -0.2, 0.0]),
}  # fmt: skip
SHARES = {"moved": 0.125, "valued": 0.25, "low": 25.0, "high": 75.0}

# Computed with mpmath at 30 digits by loops over the formulas of the papers; percentile 75 of 8 units keeps two.
FROZEN = {
    "energy": (1.817867897111309, 1.795814094844265, 1.788131960120219),
    "msp": (0.5499830072668794, 0.4082750886671593, 0.7496626601368836),
    "ash_p": (1.690692237656041, 1.169880085914427, 1.788131960120219),
    "ash_b": (2.031640855695215, 1.513935808163665, 1.981692818894457),
    "ash_s": (5.316293405748362, 10.92432172566787, 3.936498100654544),
    "scale": (5.901755261705799, 49.14302578684706, 3.936498100654544),
    "adascale_a": (3.535552140670762, 13.18558305663427, 3.936498100654544),
    "adascale_l": (1.839175151006498, 7.094837426369147, 1.788131960120219),
}


def own(name, kind=lambda x: x):
    """The settings of a score beyond features and head, at the table's percentiles."""
    if name.startswith("adascale"):
        return {"perturbed": kind(G), "calibration": calibrate(kind(F), perturbed=kind(G), **SHARES)}
    return {} if name in ("energy", "msp") else {"percentile": 75.0}


@pytest.mark.parametrize("name", _find.names(FOLDER))
def test_every_score_gives_the_frozen_table(name):
    found = _find.get(FOLDER, name)(F, **HEAD, **own(name))
    np.testing.assert_allclose(found, FROZEN[name], rtol=1e-12)


@pytest.mark.parametrize("name", _find.names(FOLDER))
def test_numpy_and_torch_agree(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    f, w, b = rng.standard_normal((40, 33)).clip(0), rng.standard_normal((5, 33)), rng.standard_normal(5)
    g = (f + 0.1 * rng.standard_normal(f.shape)).astype(np.float32)
    f[3] = 0.0
    f = f.astype(np.float32)
    extra, told = {}, {}
    if name.startswith("adascale"):
        extra = {"perturbed": g, "calibration": calibrate(f, perturbed=g)}
        told = {"perturbed": torch.tensor(g), "calibration": calibrate(torch.tensor(f), perturbed=torch.tensor(g))}
        assert told["calibration"] == extra["calibration"]
    one = _find.get(FOLDER, name)(f, weight=w, bias=b, **extra)
    two = _find.get(FOLDER, name)(torch.tensor(f), weight=torch.tensor(w), bias=torch.tensor(b), **told)
    assert isinstance(one, np.ndarray)
    assert isinstance(two, torch.Tensor)
    assert one.dtype == np.float64
    assert np.abs(one - two.numpy()).max() < 1e-6
    assert np.isfinite(one).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 99), st.floats(0.1, 50))
def test_the_ratio_is_at_least_one_and_ignores_units(seed, percentile, by):
    f = np.random.default_rng(seed).exponential(size=(7, 20))
    s = ratio(f, percentile)
    assert (s >= 1 - 1e-12).all()
    np.testing.assert_allclose(ratio(f * by, percentile), s, rtol=1e-10)
    np.testing.assert_allclose(ratio(f, np.full(7, percentile)), s, rtol=1e-12)


def test_without_a_bias_scaling_leaves_every_class_as_it_was():
    f = np.random.default_rng(1).exponential(size=(50, 20))
    w = np.random.default_rng(2).standard_normal((4, 20))
    scaled = f * np.exp(ratio(f, 85.0))[:, None]
    assert ((f @ w.T).argmax(1) == (scaled @ w.T).argmax(1)).all()


def rectified(mean, sd, *, seed, rows=800, units=64):
    """Rectified normal features: S rises as the mean does against the deviation, as less of the sum is in the top."""
    return np.random.default_rng(seed).normal(mean, sd, (rows, units)).clip(0)


def test_where_the_premise_holds_scaling_helps_and_where_not_the_guard_refuses():
    head = {"weight": np.full((3, 64), 0.02) * np.array([[1.0], [0.5], [0.2]]), "bias": np.zeros(3)}
    flat, peaked = rectified(0.66, 0.33, seed=1), rectified(0.4, 1.1, seed=2)  # sums alike, S larger for `flat`
    energy, scale = (_find.get(FOLDER, name) for name in ("energy", "scale"))
    for known, other, helps in ((flat, peaked, True), (peaked, flat, False)):
        held = premise(known[:300], other[:300])
        plain = auroc(energy(known[300:], **head), energy(other[300:], **head))
        scaled = auroc(scale(known[300:], **head), scale(other[300:], **head))
        guarded = [guarded_scale(x[300:], **head, premise=held) for x in (known, other)]
        assert held.holds is helps
        assert (scaled > plain + 0.05) is helps
        assert auroc(*guarded) == (scaled if helps else plain)
        assert ("can help" if helps else "would hurt") in str(held)


def test_the_meter_asks_the_premise_of_a_table():
    flat, peaked = rectified(0.66, 0.33, seed=1), rectified(0.4, 1.1, seed=2)
    features, known = np.concatenate([flat, peaked]), np.repeat([1, 0], len(flat))
    table = {"known": known} | {f"x_{i + 1}": features[:, i] for i in range(features.shape[1])}
    said = measure("scaling_premise", table)
    assert said["premise_auroc"] == premise(flat, peaked).auroc > 0.9
    assert said["says"] == str(premise(flat, peaked))
    assert "would hurt" in measure("scaling_premise", table | {"known": 1 - known})["says"]
    for wrong in ({"known": 1 + 0 * known}, {"x_1": -features[:, 0] - 1}):
        with pytest.raises(ValueError, match="scaling_premise: give features of at least 0, and rows with known 1"):
            measure("scaling_premise", table | wrong)


def test_auroc_and_fpr_by_counting():
    known, other = np.array([3.0, 2.0, 2.0, 5.0]), np.array([2.0, 1.0, 4.0])
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in other]
    assert auroc(known, other) == pytest.approx(np.mean(pairs))
    assert fpr95(np.arange(100.0), np.array([4.0, 5.0, 50.0, -1.0])) == 0.5
    with pytest.raises(ValueError, match="both sets"):
        auroc(known, np.array([]))


def test_a_row_that_moves_more_gets_a_lower_percentile():
    made = calibrate(F, perturbed=G, **SHARES)
    assert made.shifts == (2.2, 9.0, 14.5)
    np.testing.assert_allclose(shift(F, perturbed=G, calibration=made), [14.5, 2.2, 9.0])
    np.testing.assert_allclose(percentiles(F, perturbed=G, calibration=made), [25, 25 + 100 / 3, 25 + 50 / 3])


def test_perturbing_moves_only_the_inputs_with_the_least_slope():
    torch = pytest.importorskip("torch")
    from isoflop.levers.activations.ood._adaptive import perturb

    slope = torch.tensor([[3.0, -0.1, 2.0, 0.5, -4.0, 0.2, 1.0, 1.5]])
    x = torch.zeros(2, 8)
    moved = perturb(lambda x: x @ slope.T, x, eps=0.5, share=0.25)
    assert moved.tolist() == [[0, -0.5, 0, 0, 0, 0.5, 0, 0]] * 2
    assert not moved.requires_grad


def test_ish_changes_the_gradient_of_the_weights_and_nothing_else():
    torch = pytest.importorskip("torch")
    from isoflop.levers.activations.ish import Ish

    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(12, 3)
    for p in linear.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    x = torch.rand(9, 12, generator=generator).double().requires_grad_(True)
    linear = linear.double()

    def gradients(layer):
        out = layer(x)
        return out.detach(), torch.autograd.grad((out**2).sum(), [x, linear.weight, linear.bias])

    plain, (gx, gw, gb) = gradients(linear)
    shaped, (hx, hw, hb) = gradients(Ish(linear).train())
    assert torch.equal(plain, shaped)
    assert torch.allclose(gx, hx)
    assert torch.allclose(gb, hb)
    factor = torch.tensor(np.exp(ratio(x.detach().numpy(), 85.0)))[:, None]
    assert torch.allclose(hw, (2 * plain).T @ (x.detach() * factor))
    assert not torch.allclose(hw, gw)
    assert torch.equal(gradients(Ish(linear).eval())[1][1], gw)


def test_what_cannot_be_scored_is_refused():
    scale = _find.get(FOLDER, "scale")
    with pytest.raises(ValueError, match="through a ReLU"):
        scale(-F, **HEAD)
    with pytest.raises(ValueError, match=r"do not fit: \(3, 8\), \(3, 7\), \(3,\)"):
        scale(F, weight=HEAD["weight"][:, :7], bias=HEAD["bias"])
    with pytest.raises(ValueError, match="not finite"):
        scale(F * np.nan, **HEAD)
    with pytest.raises(ValueError, match="at least 0 and below 100"):
        scale(F, **HEAD, percentile=100.0)
    with pytest.raises(ValueError, match="low first"):
        calibrate(F, perturbed=G, low=90.0)
    with pytest.raises(ValueError, match="holds no shifts"):
        percentiles(F, perturbed=G, calibration=Calibration(()))
