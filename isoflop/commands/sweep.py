import click

from isoflop import _find
from isoflop._cli import emit, json_option


@click.command()
@click.argument("lever")
@click.argument("settings", metavar="SETTINGS.toml", type=click.Path())
@click.option("--out", required=True, metavar="FOLDER", help="Where runs.jsonl grows; a finished run is not run again.")
@click.option("--seeds", default=1, show_default=True, help="Repeats of each setting.")
@click.option("--retry-failed", is_flag=True, help="Run failed settings again, as further rows.")
@json_option
def sweep(lever, settings, out, seeds, retry_failed, as_json):
    """Run a lever up its ladder, cheap to dear, and record every run.

    Stop and start it as you like: it goes on where it was, and a failed run is a row.

    \b
    isoflop sweep train ladder.toml --out runs/
    """
    import isoflop

    made = _find.get("levers", lever).from_toml(settings)
    rows = isoflop.sweep(made, out=out, seeds=seeds, retry_failed=retry_failed)
    failed = int((rows["status"] != "ok").sum())
    emit(as_json, {"out": str(out), "runs": len(rows), "failed": failed}, f"{len(rows)} runs in {out}, {failed} failed")
    if failed:
        raise click.exceptions.Exit(1)
