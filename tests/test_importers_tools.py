"""Importers on files that the tools themselves wrote, each by its own package in a process of its own."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from isoflop import read
from isoflop.importers._import import import_runs


def write(script, folder, *packages, **env):
    """Run a script that writes with a tool's package; skip where a package is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, cwd=folder, timeout=240,
        env=os.environ | {"HOME": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---- Weights & Biases ------------------------------------------------------------------------------------------------

WANDB = """
import sys, wandb
for name, width in (("small", 64), ("large", 128)):
    config = {"n_params": width * 1000, "model": {"n_embd": width}, "total_batch_size": 8, "seed": 3,
              "note": "x" * 40000}
    with wandb.init(project="p", dir=sys.argv[1], name=name, mode="offline", config=config,
                    settings=wandb.Settings(x_disable_stats=True, silent=True)) as run:
        for step in range(0, 1000, 10):
            run.log({"train/loss": 5 - step / 1000, "train/tokens": step * 1024, "iter": step, "lr": 1e-3})
            if step % 250 == 0:
                run.log({"eval/loss": 5.5 - step / 1000, "iter": step, "eval/accuracy": 0.25})
        if name == "large":
            run.log({"eval/loss": float("nan"), "iter": 1000})
"""


@pytest.fixture(scope="module")
def wandb_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandb")
    write(WANDB, folder, "wandb")
    return folder


def test_wandb_offline_runs(wandb_folder, tmp_path):
    done = import_runs(wandb_folder)
    assert done.report["kind"] == "wandb"
    small, large = (done.runs.set_index("run").loc[name] for name in ("small", "large"))
    assert (small.params, small.width, small.seed, small.status) == (64000, 64, 3, "ok")
    assert (small.step, small.loss, small.tokens) == (750, 4.75, 750 * 1024)
    assert small.flops == 6 * small.params * small.tokens
    assert (large.status, math.isnan(large.loss)) == ("failed", True)
    curve = done.curves.query("run == 'small'")
    assert curve.step.tolist() == [0, 250, 500, 750]
    assert curve.loss.tolist() == [5.5, 5.25, 5.0, 4.75]
    assert curve.train_loss.tolist() == [5.0, 4.75, 4.5, 4.25]
    assert done.report["columns"]["tokens"] == {"history train/tokens": 2}
    assert done.report["not_mapped"]["settings"] == ["total_batch_size", "note"]
    done.write(tmp_path / "out")
    assert read(tmp_path / "out" / "runs.csv").run.tolist() == done.runs.run.tolist()


def test_wandb_file_cut_anywhere_gives_what_came_before(wandb_folder, tmp_path):
    path = min(wandb_folder.rglob("*.wandb"))
    data = path.read_bytes()
    for share in (0.6, 0.8, 0.95):
        (tmp_path / "cut.wandb").write_bytes(data[: int(len(data) * share)])
        logged = import_runs(tmp_path / "cut.wandb")
        assert any("ends early" in note for note in logged.report["notes"])
        assert logged.runs.status.tolist() == ["unfinished"]
    damaged = bytearray(data)
    damaged[len(data) * 3 // 4] ^= 1
    (tmp_path / "cut.wandb").write_bytes(damaged)
    assert any("checksum" in note for note in import_runs(tmp_path / "cut.wandb").report["notes"])


# ---- MLflow ----------------------------------------------------------------------------------------------------------

MLFLOW = """
import sys, mlflow
for uri in (f"sqlite:///{sys.argv[1]}/mlflow.db", f"file://{sys.argv[1]}/mlruns"):
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("ladder")
    with mlflow.start_run(run_name="small"):
        mlflow.log_params({"n_params": 1234567, "batch_tokens": 4096, "seed": 1})
        for step in range(0, 100, 10):
            mlflow.log_metric("val/loss", 5 - step / 100, step=step)
    with mlflow.start_run(run_name="gone") as gone:
        pass
    mlflow.delete_run(gone.info.run_id)
    try:
        with mlflow.start_run(run_name="broken"):
            mlflow.log_metric("val/loss", float("nan"), step=3)
            raise RuntimeError
    except RuntimeError:
        pass
"""


@pytest.fixture(scope="module")
def mlflow_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    write(MLFLOW, folder, "mlflow", "sqlalchemy", MLFLOW_ALLOW_FILE_STORE="true")
    return folder


def check_mlflow(done):
    assert done.report["kind"] == "mlflow"
    runs = done.runs.set_index("run")
    assert sorted(runs.index) == ["broken", "small"]
    assert runs.status.to_dict() == {"small": "ok", "broken": "failed"}
    small = runs.loc["small"]
    assert (small.params, small.loss, small.step, small.tokens) == (1234567, 4.1, 90, 90 * 4096)
    assert small.tokens_source == "step x batch_tokens"
    assert done.curves.loss.tolist() == [5 - step / 100 for step in range(0, 100, 10)]


@pytest.mark.parametrize("store", ["mlflow.db", "mlruns"])
def test_mlflow_stores(mlflow_folder, store):
    check_mlflow(import_runs(mlflow_folder / store))


@pytest.fixture
def mlflow_server(mlflow_folder):
    if importlib.util.find_spec("flask_cors") is None:
        pytest.skip("mlflow's server needs flask-cors")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{mlflow_folder}/mlflow.db"], cwd=mlflow_folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.skip("mlflow's server does not start here")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def test_mlflow_server(mlflow_server):
    check_mlflow(import_runs(mlflow_server))
    check_mlflow(import_runs(f"{mlflow_server}#ladder"))
    with pytest.raises(ValueError, match="has no experiment 'nope'"):
        import_runs(f"{mlflow_server}#nope")


# ---- Hugging Face Trainer, TensorBoard, Lightning --------------------------------------------------------------------

TRAINER = """
import sys, torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
torch.set_num_threads(1)
model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2))
ids = torch.randint(0, 64, (64, 16), generator=torch.Generator().manual_seed(0))
data = [{"input_ids": row, "labels": row} for row in ids]
for name, counted in (("counted", True), ("plain", False)):
    args = TrainingArguments(output_dir=f"{sys.argv[1]}/{name}", max_steps=20, per_device_train_batch_size=4,
                             logging_steps=5, eval_strategy="steps", eval_steps=10, save_strategy="steps",
                             save_steps=10, report_to=[], use_cpu=True, disable_tqdm=True,
                             include_num_input_tokens_seen=counted)
    Trainer(model=model, args=args, train_dataset=data, eval_dataset=data[:8]).train()
"""


def test_hugging_face_trainer(tmp_path):
    write(TRAINER, tmp_path, "transformers", "accelerate", "torch")
    done = import_runs(tmp_path)
    assert done.report["kind"] == "trainer_state"
    runs = done.runs.set_index("run")
    assert sorted(runs.index) == ["counted", "plain"]  # of two checkpoints each the later
    assert runs.tokens.tolist() == [20 * 4 * 16] * 2  # logged in one, from total_flos in the other
    assert runs.tokens_source.to_dict() == {
        "counted": "history num_input_tokens_seen", "plain": "total_flos / (6 x params outside nn.Embedding)"
    }  # fmt: skip
    assert set(runs.params) == {8128}
    assert set(runs.params_source) == {"config.json"}
    assert set(runs.status) == {"ok"}
    assert done.curves.step.tolist() == [10, 20, 10, 20]
    assert done.curves.tokens.tolist() == [640, 1280, 640, 1280]
    assert done.curves.train_loss.notna().all()
    assert any("tokens was counted in 2 ways" in note for note in done.report["notes"])


TENSORBOARD = """
import sys
from torch.utils.tensorboard import SummaryWriter
first = SummaryWriter(f"{sys.argv[1]}/a")
for step in range(0, 100, 10):
    first.add_scalar("loss/val", 5 - step / 100, step)
    first.add_scalar("loss/train", 4 - step / 100, step)
first.add_hparams({"lr": 0.1, "n_params": 1000, "batch_tokens": 512, "name": "x", "tied": True}, {"hp/loss": 4.0})
first.add_text("note", "hello")
first.add_histogram("weights", __import__("torch").arange(10.0), 0)
first.close()
second = SummaryWriter(f"{sys.argv[1]}/b")
for step in range(0, 100, 10):
    second.add_scalar("loss/val", 5 - step / 100, step, new_style=True)
second.close()
"""


@pytest.fixture(scope="module")
def tensorboard_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    write(TENSORBOARD, folder, "torch", "tensorboard")
    return folder


def test_tensorboard(tensorboard_folder):
    done = import_runs(tensorboard_folder)
    a, b = (done.runs.set_index("run").loc[name] for name in "ab")
    assert (a.params, a.batch_tokens, a.tokens, a.step) == (1000, 512, 90 * 512, 90)
    assert (a.loss, b.loss) == (pytest.approx(4.1), pytest.approx(4.1))
    assert a.train_loss == pytest.approx(3.1)
    assert len(done.curves) == 20
    assert sorted(done.report["not_mapped"]["settings"]) == ["lr", "name", "tied"]


def test_tensorboard_damage(tensorboard_folder, tmp_path):
    path = max(tensorboard_folder.rglob("b/events*"))
    data, copy = path.read_bytes(), tmp_path / path.name
    copy.write_bytes(data[:-20])
    assert any("cut off" in note for note in import_runs(copy).report["notes"])
    copy.write_bytes(data[:-30] + b"x" + data[-29:])
    assert any("checksum" in note for note in import_runs(copy).report["notes"])


LIGHTNING = """
import sys, torch, lightning
from lightning.pytorch.loggers import CSVLogger
torch.set_num_threads(1)
class Model(lightning.LightningModule):
    def __init__(self, width=8, betas=(0.9, 0.95), n_params=123, activation=torch.nn.ReLU, lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)
    def loss(self, batch):
        return self.layer(batch[0]).pow(2).mean() + 1
    def training_step(self, batch, i):
        self.log("train_loss", self.loss(batch))
        self.log("tokens", float((self.global_step + 1) * 64))
        return self.loss(batch)
    def validation_step(self, batch, i):
        self.log("val_loss", self.loss(batch))
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.hparams.lr)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 4)), batch_size=8)
trainer = lightning.Trainer(max_steps=24, logger=CSVLogger(sys.argv[1]), log_every_n_steps=4, val_check_interval=8,
                            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                            accelerator="cpu")
trainer.fit(Model(), data, data)
"""


def test_lightning_csv(tmp_path):
    write(LIGHTNING, tmp_path, "lightning", "torch")
    done = import_runs(tmp_path)
    assert done.report["kind"] == "lightning"
    row = done.runs.iloc[0]
    assert (row.params, row.width, row.step, row.tokens) == (123, 8, 23, 24 * 64)
    assert done.curves.step.tolist() == [7, 15, 23]
    assert done.curves.loss.is_monotonic_decreasing
    assert done.report["columns"]["loss"] == {"history val_loss, held-out": 1}


# ---- evaluation harnesses --------------------------------------------------------------------------------------------

HARNESS = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
rows = [json.dumps({"q": f"q{i}?", "a": i % 2}) for i in range(6)]
(folder / "toy.jsonl").write_text("\\n".join(rows))
(folder / "toy.yaml").write_text('''task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc}, {metric: acc_norm}]
''' % (folder / "toy.jsonl"))
sys.argv = ["lm_eval", "--model", "dummy", "--tasks", "toy", "--include_path", str(folder), "--output_path",
            str(folder / "out"), "--log_samples"]
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""


def test_lm_evaluation_harness(tmp_path):
    write(HARNESS, tmp_path, "lm_eval", "datasets", HF_DATASETS_OFFLINE="1")
    done = import_runs(tmp_path / "out")
    assert done.report["kind"] == "lm_eval"
    (row,) = done.rows
    said = json.loads(min((tmp_path / "out").rglob("results*.json")).read_text())["results"]["toy"]
    assert (row["accuracy"], row["accuracy_se"]) == (said["acc,none"], said["acc_stderr,none"])
    assert (row["acc_norm"], row["problems"], row["task"]) == (said["acc_norm,none"], 6, "toy")
    (samples,) = done.samples.values()
    assert sum(s["correct"] for s in samples) / 6 == row["accuracy"]
    alone = import_runs(min((tmp_path / "out").rglob("samples*.jsonl"))).rows[0]  # without results: from the samples
    assert (alone["accuracy"], alone["accuracy_se"]) == (
        pytest.approx(row["accuracy"]),
        pytest.approx(row["accuracy_se"]),
    )


INSPECT = """
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate
def answer(text):
    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=5, output_tokens=7, total_tokens=12)
    return output
model = get_model("mockllm/model", custom_outputs=[answer("4")] * 12)
data = [Sample(input="2+2", target="4", id="a"), Sample(input="2+3", target="5", id="b")]
task = Task(dataset=data, solver=[generate()], scorer=match(), name="sums")
for form in ("eval", "json"):
    eval(task, model=model, log_dir=sys.argv[1], log_format=form, display="none", epochs=2)
"""


def test_inspect(tmp_path):
    write(INSPECT, tmp_path, "inspect_ai", "zstandard")
    done = import_runs(tmp_path)
    assert done.report["kind"] == "inspect"
    assert len(done.rows) == 2  # the same evaluation, as zip and as JSON
    for row in done.rows:
        assert (row["accuracy"], row["problems"], row["samples"], row["status"]) == (0.5, 2, 2, "ok")
        assert (row["gen_tokens"], row["prompt_tokens"]) == (14, 10)
    assert [s["correct"] for s in next(iter(done.samples.values()))] == [1.0, 0.0, 1.0, 0.0]
    done.write(tmp_path / "out")
    from isoflop.levers.think._sample_files import chunks_of

    replayed = [c for chunk in chunks_of(str(tmp_path / "out"), {}, set()) for c in chunk.cells["correct"]]
    assert replayed == [1.0, 0.0] * 4  # both epochs of both logs
