import click

from isoflop._cli import amounts, emit, json_option, level_option


@click.command()
@click.argument("file", metavar="FIT.json|RUNS")
@click.option("--flops", multiple=True, metavar="NUMBER", help="Of a fit: a budget; give several.")
@click.option("--cost", default="flops", show_default=True, help="Of runs: the cost column.")
@click.option("--metric", default="loss", show_default=True, help="Of runs: the metric column.")
@click.option("--meter", default="train_flops", show_default=True, help="Of a fit: how budgets are counted.")
@level_option
@json_option
def frontier(file, flops, cost, metric, meter, level, as_json):
    """The best that each budget buys: of a saved fit, or of measured runs.

    \b
    isoflop frontier fit.json --flops 1e20 --flops 1e22 --flops 1e24
    isoflop frontier runs.csv --cost gen_tokens --metric accuracy
    """
    import isoflop

    if file.endswith(".json") and flops:
        budgets = [amounts([f"flops={f}"], "--flops")["flops"] for f in flops]
        table = isoflop.frontier(isoflop.Fit.load(file), budgets, meter=meter, level=level)
    elif flops:
        raise ValueError(f"--flops is for a saved fit (FIT.json); {file} is read as runs: drop --flops")
    else:
        table = isoflop.frontier(file, cost=cost, metric=metric)
    emit(as_json, {"rows": table.to_dict("records")}, table.to_string(index=False, float_format=lambda v: f"{v:.5g}"))
