import click

from isoflop._cli import emit, json_option, table_options


@click.command()
@click.argument("name")
@click.argument("file")
@click.option(
    "--by", metavar="COLUMN", help="One answer for each value of this column. [default: run, where it is one]"
)
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting of the meter, as in early=20.")
@table_options
@json_option
def measure(name, file, by, pairs, rename, where, skip_bad, as_json):
    """Run a meter on a table: a cost, a score or a diagnostic of runs (isoflop list meters).

    \b
    isoflop measure gradient_noise_scale norms.csv --by run
    isoflop measure pate detections.csv --set early=20 --set late=20
    """
    from isoflop._meter import get_meter
    from isoflop._meter import measure as measured
    from isoflop._runs import load

    found = get_meter(name)
    settings = dict(_setting(pair, found.settings) for pair in pairs)
    made = measured(found, load(file, rename=rename, where=where, skip_bad=skip_bad), by=by, **settings)
    emit(as_json, made.to_dict(), str(made))


def _setting(pair, known):
    """A setting from NAME=VALUE: a number where it reads as one and the default is not a word, else text."""
    from isoflop._columns import number

    name, sign, text = pair.partition("=")
    if not sign:
        raise ValueError(f"--set {pair!r}: write NAME=VALUE, as in early=20")
    value = None if isinstance(known.get(name), str) else number(text)
    if value is None:
        return name, text
    return name, int(value) if isinstance(known.get(name), int) and value == int(value) else value
