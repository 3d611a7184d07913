import click

from isoflop._cli import emit, json_option, level_option, warn


def reading(command):
    """--unit, --by, --rename, --only, --price: how recorded samples are read."""
    for option in (
        click.option("--only", multiple=True, metavar="COLUMN=VALUE", help="Rows to keep, as in method=cot."),
        click.option("--rename", multiple=True, metavar="THEIRS=OURS", help="Rename a column, as in reward=score."),
        click.option("--by", metavar="COLUMN", help="Column by which problems are resampled. [default: the problem]"),
        click.option("--unit", default="problem", show_default=True, metavar="COLUMN,...", help="What is one problem."),
        click.option("--price", multiple=True, metavar="prompt=USD", help="USD per million tokens, of prompt and gen."),
        click.option("--canonical", is_flag=True, help="Answers that differ only in dress count as the same."),
    ):
        command = option(command)
    return command


def read(file, unit, by, rename, only, price, canonical):
    """The samples that the options of `reading` choose."""
    from isoflop.levers.think._answers import canonical as spelling
    from isoflop.levers.think._samples import read_samples

    pairs = {}
    for name, texts in (("--rename", rename), ("--only", only)):
        if any("=" not in t for t in texts):
            raise click.BadParameter("write NAME=VALUE", param_hint=name)
        pairs[name] = dict(t.split("=", 1) for t in texts)
    return read_samples(
        file, unit=unit.split(","), by=by, rename=pairs["--rename"], only=pairs["--only"],
        same=spelling if canonical else None, prices=_prices(price) if price else None,
    )  # fmt: skip


def _prices(texts):
    pairs = dict(t.partition("=")[::2] for t in texts)
    try:
        if set(pairs) <= {"prompt", "gen"}:
            return {name: float(value) for name, value in pairs.items()}
    except ValueError:
        pass
    raise click.BadParameter("write prompt=USD or gen=USD, of a million tokens", param_hint="--price")


@click.command()
@click.argument("file", metavar="SAMPLES")
@click.option("--strategy", "strategies", multiple=True, help="One to replay; may be given again. [default: all]")
@click.option("--budgets", metavar="K,...", help="Numbers of samples. [default: powers of 2]")
@click.option("--tie", default="even", show_default=True, help="even or wrong; with --first, first or last seen.")
@click.option("--first", is_flag=True, help="The first k samples as recorded, in place of all subsets.")
@click.option("--score-cost", default=0.0, help="Tokens of scoring a sample, as a multiple of its gen_tokens.")
@click.option("--tpr", default=0.9, show_default=True, help="True positive rate for strategy verified.")
@click.option("--fpr", default=0.1, show_default=True, help="False positive rate for strategy verified.")
@click.option("--forecast", metavar="K,...", help="Also pass@k at these k, beyond the samples there are.")
@click.option("--seed", default=0, show_default=True, help="Of resampling and of random orders.")
@level_option
@reading
@json_option
def replay(
    file, strategies, budgets, tie, first, score_cost, tpr, fpr, forecast, seed, level, as_json, **how
):  # fmt: skip
    """Accuracy and cost of strategies at every budget, from recorded samples.

    SAMPLES: the store of a run, CSV, JSON lines, Parquet, a sample log of lm-evaluation-harness, or an Inspect log.

    \b
    isoflop think replay think/samples.jsonl --budgets 1,4,16 --json
    """
    from isoflop.levers.think._forecast_coverage import forecast_coverage
    from isoflop.levers.think._replay import Settings
    from isoflop.levers.think._replay import replay as run

    samples = read(file, **how)
    settings = Settings(
        tie="first" if first and tie == "even" else tie,
        subsets="first" if first else "all",
        tpr=tpr,
        fpr=fpr,
        seed=seed,
    )
    curves = run(
        samples, strategies=strategies or None, budgets=_whole(budgets, "--budgets"), level=level,
        score_cost=score_cost, settings=settings,
    )  # fmt: skip
    plain, text = curves.to_dict(), str(curves)
    if forecast:
        ahead = forecast_coverage(samples.n, samples.c, _whole(forecast, "--forecast"), level=level, seed=seed)
        plain["forecast"] = ahead.to_dict()
        text += "\n\n" + ahead.table()
        warn(ahead.warnings)
    emit(as_json, plain, text)


def _whole(text, option):
    if text is None:
        return None
    try:
        return [int(float(t)) for t in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: write whole numbers with commas between", param_hint=option) from None
