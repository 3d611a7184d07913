"""Rotations of the residual stream, folded into the weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors")

from _precision_models import MODELS, changed, hugging_face, ids, one_thread, quantise  # noqa: E402, F401

from isoflop.levers.precision._apply import Target, target  # noqa: E402
from isoflop.levers.precision._folder import load_quantised, save_quantised  # noqa: E402
from isoflop.levers.precision._linear import QuantLinear  # noqa: E402
from isoflop.levers.precision._residual import rotate_residual  # noqa: E402
from isoflop.levers.precision._sites import outputs  # noqa: E402

STREAM = {"ladder": MODELS["ladder"], "llama": MODELS["grouped heads"], "qwen2": MODELS["qwen2"]}
STREAM["tied"] = lambda: hugging_face("Llama", tie_word_embeddings=True)


def scaled(model):
    """Gains and biases moved off 1 and 0, so that folding them is seen."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if "norm" in name or "bias" in name:
            p.data.add_(torch.rand(p.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", STREAM)
def test_the_function_is_the_same_and_the_stream_is_mixed(name):
    model = scaled(STREAM[name]())
    before = outputs(model, ids()).detach()
    made, names = rotate_residual(model, ids())
    assert changed(before, outputs(made, ids())) < 1e-5
    assert changed(before, outputs(model, ids())) == 0
    assert len(names) == 10  # five readers of the stream in each of two blocks


@pytest.mark.parametrize("name", ["gemma", "neox", "gpt2"])
def test_other_families_are_left_alone(name):
    """Gemma's norms multiply by 1 + weight, and a LayerNorm does not commute with a rotation."""
    model = MODELS[name]()
    assert rotate_residual(model, ids()) is None
    report = quantise("smooth_rot", model, target(4, 8, group=8))[1]
    assert report.knobs["residual"] is False


@pytest.mark.parametrize("method", ["smooth_rot", "runtime_smooth"])
def test_only_the_rotations_outside_the_stream_stay_at_run_time(method):
    model, wanted = scaled(STREAM["llama"]()), Target("fp32", acts="fp32")
    before = outputs(model, ids()).detach()
    made, folded = quantise(method, model, wanted)
    online = quantise(method, model, wanted, residual=False)[1]
    assert changed(before, outputs(made, ids())) < 1e-5
    left = {name.split(".")[-1] for name, m in made.named_modules() if isinstance(m, QuantLinear) and m.rotated}
    assert left == {"o_proj", "down_proj"}
    assert folded.extra_flops < online.extra_flops
    assert quantise(method, model, Target("fp32", acts="fp32", fold=False))[1].knobs["residual"] is False


def test_a_model_that_reads_its_stream_elsewhere_is_found_out():
    model = STREAM["llama"]()
    model.model.layers[0].register_forward_hook(lambda module, args, out: out.relu())
    with pytest.raises(ValueError, match="give residual=False"):
        quantise("smooth_rot", model, target(4, 4, group=8))


def test_scales_at_every_site_keep_their_rotations_at_run_time():
    made, report = quantise("smooth_rot", STREAM["llama"](), target(4, 4, group=8), where="all")
    assert report.knobs["residual"] is False
    assert all(m.rotated for m in made.modules() if isinstance(m, QuantLinear))


def test_a_rotated_model_with_a_tied_output_layer_goes_through_a_folder(tmp_path):
    model = scaled(STREAM["tied"]())
    model.save_pretrained(tmp_path / "model")
    made, report = quantise("smooth_rot", model, target(4, 8, group=8))
    save_quantised(tmp_path / "out", made, report, source=tmp_path / "model")
    own = model.get_output_embeddings().weight.numel()  # the output layer has a matrix of its own now
    assert report.bytes - quantise("smooth_rot", model, target(4, 8, group=8), residual=False)[1].bytes == 2 * own
    read, _ = load_quantised(tmp_path / "out")
    assert torch.equal(outputs(made, ids()), outputs(read, ids()))
