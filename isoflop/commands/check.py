import click

from isoflop._cli import emit, json_option


@click.command()
@click.argument("law")
@click.option(
    "--data-sets", default=0, show_default=True, help="Count interval coverage over this many; 200 is telling."
)
@click.option("--seed", default=0, show_default=True, help="Everything random follows from it.")
@json_option
def check(law, data_sets, seed, as_json):
    """Does a law work? Plant its coefficients, fit, and see whether they come back.

    \b
    isoflop check mylaw.py:repeat --data-sets 200
    """
    import isoflop

    result = isoflop.check_law(law, data_sets=data_sets, seed=seed)
    emit(as_json, {"law": result.law, "ok": result.ok, "planted": result.planted, "recovered": result.recovered,
                   "coverage": result.coverage, "problems": list(result.problems)}, str(result))  # fmt: skip
    if not result.ok:
        raise click.exceptions.Exit(1)
