"""A name is a file: `names(kind)` lists, `get(kind, name)` imports exactly one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def names(kind: str) -> list[str]:
    """Names of one kind ("laws", "meters", "levers/train", ...), sorted, without importing any of them."""
    folder = _HERE / kind
    packages = () if "/" in kind else folder.glob("*/__init__.py")  # a lever's own folders hold parts of it
    found = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in packages}
    return sorted(n for n in found if not n.startswith("_"))


def get(kind: str, name: str) -> Any:
    """The thing called `name`: from the package's own folder, or from your file as "path/to/file.py:name".

    Raises LookupError where there is no such thing; the closest names are in the message.
    """
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    if name not in names(kind):
        close = difflib.get_close_matches(name, names(kind), n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise LookupError(f"no {kind.rstrip('s')} named {name!r}{hint} (isoflop list {kind})")
    module = importlib.import_module(f"isoflop.{kind.replace('/', '.')}.{name}")
    attribute = name if hasattr(module, name) else name.title().replace("_", "")
    if not hasattr(module, attribute):
        raise LookupError(f"{module.__file__} defines neither {name!r} nor {attribute!r}")
    return getattr(module, attribute)


def _from_file(path: str, name: str) -> Any:
    if not Path(path).is_file():
        raise LookupError(f"no file {path!r} to take {name!r} from")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise LookupError(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises, the sentence says which file it was
        raise ValueError(f"{path} cannot be loaded ({type(error).__name__}: {error})") from error
    if not hasattr(module, name):
        raise LookupError(f"{path} defines no {name!r}")
    return getattr(module, name)
