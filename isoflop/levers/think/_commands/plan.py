import click

from isoflop._cli import emit, json_option, level_option
from isoflop.levers.think._commands.replay import read, reading

_UNITS = ("tokens", "usd", "seconds", "samples")
_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("file", metavar="PILOT")
@click.option(
    "--budget-tokens", metavar="NUMBER", help="Budget in tokens, for all problems; the prompts' are in where known."
)
@click.option("--budget-usd", metavar="NUMBER", help="Budget in USD, for all problems; see --price.")
@click.option("--budget-seconds", metavar="NUMBER", help="Budget in seconds of sampling, for all problems.")
@click.option("--budget-samples", metavar="NUMBER", help="Budget in samples, where the pilot has no tokens.")
@click.option(
    "--accuracy", type=click.FloatRange(0, 1, min_open=True), metavar="A",
    help="The cheapest plan that reaches this, in place of a budget.",
)  # fmt: skip
@click.option(
    "--problems", type=_COUNT, metavar="N", help="What the budget is for. [default: as many as the pilot has]"
)
@click.option(
    "--cost", help="What is saved under --accuracy: tokens, gen_tokens, usd, seconds, samples. [default: gen_tokens]"
)
@click.option(
    "--bins", type=_COUNT, metavar="N", default=5, show_default=True, help="Bins of difficulty, of equal size."
)
@click.option(
    "--probe", type=_COUNT, metavar="N", default=4, show_default=True, help="Samples before a problem is put in a bin."
)
@click.option("--signal", help="agreement, score, or labels (hindsight). [default: the first there is]")
@click.option("--checked", is_flag=True, help="Answers can be checked at run time, so one right sample is enough.")
@click.option("--score-cost", default=0.0, help="Tokens of scoring a sample, as a multiple of its gen_tokens.")
@click.option("--seed", default=0, show_default=True, help="Of folds and of resampling.")
@click.option("--out", metavar="PLAN.json", help="Write the plan.")
@level_option
@reading
@json_option
def plan(file, accuracy, problems, cost, bins, probe, signal, checked, score_cost, seed, out, level, as_json, **how):
    """Strategy and samples per difficulty, best for a budget or cheapest for an accuracy.

    PILOT: recorded samples of some of the problems, as `isoflop think replay` reads them.

    \b
    isoflop think plan pilot/ --budget-tokens 1e6 --problems 500 --out plan.json
    isoflop think plan pilot/ --accuracy 0.8 --cost usd --price prompt=0.1 --price gen=0.4 --out plan.json
    """
    from isoflop.levers.think._allocate import allocate_samples

    given = {unit: how.pop(f"budget_{unit}") for unit in _UNITS}
    named = {unit: text for unit, text in given.items() if text is not None}
    if len(named) + (accuracy is not None) != 1:
        raise click.UsageError(f"give one of {', '.join(f'--budget-{u}' for u in _UNITS)}, --accuracy")
    if named and cost:
        raise click.UsageError("--cost goes with --accuracy; a budget says itself what it counts")
    samples = read(file, **how)
    budget, total = None, ""
    for unit, text in named.items():
        budget = _number(unit, text) / (problems or len(samples))
        total = f" ({text} {unit} over {problems or len(samples)} problems)"
        cost = unit if unit != "tokens" or "prompt_tokens" in samples.cost else "gen_tokens"
    try:
        made = allocate_samples(
            samples, budget=budget, accuracy=accuracy, cost=cost or "gen_tokens", bins=bins, signal=signal,
            settings={"probe": probe, "checked": checked, "score_cost": score_cost, "seed": seed, "level": level},
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{error}{total}") from None
    if out:
        made.save(out)
    emit(as_json, made.to_dict(), str(made) + (f"\nwritten to {out}" if out else ""))


def _number(unit, text):
    from isoflop._columns import number

    total = number(text)
    if total is None or not total > 0:
        raise click.BadParameter(f"{text!r} is not a number above 0", param_hint=f"--budget-{unit}")
    return float(total)
