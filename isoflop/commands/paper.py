import sys

import click

from isoflop._cli import emit, json_option


@click.command()
@click.argument("name")
@click.option("--data", type=click.Path(file_okay=False), envvar="ISOFLOP_DATA",
              help="The public data sets. [env: ISOFLOP_DATA]")  # fmt: skip
@json_option
def paper(name, data, as_json):
    """One paper: what of it is here, and its claims with what was expected and found. Exit 1 where one differs.

    NAME is a name of `isoflop papers`, its number there, an arXiv id, or a TOML file of your own.

    \b
    isoflop paper parscale
    """
    from isoflop import _paper, _paper_check

    found = _paper.get_paper(name)
    results = _paper_check.check([found], data=data)[found.name]
    verdict = _paper_check.standing(results)
    plain = found.to_dict() | {"verdict": verdict, "claims": [r.to_dict() for r in results]}
    emit(as_json, plain, _text(found, results, verdict))
    if verdict == "differs":
        sys.exit(1)


def _text(found, results, verdict):
    where = ", ".join(([f"arXiv {found.arxiv}"] if found.arxiv else []) + ([f"no. {found.id}"] if found.id else []))
    lines = [f"{found.title}" + (f" ({where})" if where else ""), f"{found.group}, {found.kind}: {found.what}"]
    if found.headline:
        lines.append(f"The paper says: {found.headline}")
    lines.append(f"here as: {', '.join(found.uses) or 'nothing yet'}")
    lines.append("" if results else f"{verdict}: {found.why}" if found.why else verdict)
    for r in results:
        lines.append(f"{r.verdict}: {r.claim.words}" + (f" ({r.claim.stands})" if r.claim.stands else ""))
        lines += [f"  {e.of}: expected {e}, found {_shown(f)}" for e, f in zip(r.claim.expect, r.found, strict=False)]
        if r.verdict == "differs" and r.claim.because:
            lines.append(f"  why: {r.claim.because}")
        if r.note:
            lines.append(f"  {r.note}")
    return "\n".join(lines)


def _shown(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
