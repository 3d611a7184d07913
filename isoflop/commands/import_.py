import click

from isoflop._cli import emit, json_option, warn


@click.command("import")
@click.argument("source")
@click.option("--kind", help="One of the kinds above. [default: recognised from the source]")
@click.option("--out", metavar="FOLDER", help="Where runs.csv, curves/curves.csv and import.json go.")
@click.option("--map", "names", multiple=True, metavar="OURS=THEIRS", help="Their name for a column: loss=val/ce.")
@click.option("--set", "values", multiple=True, metavar="OURS=VALUE", help="A column's value in every run.")
@click.option("--pattern", metavar="REGEX", help="For plain logs: a regular expression with named groups.")
@click.option("--context", type=int, metavar="TOKENS", help="For a config.json: length of the sequences.")
@json_option
def import_(source, kind, out, names, values, pattern, context, as_json):
    """Bring in runs that other tools recorded, and say what became of them.

    Kinds: wandb, mlflow, tensorboard, trainer_state (Hugging Face), lightning, lm_eval, inspect, log. A model's
    config.json alone is counted: parameters, and FLOPs with --context.

    \b
    isoflop import wandb/ --out runs/ --set batch_tokens=0.5M
    isoflop import train.log --pattern 'step (?P<step>\\d+) val (?P<val_loss>\\S+)' --out runs/
    isoflop import config.json --context 4096
    """
    from isoflop.importers._import import as_value, import_runs, parse_pairs

    if kind is None and source.rsplit("/", 1)[-1] == "config.json":
        _count(source, context, as_json)
        return
    told = {ours: as_value(text) for ours, text in parse_pairs(values, "--set").items()}
    done = import_runs(source, kind, names=parse_pairs(names, "--map"), values=told, pattern=pattern)
    files = done.write(out) if out else []
    emit(as_json, {**done.to_dict(), "files": files}, _text(done, out, files))
    if not as_json:
        warn(done.report["notes"])


def _text(done, out, files):
    return f"{done}\n\n" + (f"wrote {', '.join(files)} to {out}" if out else "nothing written; --out FOLDER does")


def _count(source, context, as_json):
    from isoflop.importers._architecture import count_flops, count_params

    params = count_params(source)
    flops = count_flops(source, context=context) if context else None
    shown = [str(params), *([str(flops)] if flops else [])]
    emit(as_json, {"params": params.to_dict(), "flops": flops.to_dict() if flops else None}, "\n".join(shown))
