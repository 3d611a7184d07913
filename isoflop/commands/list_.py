import click

from isoflop import _find
from isoflop._cli import emit, json_option

_KINDS = ("laws", "meters", "levers", "theory", "importers")


@click.command("list")
@click.argument("kind", type=click.Choice(_KINDS), required=False)
@json_option
def list_(kind, as_json):
    """The laws, meters, levers, theory simulators and importers there are."""
    found = {k: _find.names(k) for k in ([kind] if kind else _KINDS)}
    if as_json:
        emit(True, found, "")
        return
    lines = []
    for k, names in found.items():
        lines += [f"{k}:"] + [f"  {n:<22} {_headline(k, n)}".rstrip() for n in names]
    emit(False, None, "\n".join(lines))


def _headline(kind: str, name: str) -> str:
    if kind == "levers":  # a lever's own imports may be heavy: its folder's first line will do
        import ast
        from pathlib import Path

        source = Path(_find.__file__).parent / "levers" / name / "__init__.py"
        return (ast.get_docstring(ast.parse(source.read_text())) or "").split("\n", 1)[0]
    if kind == "theory":
        return (_find.get(kind, name).__doc__ or "").split("\n", 1)[0]
    return str(_find.get(kind, name).formula)
