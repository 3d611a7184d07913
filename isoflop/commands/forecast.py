import click

from isoflop._cli import amounts, emit, json_option, level_option, warn


@click.command()
@click.argument("fit_json", metavar="FIT.json")
@click.option("--at", multiple=True, required=True, metavar="COLUMN=NUMBER", help="The point, as in params=70B.")
@click.option("--kind", type=click.Choice(["run", "law"]), default="run", show_default=True,
              help="What a new run will measure, or where the law's curve passes.")  # fmt: skip
@level_option
@click.option("--law", help="The law as file.py:name, where the fit was made with your own.")
@json_option
def forecast(fit_json, at, kind, level, law, as_json):
    """What will a run measure there, and how sure?

    \b
    isoflop forecast fit.json --at params=70B --at tokens=1.4T
    """
    from isoflop import Fit

    answer = Fit.load(fit_json, law=law).forecast(**amounts(at, "--at"), level=level, kind=kind)
    if as_json:
        emit(True, answer.to_dict(), "")
    else:
        emit(False, None, answer.table())
        warn(answer.warnings)
