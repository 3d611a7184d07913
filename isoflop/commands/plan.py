import click

from isoflop._cli import amounts, emit, json_option, level_option, warn

_NUMBERS = {
    "flops": "Training and serving together, FLOPs.",
    "usd": "Training and serving together, by the table of prices.",
    "gpu-hours": "Training and serving together, hours of one device.",
    "hours": "Wall clock of the training; with --devices.",
    "goal": "Reach this target at the least cost instead.",
    "served-tokens": "Tokens to be served in the model's life.",
    "unique-tokens": "Tokens there are; more are repeats.",
    "devices": "Most devices that run at once.",
}


def _numbers(command):
    for name, words in reversed(_NUMBERS.items()):
        command = click.option(f"--{name}", metavar="NUMBER", help=words)(command)
    return command


@click.command()
@click.argument("fit_json", metavar="FIT.json")
@_numbers
@click.option("--device", metavar="NAME", help="A device of the table of prices. [default: its first]")
@click.option("--precision", metavar="NAME", help="bf16, fp8, ...: which peak the device runs at. [default: bf16]")
@click.option("--cheapest", type=click.Choice(["flops", "usd", "gpu_hours"]), help="With --goal: which cost.")
@click.option("--at", multiple=True, metavar="NAME=NUMBER", help="Any other constraint, or a column held fixed.")
@click.option("--choice", "choices", multiple=True, metavar="NAME:A=B,C=D", help="An alternative to be compared.")
@click.option("--against", multiple=True, metavar="OTHER.json", help="Another recipe; also where they cross.")
@click.option("--prices", metavar="FILE.toml", help="Your own table of devices and prices.")
@click.option("--pareto", metavar="OUT.csv", help="Also the front of target against cost and hours, about the budget.")
@click.option("--law", help="The law as file.py:name, where the fit was made with your own.")
@level_option
@json_option
def plan(fit_json, device, precision, cheapest, at, choices, against, prices, pareto, law, level, as_json, **given):
    """The best setting under real limits: compute, money, time, data, memory, tokens to be served.

    \b
    isoflop plan fit.json --flops 1e24 --served-tokens 2T
    isoflop plan fit.json --usd 1M --hours 720 --devices 512 --unique-tokens 300B --at batch_crit=4M
    isoflop plan dense.json --against moe.json --flops 1e23
    """
    from isoflop import Fit
    from isoflop._planned import plan as make

    numbers = {k: amounts([f"{k}={v}"], f"--{k.replace('_', '-')}")[k] for k, v in given.items() if v is not None}
    texts = {k: v for k, v in (("device", device), ("precision", precision), ("cheapest", cheapest)) if v}
    several = {"choices": dict(map(_choice, choices))} if choices else {}
    limits = {**numbers, **texts, **amounts(at, "--at"), **several}
    names = (fit_json, *against)
    fits = {name: Fit.load(name, law=law) for name in names}
    made = make(fits if against else fits[fit_json], limits, crossing=bool(against), prices=prices, level=level)
    if pareto:
        _write_front(fits if against else fits[fit_json], limits, pareto, prices, level)
    if as_json:
        emit(True, made.to_dict(), "")
    else:
        emit(False, None, made.table())
        warn([*made.made.to_dict(level)["warnings"], *(w for c in made.crossings for w in c.warnings)])
    if made.made.best is None:
        raise click.exceptions.Exit(1)


def _choice(text):
    name, sign, rest = text.partition(":")
    pairs = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    if not sign or not name or not all(pairs.values()):
        raise ValueError(f"--choice {text!r}: write NAME:A=B,C=D, as in fp8:precision=fp8,bits_weights=8")
    texts = {k: v for k, v in pairs.items() if k in ("precision", "device")}
    return name, texts | amounts((f"{k}={v}" for k, v in pairs.items() if k not in texts), "--choice")


def _write_front(fit, limits, path, prices, level):
    import numpy as np

    from isoflop._fit import write_whole
    from isoflop._limits import TOTALS
    from isoflop._planned import pareto

    cost = next((w for w in ("usd", "gpu_hours", "flops") if w in limits), None)
    if cost is None:
        raise ValueError(f"--pareto needs a budget to move: one of {', '.join(TOTALS)}")
    clocks = np.geomspace(0.1, 1, 6) * limits["hours"] if "hours" in limits else ()
    budgets = np.geomspace(0.01, 10, 13) * limits[cost]
    front = pareto(fit, limits, cost=cost, budgets=budgets, hours=clocks, prices=prices, level=level)
    write_whole(path, front.to_csv(index=False))
