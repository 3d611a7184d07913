"""A small table of runs in several shapes, and what an error message must look like, for the tests of the door."""

from __future__ import annotations

import re
from pathlib import Path

from isoflop._runs import RunsError, Table

NEED = ("params", "tokens", "loss")
HEAD = "run,step,params,tokens,loss\n"
GOOD = "a,1,1.4B,30B,2.5\nb,1,300M,2T,3.5\nc,1,70k,6.2e23,3\n"
CSV = HEAD + GOOD
DATA = {
    "run": ["a", "b", "c"],
    "step": [1.0, 1.0, 1.0],
    "params": [1.4e9, 3e8, 7e4],
    "tokens": [30e9, 2e12, 6.2e23],
    "loss": [2.5, 3.5, 3.0],
}


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def same(table: Table, data: dict = DATA) -> bool:
    return list(table.columns) == list(data) and all(table[k].tolist() == v for k, v in data.items())


HINT = re.compile(
    r"fix|write|give|save|\badd\b|\buse\b|did you mean|check|choose|rename|--skip-bad|name the file|is the file"
    r"|right file|bracket|compare|join|quotes|backticks"
)


def is_one_sentence(message: str) -> bool:
    return (
        message.isprintable()
        and not re.search(r"[.!?] +[A-Z]", message)
        and len(message) < 400
        and bool(HINT.search(message))
    )


def assert_one_line(exc: RunsError) -> None:
    assert "\n" not in str(exc)
