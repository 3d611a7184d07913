from pathlib import Path

import click

from isoflop._cli import emit, json_option


@click.command()
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Where the report and figures go.")
@json_option
def demo(out, as_json):
    """The main job on recorded runs: fit, forecast the held-out largest model, plan three budgets, write a report."""
    from isoflop._demo import demo as run

    found = {}
    for name, made, truth in run(Path(out)):
        found[name] = made.to_dict() | ({"truth": truth} if truth else {})
        if not as_json:
            emit(False, None, "\n".join(filter(None, [made.text(), truth, ""])))
    report = Path(out) / "report.html"
    emit(as_json, found, f"report: {report}, figures: {Path(out)}/*.png")
