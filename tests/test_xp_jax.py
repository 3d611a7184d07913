"""A law's one definition serves JAX tracers too."""

import numpy as np
import pytest

from isoflop import _find
from isoflop._check import plant_coefs, plant_columns
from isoflop._law import get_law

jax = pytest.importorskip("jax", reason="JAX is an extra of later laws: pip install jax")


@pytest.mark.parametrize("name", _find.names("laws"))
def test_value_and_gradient_under_jax(name):
    law = get_law(name)
    design = {c: v[:5] for c, v in plant_columns(law, np.random.default_rng(0)).items()}
    truth = plant_coefs(law, design)
    columns = {c: jax.numpy.asarray(v) for c, v in design.items()}
    value = jax.jit(lambda coef: law(**columns, **coef))(truth)
    np.testing.assert_allclose(value, law(**design, **truth), rtol=2e-3)
    grad = jax.grad(lambda coef: law(**columns, **coef).sum())({k: float(v) for k, v in truth.items()})
    assert all(np.isfinite(g) for g in grad.values())
