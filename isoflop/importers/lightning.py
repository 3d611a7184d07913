"""Lightning's CSVLogger: `metrics.csv`, with `hparams.yaml` beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, beside, importer, points_of, series_of
from isoflop.importers._safe import flat, load_yaml, real


@importer(lambda path: path.name == "metrics.csv")
def lightning(source: Source) -> Iterator[Logged]:
    """Lightning CSV logs (metrics.csv and hparams.yaml): the file, version_0, or a folder of versions."""
    for path in source.files:
        settings, notes = beside(path, "hparams.yaml", "hparams.yml"), []
        loaded = load_yaml(settings) if settings else {}
        if isinstance(loaded, dict):
            gone = [str(k) for k, v in loaded.items() if v is None]
            notes += [f"hparams.yaml: {', '.join(gone[:5])} without a plain value"] if gone else []
        label, points = source.label(path.parent), points_of(_rows(path))
        notes += [] if points else [f"{plain(label)}: metrics.csv has no row with a step and a metric"]
        yield Logged(
            run=path.parent.name if label == "." or path == source.root else label,
            place=str(path),
            config=flat(loaded, place="hparams.yaml") if isinstance(loaded, dict) else {},
            series=series_of(points),
            notes=tuple(notes),
        )


def _rows(path: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "step" not in (reader.fieldnames or ()):
                raise RunsError(f"{plain(path.name)} has no column step; is it a CSVLogger's?")
            for row in reader:
                step = real(row.pop("step", None))
                if step is not None:
                    yield step, {k: v for k, v in row.items() if k and v not in ("", None)}
    except UnicodeDecodeError as exc:
        raise RunsError(f"{plain(str(path))} is not UTF-8 text; is it a CSVLogger's?") from exc
    except (OSError, csv.Error) as exc:
        raise RunsError(f"cannot read {plain(str(path))}: {exc}") from exc
