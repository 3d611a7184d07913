"""Hugging Face Trainer: `trainer_state.json`, with the `config.json` of the model beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, beside, importer, points_of, series_of
from isoflop.importers._safe import load_json, real

_FINAL = ("train_runtime", "total_flos", "num_input_tokens_seen", "global_step", "epoch")


@importer(lambda path: path.name == "trainer_state.json")
def trainer_state(source: Source) -> Iterator[Logged]:
    """Hugging Face Trainer output (trainer_state.json): the file, a checkpoint, or a folder of outputs.

    Of one output's checkpoints the one with most steps is read. training_args.bin is a pickle and is not opened.
    """
    outputs: dict[Path, list[Path]] = {}
    for path in source.files:
        folder = path.parent.parent if path.parent.name.startswith("checkpoint-") else path.parent
        outputs.setdefault(folder, []).append(path)
    for folder, paths in sorted(outputs.items()):
        states = [(_state(path), path) for path in paths]
        state, path = max(states, key=lambda pair: (pair[0]["steps"], pair[1].parent == folder))
        label = source.label(folder)
        yield _logged(state["state"], path, folder.name if label in (".", path.name) else label)


def _state(path: Path) -> dict[str, Any]:
    state = load_json(path)
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise RunsError(f"{plain(path.name)} has no log_history; is it a Trainer's?")
    return {"state": state, "steps": real(state.get("global_step")) or 0.0}


def _logged(state: dict[str, Any], path: Path, run: str) -> Logged:
    rows = [r for r in state["log_history"] if isinstance(r, dict) and real(r.get("step")) is not None]
    averages = {"train_loss", "total_flos", "train_runtime", "step"}  # the last entry sums up the whole training
    history = ((float(r["step"]), {k: v for k, v in r.items() if k not in averages}) for r in rows)
    model = beside(path, "config.json") or beside(path.parent, "config.json")
    summary = {k: state[k] for k in _FINAL if real(state.get(k))}
    for row in rows:
        summary |= {k: row[k] for k in ("train_runtime", "total_flos") if k in row}
    return Logged(
        run=run,
        place=str(path),
        summary=summary,
        series=series_of(points_of(history)),
        status="ok" if (real(state.get("global_step")) or 0) >= (real(state.get("max_steps")) or 0) else "unfinished",
        names={"train_loss": "loss", "loss": "eval_loss", "tokens": "num_input_tokens_seen"},
        model=load_json(model, limit=10_000_000) if model else None,
    )
