"""What tests of trainings share: a tiny language, one thread, and whether PyTorch is here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch: pip install 'isoflop[torch]'")
RECORDED = Path(__file__).parents[1] / "isoflop" / "recorded"
WORDS: dict[str, Any] = {"words": 64, "exponent": 1.0, "word_length": 4, "letters": 8}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on more threads. A file that imports it has it for all of its tests."""
    if not HAS_TORCH:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
