"""Published activation functions by name, and what can be checked of each without being told.

One is a plain function of a tensor in a file of the folder `_activation_functions`; its docstring has the formula and
where it comes from. Their names are read from those files, so that a ladder file is checked without PyTorch.
"""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Activation = Callable[["Tensor"], "Tensor"]

_FOLDER = Path(__file__).parent / "_activation_functions"


@lru_cache(maxsize=1)
def _places() -> dict[str, str]:
    """Name -> file of its definition."""
    found = {}
    for path in sorted(_FOLDER.glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = path.stem
    return found


def activation_names() -> list[str]:
    """Names of all activation functions, sorted."""
    return sorted(_places())


def activation(name: str) -> Activation:
    """The activation function called `name`. Raises LookupError for any other."""
    if name not in _places():
        raise LookupError(f"no activation function named {name!r}")
    found: Activation = getattr(importlib.import_module(f"{__package__}._activation_functions.{_places()[name]}"), name)
    return found


def gauss_rule(points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for expectations over N(0, 1): even steps to 10 standard deviations, exact for smooth f."""
    x = np.linspace(-10, 10, 2 * points + 1)
    weight = np.exp(-(x**2) / 2)
    return x, weight / weight.sum()


def root_second_moment(f: Activation) -> float:
    """E[f(z)^2]^1/2 for z ~ N(0, 1)."""
    import torch

    from isoflop.levers.train._claims import pointwise

    x, weight = gauss_rule(2000)
    return math.sqrt(float((weight * pointwise(f)(torch.from_numpy(x)).numpy() ** 2).sum()))
