"""Model folders, the verb `quantize`, and sweeps over precision."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors")

from _precision_models import (  # noqa: E402
    gpt,
    hugging_face,
    ids,
    one_thread,  # noqa: F401
)

from isoflop import _find  # noqa: E402
from isoflop._lever import check_lever, sweep  # noqa: E402
from isoflop.levers.precision import Precision  # noqa: E402
from isoflop.levers.precision._apply import Target, target  # noqa: E402
from isoflop.levers.precision._folder import load_model, load_quantised, parted, save_quantised, windows  # noqa: E402
from isoflop.levers.precision._sites import outputs  # noqa: E402
from isoflop.levers.train._shape import Shape  # noqa: E402


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(ids(1, 1500).reshape(-1).tolist()))
    return path


@pytest.fixture
def own(tmp_path):
    """A ladder model as isoflop exports it."""
    from isoflop.levers.think._model_files import save_model

    shape = Shape(width=24, depth=2, vocab=40)
    weights = {name: p.detach().numpy() for name, p in gpt().named_parameters()}
    save_model(tmp_path / "own", weights, shape=shape, facts={"context": 16, "tokenizer": "bytes"})
    return tmp_path / "own"


def test_the_verb_quantises_and_what_it_wrote_computes_the_same(run, own, text, tmp_path):
    out = tmp_path / "out"
    said = run.json("quantize", own, "--method", "smooth_rot", "--bits", 4, "--group", 8, "--acts", 8, "--text", text,
                    "--out", out, "--set", "where=all", "--calibration", 4, "--heldout", 8)  # fmt: skip
    assert said["arithmetic"] == "simulated"
    assert said["bits_acts"] > 8
    assert not (out / ".unfinished").exists()
    model, read = load_model(own)
    found = windows(read, text, context=16)
    batches, held = parted(found, calibration=4, heldout=8)
    made, report = _find.get("levers/precision", "smooth_rot")(
        model, batches, target=target(4, 8, group=8), heldout=held, where="all"
    )
    loaded, _ = load_quantised(out)
    assert torch.equal(outputs(loaded, held[:, :-1]), outputs(made, held[:, :-1]))
    assert said["loss"] == pytest.approx(report.loss)
    facts = json.loads((out / "quantization.json").read_text())
    assert facts["arithmetic"] == "simulated"
    assert facts["loads_as_is"] is False


def test_a_hugging_face_folder_goes_in_and_out(text, tmp_path):
    transformers = pytest.importorskip("transformers")
    hugging_face("Llama", num_key_value_heads=2, tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    model, read = load_model(tmp_path / "model")
    batches, held = parted(windows(read, text, context=16), calibration=4, heldout=8)
    made, report = _find.get("levers/precision", "awq")(model, batches, target=Target("nvfp4", fold=True))
    save_quantised(tmp_path / "out", made, report, source=tmp_path / "model")
    loaded, _ = load_quantised(tmp_path / "out")
    assert torch.equal(outputs(loaded, held), outputs(made, held))
    plain_awq, report = _find.get("levers/precision", "round_nearest")(model, batches, target=Target("int4", 8))
    save_quantised(tmp_path / "as_is", plain_awq, report, source=tmp_path / "model")
    assert json.loads((tmp_path / "as_is" / "quantization.json").read_text())["loads_as_is"]
    by_theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "as_is").eval()
    assert torch.equal(outputs(by_theirs, held).detach(), outputs(plain_awq, held))


def test_the_door_is_shut_to_pickles_and_strangers(run, text, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "bad" / "pytorch_model.bin").write_bytes(b"pickle")
    for folder, says in ((tmp_path / "bad", "can run code"), (tmp_path / "no", "no folder")):
        done = run("quantize", folder, "--text", text, "--out", tmp_path / "o", code=2)
        assert says in done.stderr
        assert not (tmp_path / "o" / "model.safetensors").exists()


TRAIN = {
    "source": "zipf_words", "source_settings": {"words": 64, "exponent": 1.0, "word_length": 4, "letters": 8},
    "sizes": [{"width": 8, "depth": 1}], "tokens": [640], "context": 16, "batch_tokens": 64, "warmup_steps": 3,
    "eval_tokens": 1024, "curve_tokens": 256, "device": "cpu",
}  # fmt: skip
LEVER = Precision(
    train=TRAIN, methods=("round_nearest", {"name": "awq", "label": "awq_4", "grid": 4}, "runtime_smooth"),
    bits=((3, 16), (8, 8)), group=8, calibration_windows=4, heldout_windows=16,
)  # fmt: skip


def test_the_lever_keeps_its_contract_and_its_ladder_climbs():
    assert [(s["bits_weights"], s["label"]) for s in LEVER.ladder()] == [
        (3, "round_nearest"), (3, "awq_4"), (8, "round_nearest"), (8, "awq_4"), (8, "runtime_smooth"),
    ]  # fmt: skip
    report = check_lever(LEVER, dear=2)
    assert report.repeats, report.problems


def test_a_sweep_over_bits_returns_runs(tmp_path):
    rows = sweep(LEVER, out=tmp_path, progress=False)
    assert list(rows["status"]) == ["ok"] * 5
    assert (rows["loss"] - rows["loss_before"]).to_numpy() == pytest.approx(rows["loss_increase"].to_numpy())
    assert rows["loss_before"].nunique() == 1
    mean = rows.groupby("bits_weights")["loss_increase"].mean()
    assert abs(mean[8]) < abs(mean[3])
    assert set(rows["tokens"]) == {640}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('methds = ["awq"]', "did you mean 'methods'"),
        ('folder = "m"', "needs text"),
        ("", "give either train"),
        ('methods = ["awk"]\n[train]\ndevice = "cpu"', "did you mean awq"),
        ("bits = [[4]]\n[train]\ndevice = 'cpu'", "give pairs"),
        ("[train]\nwidth = 3", "unknown key in train"),
    ],
)
def test_a_wrong_sweep_file_is_told_so(tmp_path, table, says):
    path = tmp_path / "sweep.toml"
    path.write_text(table)
    with pytest.raises(ValueError, match=says):
        Precision.from_toml(path)


def test_one_trained_model_can_be_swept_from_its_folder(own, text, tmp_path):
    lever = Precision(
        folder=str(own), text=str(text), methods=("round_nearest",), bits=((3, 16), (8, 8)), group=8,
        calibration_windows=4, heldout_windows=8,
    )  # fmt: skip
    rows = sweep(lever, out=tmp_path / "runs", progress=False)
    assert list(rows["status"]) == ["ok", "ok"]
    assert abs(rows["loss_increase"][1]) < abs(rows["loss_increase"][0])
    text.write_bytes(text.read_bytes()[::-1])
    with pytest.raises(ValueError, match="facts"):
        sweep(lever, out=tmp_path / "runs", progress=False)
