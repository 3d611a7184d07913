"""Reading the file of a ladder or a sweep: every key is a field of the lever, and a misspelled one is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from isoflop.levers.train._check import known

if TYPE_CHECKING:
    from isoflop.levers.train import Train

Made = TypeVar("Made")
_PLAIN: dict[str, type] = {"float": float, "int": int, "bool": bool, "str": str}


def read(path: str | Path, make: Callable[[dict[str, Any]], Made], *, what: str = "sweep file") -> Made:
    """What `make` declares from the table of a TOML file. Raises ValueError in one sentence that names the file."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the {what} {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    try:
        return make(table)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path}: {error}") from error


def filled(lever: type[Made], table: Mapping[str, Any], *, what: str = "key") -> Made:
    """The lever with a table's values in its fields, lists as tuples. Raises ValueError for a key that is no field."""
    names = [f.name for f in fields(cast(Any, lever))]
    for key in table:
        known(key, names, what=what)
    return lever(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def read_ladder(lever: type[Train], path: Path) -> Train:
    """The lever that a ladder file declares."""
    return read(path, partial(declare, lever), what="ladder file")


def declare(lever: type[Train], table: dict[str, Any]) -> Train:
    """The lever that a table declares. Raises ValueError in one sentence that names the key."""
    kinds = {f.name: str(f.type) for f in fields(lever)}
    for key in table:
        known(key, kinds, what="key")
    if not table.get("sizes"):
        raise ValueError("needs at least one [[sizes]] with width and depth")
    if bool(table.get("budgets")) == bool(table.get("tokens")):
        raise ValueError("give either budgets (FLOPs) or tokens, one of the two")
    return lever(**{key: _convert(key, value, kinds[key]) for key, value in table.items()})


def _convert(key: str, value: Any, kind: str) -> Any:
    """TOML's value as the field's type: a whole float may stand for an int, and lists become tuples."""
    kind = kind.removesuffix(" | None")
    if kind in _PLAIN:
        return _plain(key, value, kind)
    value = list(value) if isinstance(value, tuple) else value
    wanted = dict if kind.startswith("dict") else list
    inner = dict if "dict" in kind else (int, float)
    if not isinstance(value, wanted) or (wanted is list and not all(isinstance(v, inner) for v in value)):
        shape = "a table" if wanted is dict else "a list of tables" if inner is dict else "a list of numbers"
        raise ValueError(f"{key} is {value!r}, and should be {shape}")
    return tuple(value) if wanted is list else value


def _plain(key: str, value: Any, kind: str) -> Any:
    numbers = kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, _PLAIN[kind]) and isinstance(value, bool) == (kind == "bool"):
        return value
    if not numbers or _PLAIN[kind](value) != value:
        raise ValueError(f"{key} is {value!r}, and should be of type {kind}")
    return _PLAIN[kind](value)
