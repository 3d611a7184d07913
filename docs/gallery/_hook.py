"""Draws the gallery while the site is built: each file beside this one has a function `draw` that returns the axes."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

from isoflop import _figures

HERE = Path(__file__).parent


def drawn(script: Path) -> bytes:
    """The figure of one file as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        return _figures.save(runpy.run_path(str(script))["draw"](), Path(folder) / "figure.png").read_bytes()


def on_files(files: Any, config: Any) -> Any:
    """Add gallery/NAME.png to the site for each gallery/NAME.py."""
    from mkdocs.structure.files import File

    for script in sorted(HERE.glob("[!_]*.py")):
        files.append(File.generated(config, f"gallery/{script.stem}.png", content=drawn(script)))
    return files
