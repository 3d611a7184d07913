"""The array names that a law may use: one definition serves numpy arrays, exact derivatives and JAX tracers.

from isoflop import xp
E + A * xp.exp(-alpha * xp.log(params))
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from isoflop._tape import Node, _expit, _softplus

_OWN = {"expit": _expit, "softplus": _softplus}


def _call(name: str, *args: Any) -> Any:
    for a in args:
        if isinstance(a, Node):
            return a.graph.call(name, *args)
    if "jax" in sys.modules and any(type(a).__module__.startswith("jax") for a in args):
        import jax

        where = jax.nn if name in ("softplus",) else jax.scipy.special if name == "expit" else jax.numpy
        return getattr(where, name)(*args)
    return _OWN[name](*args) if name in _OWN else getattr(np, name)(*args)


def exp(x: Any) -> Any:
    """e**x."""
    return _call("exp", x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return _call("log", x)


def log1p(x: Any) -> Any:
    """log(1 + x)."""
    return _call("log1p", x)


def expm1(x: Any) -> Any:
    """exp(x) - 1."""
    return _call("expm1", x)


def sqrt(x: Any) -> Any:
    """Square root."""
    return _call("sqrt", x)


def abs(x: Any) -> Any:
    """Absolute value; derivative sign(x)."""
    return _call("abs", x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return _call("tanh", x)


def expit(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    return _call("expit", x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return _call("softplus", x)


def power(x: Any, y: Any) -> Any:
    """x**y; x > 0 where y depends on a coefficient."""
    return _call("power", x, y)


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)), without overflow."""
    return _call("logaddexp", x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two."""
    return _call("maximum", x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of two."""
    return _call("minimum", x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where condition holds, else y (both are evaluated)."""
    return _call("where", condition, x, y)
