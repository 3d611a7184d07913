import json

import click

from isoflop._cli import emit, json_option


@click.command()
@click.argument("problems", type=click.Path())
@click.option("--server", multiple=True, required=True, metavar="URL", help="Where it listens; several of one model.")
@click.option("--model", required=True, help="The model's name there.")
@click.option("--strategy", help="A strategy, or FILE.py:NAME. [default: majority]")
@click.option("--plan", metavar="PLAN.json", help="Follow a plan of `isoflop think plan`, in place of a strategy.")
@click.option("--n", metavar="1,4,16", help="Samples per problem, one run each; short for --over n=1,4,16.")
@click.option("--over", metavar="NAME=A,B", help="Another setting to go through, or problem_tokens=500,2000.")
@click.option("--set", "own", multiple=True, metavar="NAME=VALUE", help="A setting of the strategy.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Any other field of the lever.")
@click.option("--score", help="The verifier that the strategy may use.")
@click.option("--grade", default="exact", show_default=True, help="What says whether an answer is right.")
@click.option("--protocol", default="chat", show_default=True, help="chat or completions.")
@click.option("--max-tokens", default=1024, show_default=True, help="Most tokens of one sample.")
@click.option("--budget-tokens", type=float, help="Tokens that each run may spend, read and generated.")
@click.option("--budget-usd", type=float, help="USD that each run may spend, by --option prices=...")
@click.option("--budget-seconds", type=float, help="Seconds that each run may take.")
@click.option("--seeds", default=1, show_default=True, help="Repeats of each setting.")
@click.option("--retry-failed", is_flag=True, help="Run failed settings again; only what is missing is asked for.")
@click.option("--out", required=True, metavar="FOLDER", help="Where runs.jsonl, answers/ and samples/ grow.")
@json_option
def run(problems, server, model, strategy, n, over, own, options, out, seeds, retry_failed, as_json, **given):
    """Answer problems with a strategy against a server, and record accuracy and cost.

    PROBLEMS is JSON lines, JSON, CSV or Parquet with id, prompt and answer. Stop and start it as you like: what was
    sampled is never asked for again.

    \b
    isoflop think run problems.jsonl --server http://localhost:8000/v1 --model my-model --n 1,4,16 --out think/
    isoflop think run problems.jsonl --server http://localhost:8000/v1 --model my-model --plan plan.json --out planned/
    """
    import isoflop
    from isoflop.levers.think import Think
    from isoflop.levers.think._run import first_contact
    from isoflop.levers.think._types import ModelError

    if given["plan"] and strategy:
        raise click.UsageError("a plan says which strategy answers: leave out --strategy")
    budget = {kind: given.pop(f"budget_{kind}") for kind in ("tokens", "usd", "seconds")}
    fields = {k: v for k, v in given.items() if v is not None} | _pairs(options, "--option")
    fields["strategy"] = strategy or "majority"
    fields["budget"] = {k: v for k, v in budget.items() if v is not None}
    swept = _swept(f"n={n}" if n else over)
    lever = Think(model, problems, server=list(server), settings=_pairs(own, "--set"), over=swept, **fields)
    try:
        first_contact(lever)
    except ModelError as error:
        raise click.ClickException(str(error)) from error
    rows = isoflop.sweep(lever, out=out, seeds=seeds, retry_failed=retry_failed)
    failed = rows[rows["status"] != "ok"]
    emit(as_json, {"out": str(out), "rows": rows.to_dict("records")}, _table(rows, lever.axis))
    if retries := int(rows["retries"].sum() if "retries" in rows else 0):
        click.echo(f"{retries} calls had to be tried again", err=True)
    for said in dict.fromkeys(failed["error"] if len(failed) else ()):
        click.echo(f"failed: {said}", err=True)
    if len(failed):
        raise click.exceptions.Exit(1)


def _value(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(texts, option):
    for text in texts:
        if "=" not in text:
            raise ValueError(f"{option} {text!r}: write NAME=VALUE")
    return {name: _value(value) for name, _, value in (text.partition("=") for text in texts)}


def _swept(text):
    if not text:
        return {}
    name, sign, values = text.partition("=")
    if not sign or not values:
        raise ValueError(f"--over {text!r}: write NAME=A,B, as in n=1,4,16")
    return {name: [_value(value) for value in values.split(",")]}


def _table(rows, axis):
    """Accuracy against cost, a line per run."""
    lines = [f"{'strategy':<20} {axis:>10} {'accuracy':>16} {'gen_tokens':>11} {'prompt_tokens':>13} {'usd':>10}"]
    for row in rows.to_dict("records"):
        known = row["status"] == "ok"
        accuracy = f"{row['accuracy']:.3f} +- {1.645 * row['accuracy_se']:.3f}" if known else "failed"
        costs = [f"{row.get(name, float('nan')):.4g}" for name in ("gen_tokens", "prompt_tokens", "usd")]
        at = row.get(axis, "")
        shown = f"{at:g}" if isinstance(at, int | float) else str(at)
        head = f"{row['strategy']:<20} {shown:>10} {accuracy:>16}"
        lines.append(f"{head} {costs[0]:>11} {costs[1]:>13} {costs[2]:>10}")
        if known and (row.get("planned_accuracy") or 0.0) > 0:
            expected = [row[f"planned_{x}"] for x in ("accuracy", "low", "high")]
            lines.append("{:<31} {:>16.3f} [{:.3f}, {:.3f}]".format("  as planned", *expected))
    return "\n".join([*lines, "costs per problem; +- is 90 % over problems"])
