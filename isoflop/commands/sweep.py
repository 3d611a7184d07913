import click

from isoflop import _find
from isoflop._cli import emit, json_option


@click.command()
@click.argument("lever")
@click.argument("settings", metavar="SETTINGS.toml", type=click.Path())
@click.option("--out", required=True, metavar="FOLDER", help="Where runs.jsonl grows; a finished run is not run again.")
@click.option("--seeds", default=1, show_default=True, help="Repeats of each setting.")
@click.option("--retry-failed", is_flag=True, help="Run failed settings again, as further rows.")
@click.option("--transfer", type=click.Choice(["lr"]), help="Best learning rate by width, from [transfer]. (train)")
@click.option("--coordinates", is_flag=True, help="Sizes of activations by width and step, from [transfer]. (train)")
@json_option
def sweep(lever, settings, out, seeds, retry_failed, transfer, coordinates, as_json):
    """Run a lever up its ladder, cheap to dear, and record every run.

    Stop and start it as you like: it goes on where it was, and a failed run is a row.

    \b
    isoflop sweep train ladder.toml --out runs/
    isoflop sweep train ladder.toml --out rates/ --transfer lr --seeds 3
    """
    import isoflop

    if transfer or coordinates:
        if lever != "train" or (transfer and coordinates):
            raise click.UsageError("--transfer and --coordinates are for the lever train, one at a time")
        _widths(settings, out=out, seeds=seeds, retry_failed=retry_failed, coordinates=coordinates, as_json=as_json)
        return
    made = _find.get("levers", lever).from_toml(settings)
    rows = isoflop.sweep(made, out=out, seeds=seeds, retry_failed=retry_failed)
    failed = int((rows["status"] != "ok").sum())
    emit(as_json, {"out": str(out), "runs": len(rows), "failed": failed}, f"{len(rows)} runs in {out}, {failed} failed")
    if failed:
        raise click.exceptions.Exit(1)


def _widths(settings, *, out, seeds, retry_failed, coordinates, as_json):
    """Runs over parametrisations and widths, their figure where matplotlib is here, and what they show."""
    import importlib.util
    from pathlib import Path
    from typing import Any

    import isoflop
    from isoflop.levers.train._best_rate import moved, plot_rates
    from isoflop.levers.train._coordinates import Coordinates, grown, plot_sizes
    from isoflop.levers.train._transfer import Transfer

    made = (Coordinates if coordinates else Transfer).from_toml(settings)
    rows = isoflop.sweep(made, out=out, seeds=seeds, retry_failed=retry_failed)
    find: Any
    plot: Any
    find, plot, name = (grown, plot_sizes, "coordinates") if coordinates else (moved, plot_rates, "transfer")
    answer = find(rows)
    if importlib.util.find_spec("matplotlib"):
        plot(rows, answer)[0].figure.savefig(Path(out) / f"{name}.svg")
    emit(as_json, {"out": str(out), "runs": len(rows), **answer.to_dict()}, str(answer))
