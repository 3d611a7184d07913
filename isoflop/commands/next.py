import click

from isoflop._cli import amounts, emit, json_option, level_option, warn


@click.command()
@click.argument("fit_json", metavar="FIT.json")
@click.option("--budget", required=True, metavar="FLOPS", help="Of all further runs together.")
@click.option("--flops", metavar="NUMBER", help="The large run: its compute; short for --at flops=NUMBER.")
@click.option("--at", multiple=True, metavar="COLUMN=NUMBER", help="The point to be sure of, or a column held there.")
@click.option("-k", "--runs", "k", default=4, show_default=True, help="Most runs, repeats included.")
@click.option("--candidates", metavar="FILE", help="A table of the settings that may be run. [default: a grid]")
@click.option("--kind", type=click.Choice(["law", "run"]), default="run", show_default=True,
              help="run: count with the form being wrong beyond the rows; law: trust it.")  # fmt: skip
@click.option("--against", metavar="OTHER.json", help="Another recipe: the runs that would settle which is better.")
@click.option("--out", metavar="NEXT.csv", help="Write the runs as a table.")
@click.option("--ladder", metavar="BASE.toml", help="With --ladders: a ladder file whose other settings are kept.")
@click.option("--ladders", metavar="FOLDER", help="Write ladder files for `isoflop sweep train`, one a size.")
@click.option("--law", help="The law as file.py:name, where the fit was made with your own.")
@click.option("--seed", default=0, show_default=True, help="Everything random follows from it.")
@level_option
@json_option
def next(fit_json, budget, flops, at, k, candidates, kind, against, out, ladder, ladders, law, seed, level, as_json):
    """Which runs to make next, so that the interval at the target narrows most; and when to stop.

    \b
    isoflop next fit.json --budget 3e20 --flops 1e24 --out next.csv
    isoflop next a.json --against b.json --budget 3e20 --flops 1e24
    """
    from isoflop import Fit
    from isoflop._deciding import deciding_runs
    from isoflop._design import next_runs
    from isoflop._ladder_files import write_ladders

    about = amounts([*at, *([f"flops={flops}"] if flops else [])], "--at")
    spend = {"flops": amounts([f"flops={budget}"], "--budget")["flops"]}
    if not about:
        raise click.UsageError("say what to be sure of: --flops NUMBER, or --at for every column of the law")
    if bool(ladder) != bool(ladders):
        raise click.UsageError("--ladder BASE.toml and --ladders FOLDER go together")
    fit = Fit.load(fit_json, law=law)
    if against:
        if out or ladders or candidates:
            raise click.UsageError("--against prints only: leave --out, --ladders and --candidates away")
        fits = {fit_json: fit, against: Fit.load(against, law=law)}
        found = deciding_runs(fits, budget=spend, about=about, k=k, kind=kind)
        emit(as_json, found.to_dict(), str(found))
        return
    made = next_runs(fit, budget=spend, about=about, k=k, candidates=candidates, kind=kind, level=level, seed=seed)
    if out:
        made.save(out)
    if ladders:
        write_ladders(made.runs, ladder, ladders)
    emit(as_json, made.to_dict(), made.table())
    if not as_json:
        warn(made.warnings)
