import json

import click

from isoflop._cli import emit, json_option, warn


@click.command()
@click.argument("model_dir", type=click.Path())
@click.option(
    "--method", default="awq", show_default=True, help="Quantiser: a file of levers/precision, or FILE.py:NAME."
)
@click.option("--bits", default=4, show_default=True, type=click.IntRange(2, 8), help="Bits of a weight.")
@click.option("--group", default=32, show_default=True, help="Weights that share a scale; 0: a whole row.")
@click.option(
    "--acts", default=16, show_default=True, type=click.IntRange(2, 16), help="Bits of an input; 16: not rounded."
)
@click.option(
    "--weights-format", metavar="NAME", help="In place of --bits: fp8_e4m3, fp4_e2m1, mxfp4, nvfp4, dint4, ..."
)
@click.option("--acts-format", metavar="NAME", help="In place of --acts: the same names.")
@click.option(
    "--act-range", default="token", show_default=True, help="What shares a scale: token, tensor, static, channel."
)
@click.option("--text", required=True, type=click.Path(), help="Text: its beginning calibrates, its end measures.")
@click.option("--out", required=True, type=click.Path(), help="Folder for the quantised model; the same call resumes.")
@click.option("--calibration", default=16, show_default=True, help="Windows to calibrate on.")
@click.option("--heldout", default=64, show_default=True, help="Windows to measure on.")
@click.option("--context", type=int, help="Tokens of a window. [default: the model's, at most 512]")
@click.option("--set", "settings", multiple=True, metavar="NAME=JSON", help="A setting of the method, as in grid=20.")
@click.option("--skip", multiple=True, metavar="PART", help="Leave layers alone whose name holds this.")
@click.option("--no-fold", is_flag=True, help="Make every scale an explicit product.")
@json_option
def quantize(model_dir, method, as_json, text, out, calibration, heldout, context, settings, **wanted):
    """Quantise a trained model after training, and say what it costs.

    MODEL_DIR is a Hugging Face folder (safetensors, read from disk, no code of its own) or a model of isoflop's.
    Weights are
    written as the numbers that the format can hold: the arithmetic is simulated, nothing is faster than before.

    \b
    isoflop quantize model/ --method awq --bits 4 --group 32 --acts 8 --text corpus.txt --out model-w4a8/
    """
    import shutil
    from pathlib import Path

    from isoflop import _find

    chosen = _find.get("levers/precision", method)
    try:
        from isoflop.levers.precision import _folder
        from isoflop.levers.precision._work import Work
    except ModuleNotFoundError as error:
        raise ImportError("isoflop quantize needs PyTorch: pip install 'isoflop[torch]'") from error
    target, knobs = _target(wanted), _knobs(settings)
    model, read = _folder.load_model(model_dir)
    found = _folder.windows(read, Path(text), context=context or read.context)
    batches, held = _folder.parted(found, calibration=calibration, heldout=heldout)
    work = Path(out) / ".unfinished"
    made, report = chosen(model, batches, target=target, heldout=held, work=Work(work), **knobs)
    _folder.save_quantised(out, made, report, source=read.folder)
    shutil.rmtree(work, ignore_errors=True)
    warn([report.premise] if report.premise else [])
    emit(as_json, {"out": str(out), **report.plain()}, f"{report}\nin {out}")


def _target(wanted):
    from isoflop.levers.precision._apply import Target

    weights = wanted["weights_format"] or f"int{wanted['bits']}"
    acts = wanted["acts_format"] or (f"int{wanted['acts']}" if wanted["acts"] < 16 else None)
    if acts and acts.startswith("int") and int(acts[3:]) > 8:
        raise ValueError(f"--acts {wanted['acts']}: whole numbers have 2 to 8 bits; 16 leaves inputs as they are")
    return Target(
        weights, wanted["group"], acts=acts, act_range=wanted["act_range"], skip=tuple(wanted["skip"]),
        fold=not wanted["no_fold"],
    )  # fmt: skip


def _knobs(settings):
    out = {}
    for pair in settings:
        name, sign, value = pair.partition("=")
        try:
            out[name] = json.loads(value)
        except json.JSONDecodeError:
            out[name] = value
        if not sign or not name:
            raise ValueError(f"--set {pair!r}: write NAME=VALUE, as in grid=20")
    if "learning" in out:
        from isoflop.levers.precision._reconstruct import Learning

        out["learning"] = Learning(**out["learning"])
    return out
