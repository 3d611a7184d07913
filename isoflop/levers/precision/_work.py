"""Where a quantiser's work is kept while it goes on, so that it can be stopped and taken up again, layer by layer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from isoflop._lever import _replace
from isoflop._progress import Tick, progress

Parts = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and JSON facts


@dataclass(frozen=True)
class Work:
    """folder: where finished layers are kept (None: nowhere); delete it when done."""

    folder: Path | None = None

    def claim(self, facts: Mapping[str, Any]) -> None:
        """Note what the work is of, or compare it. Raises ValueError where the folder holds other work."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path, text = self.folder / "job.json", json.dumps(facts, sort_keys=True, indent=1)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{self.folder} holds unfinished work of other settings; delete it, or give another folder"
            )
        _replace(path, text.encode())

    def load(self, name: str) -> Parts | None:
        """What was kept of a layer."""
        path = self._path(name)
        if path is None or not path.exists():
            return None
        with safe_open(path, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys()}, json.loads(stored.metadata()["facts"])  # noqa: SIM118

    def keep(self, name: str, parts: Parts) -> None:
        """Keep a finished layer: there whole, or not at all."""
        path = self._path(name)
        if path is None:
            return
        tensors = {key: value.contiguous() for key, value in parts[0].items()}
        temporary = path.with_name(f".{os.getpid()}.tmp")
        save_file(tensors, temporary, metadata={"facts": json.dumps(parts[1])})
        os.replace(temporary, path)

    def _path(self, name: str) -> Path | None:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return self.folder / f"layer-{digest}.safetensors" if self.folder else None

    @contextmanager
    def shown(self, what: str, total: int) -> Iterator[Tick]:
        """A line on stderr where a person is watching."""
        with progress(what, total) as tick:
            yield tick


def fingerprint(model: nn.Module, batches: Any) -> str:
    """A hash of a model's weights and of calibration inputs."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(_bytes(value))
    for batch in batches:
        values = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple) else (batch,)
        for value in values:
            total.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return total.hexdigest()[:32]


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
