import click

from isoflop._cli import amounts, emit, json_option, table_options


@click.command()
@click.argument("fit_json", metavar="FIT.json")
@click.argument("file")
@click.option("--hold-out", metavar="EXPR", help="Rows of FILE that were not fitted, to hold the forecasts against.")
@click.option("--flops", multiple=True, metavar="NUMBER", help="A budget to plan; give several.")
@click.option("--at", multiple=True, metavar="COLUMN=NUMBER", help="A column that plans hold fixed.")
@click.option("--out", metavar="REPORT.html", help="Write one self-contained page.")
@click.option("--figures", metavar="FOLDER", help="Write the figures.")
@click.option("--svg", is_flag=True, help="Figures as SVG too.")
@table_options
@json_option
def report(fit_json, file, hold_out, flops, at, out, figures, svg, rename, where, skip_bad, as_json):
    """A fit with its rows as a report: text, one page of HTML, figures.

    \b
    isoflop report fit.json runs.csv --hold-out 'params > 1e9' --flops 1e22 --out report.html --figures figures/
    """
    import isoflop
    from isoflop._runs import load
    from isoflop._where import parse_where

    table = load(file, rename=rename, where=where, skip_bad=skip_bad)
    held = None
    if hold_out:
        mask = parse_where(hold_out).mask(table.columns)
        table, held = table.select(~mask), table.select(mask)
    budgets = [amounts([f"flops={f}"], "--flops")["flops"] for f in flops]
    made = isoflop.report(isoflop.Fit.load(fit_json), table, held_out=held, budgets=budgets, fixed=amounts(at, "--at"))
    if out:
        made.html(out)
    if figures:
        made.figures(figures, kinds=("png", "svg") if svg else ("png",))
    emit(as_json, made.to_dict(), str(made))
