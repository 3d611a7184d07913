"""Importers: what is mapped to what, how N, D and C are counted, and what bad input is told."""

import http.server
import json
import re
import sys
import threading
import types
import urllib.parse

import pytest
from conftest import ROOT

from isoflop import RunsError, _find, read
from isoflop.importers import log as log_module
from isoflop.importers._import import import_runs
from isoflop.importers._importer import Importer, Logged, get_importer, importer
from isoflop.importers._names import pick

MODEL = {"model_type": "llama", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "tie_word_embeddings": False}  # fmt: skip
EXPERTS = {"model_type": "mixtral", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 32,
           "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4,
           "num_experts_per_tok": 1}  # fmt: skip


@pytest.mark.parametrize("name", _find.names("importers"))
def test_every_file_is_an_importer_that_is_documented(name):
    found = get_importer(name)
    assert isinstance(found, Importer)
    assert found.name == name
    assert found.formula.endswith((".", ":", "'"))
    assert f"## {name}\n" in (ROOT / "docs" / "import.md").read_text()


def test_the_document_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "import.md").read_text(), flags=re.DOTALL)
    assert blocks
    scope = {}
    for block in blocks:
        exec(block, scope)


def runs_json(path, *runs):
    path.write_text(json.dumps([{"name": f"r{i}", "state": "finished", "summary": {}} | r for i, r in enumerate(runs)]))
    return path


def history(*rows):
    return [{"_step": i, **row} for i, row in enumerate(rows)]


def row_of(tmp_path, run, **how):
    done = import_runs(runs_json(tmp_path / "export.json", run), **how)
    return done.rows[0], done


# ---- mapping and counting --------------------------------------------------------------------------------------------


def test_tokens_at_a_point_between_two_logged_ones(tmp_path):
    logged = history(*({"iter": 10 * i, "tokens": 1000 * i} for i in range(1, 4)), {"iter": 25, "val_loss": 3.0},
                     {"iter": 35, "val_loss": 2.5}, {"iter": 50, "val_loss": 2.0})  # fmt: skip
    row, done = row_of(tmp_path, {"config": {}, "history": logged})
    assert [p["tokens"] for p in done.points[:2]] == [2500, 3500]  # 35 is within one gap of the last, 50 is not
    assert done.curves.tokens.isna().tolist() == [False, False, True]
    assert row["loss"] == 2.0


def test_tokens_need_the_optimisers_steps(tmp_path):
    config = {"batch_tokens": 100}
    rows = history({"val_loss": 3.0}, {"val_loss": 2.0})
    row, done = row_of(tmp_path, {"config": config, "history": rows})
    assert "tokens" not in row
    assert any("--map step=_step" in note for note in done.report["notes"])
    assert done.report["missing"] == {"params": 1, "tokens": 1, "flops": 1}
    row, _ = row_of(tmp_path, {"config": config, "history": rows}, names={"step": "_step"})
    assert (row["tokens"], row["tokens_source"]) == (100, "step x batch_tokens")


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"global_batch_size": 8, "seq_len": 32}, 8 * 32),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "world_size": 4, "seq_len": 32}, 24 * 32),
        ({"per_device_train_batch_size": 2, "seq_len": 32}, None),  # on how many devices?
        ({"batch_size": 2, "gradient_accumulation_steps": 3, "seq_len": 32}, None),  # with or without accumulation?
        ({"train": {"batch_size": 2}, "data": {"seq_len": 32}}, 64),
        ({"global_batch_size": 8}, None),
        ({"tokens_per_step": "1.5k", "seq_len": 7}, 1500),
    ],
)
def test_tokens_a_step(tmp_path, config, tokens):
    row, _ = row_of(tmp_path, {"config": config, "history": history({"step": 2, "val_loss": 3.0})})
    assert row.get("batch_tokens") == tokens
    assert row.get("tokens") == (None if tokens is None else 2 * tokens)


def test_parameters_from_a_model_config_and_flops_of_experts(tmp_path):
    logged = history({"step": 1, "val_loss": 3.0, "tokens": 1e6, "train/total_flos": 1.0})
    row, _ = row_of(tmp_path, {"config": MODEL | {"seq_len": 32}, "history": logged})
    assert (row["params_source"], row["width"], row["depth"]) == ("config.json", 16, 2)
    assert row["flops"] == 1.0  # as the tracker has it
    assert row["flops_per_token"] > 6 * row["params_nonembed"]
    row, done = row_of(tmp_path, {"config": EXPERTS, "history": logged})
    assert row["params_active"] < row["params"]
    assert row["flops"] == 6 * row["params_active"] * 1e6
    assert row["flops_source"] == "train_flops(params_active)"
    assert any("all experts" in note for note in done.report["notes"])
    row, done = row_of(tmp_path, {"config": MODEL | {"n_params": 5}, "history": logged})
    assert row["params"] == 5
    assert any("counted from config.json; the recorded one stays" in note for note in done.report["notes"])


def test_losses_are_not_mixed(tmp_path):
    held_out = {"config": {}, "history": history({"step": 1, "val_loss": 3.0, "loss": 2.5})}
    training = {"config": {}, "history": history({"step": 1, "loss": 2.0})}
    done = import_runs(runs_json(tmp_path / "export.json", held_out, training))
    assert [r.get("loss") for r in done.rows] == [3.0, None]
    assert [r.get("train_loss") for r in done.rows] == [2.5, 2.0]
    done = import_runs(runs_json(tmp_path / "export.json", training))
    assert done.rows[0]["loss"] == 2.0
    assert any("no run has a held-out loss" in note for note in done.report["notes"])


def test_a_diverged_run_keeps_its_cost(tmp_path):
    logged = history({"step": 1, "val_loss": 3.0, "tokens": 10}, {"step": 2, "val_loss": "NaN", "tokens": 20})
    row, done = row_of(tmp_path, {"config": {"n_params": 7}, "history": logged})
    assert (row["status"], row["tokens"], row["flops"], row.get("loss")) == ("failed", 20, 6 * 7 * 20, None)
    assert [p["loss"] for p in done.points] == [3.0]


def test_names_and_values_that_the_user_tells(tmp_path):
    run = {"config": {"size": "1.4B"}, "history": history({"it": 3, "ce": 2.0, "acc@1": 0.5})}
    row, done = row_of(
        tmp_path, run, names={"params": "size", "loss": "ce", "step": "it", "top1": "acc@1"}, values={"tokens": 28e9}
    )
    assert (row["params"], row["loss"], row["step"], row["top1"], row["tokens"]) == (1.4e9, 2.0, 3, 0.5, 28e9)
    assert row["flops"] == 6 * 1.4e9 * 28e9
    assert done.report["columns"]["loss"] == {"history ce, as told": 1}
    with pytest.raises(RunsError, match=r"--map loss=cee: no wandb run has 'cee'; closest: 'ce'"):
        row_of(tmp_path, run, names={"loss": "cee"})


def test_a_short_name_counts_only_where_it_is_one():
    assert pick(["width"], ["model.width"], parts=True) == "model.width"
    assert pick(["width"], ["model.width", "head.width"], parts=True) is None
    assert pick(["eval_loss"], ["Eval/Loss"]) == "Eval/Loss"


def test_runs_of_one_name_stay_apart(tmp_path):
    runs = [{"name": "same", "config": {"n_params": n}, "history": history({"step": 1, "val_loss": n})} for n in (1, 2)]
    done = import_runs(runs_json(tmp_path / "export.json", *runs))
    assert len({r["run"] for r in done.rows}) == 2
    assert done.curves.groupby("run").size().tolist() == [1, 1]


# ---- W&B exports, MLflow's answers -----------------------------------------------------------------------------------


def test_wandb_csv_exports(tmp_path):
    (tmp_path / "runs.csv").write_text('"Name","State","n_params","batch_tokens"\n"a","finished","1000","64"\n')
    (tmp_path / "chart.csv").write_text('"Step","a - val/loss","a - val/loss__MIN"\n"10","3.0","2.9"\n"20","2.5","2"\n')
    done = import_runs(tmp_path, names={"step": "_step"})  # a table of runs and a panel's chart are one run
    (row,) = done.rows
    assert (row["params"], row["loss"], row["step"], row["tokens"], row["status"]) == (1000, 2.5, 20, 1280, "ok")
    (tmp_path / "one.csv").write_text("_step,val/loss\n10,3.0\n20,2.5\n")
    assert import_runs(tmp_path / "one.csv").curves.loss.tolist() == [3.0, 2.5]


def test_wandb_summary_alone(tmp_path):
    pytest.importorskip("yaml")
    files = tmp_path / "run-x" / "files"
    files.mkdir(parents=True)
    (files / "wandb-summary.json").write_text('{"val_loss": 2.5, "tokens": 100, "_runtime": 3.5}')
    (files / "config.yaml").write_text("n_params:\n  desc: null\n  value: 10\n_wandb:\n  value: {}\n")
    row = import_runs(tmp_path).rows[0]
    assert (row["run"], row["loss"], row["params"], row["tokens"], row["seconds"]) == ("run-x", 2.5, 10, 100, 3.5)
    assert row["flops"] == 6 * 10 * 100


def test_a_file_of_the_folder_one_is_in(tmp_path, monkeypatch):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"log_history": [{"step": 1, "eval_loss": 2.5}]}')
    (folder / "metrics.csv").write_text("step,val_loss\n1,2.0\n")
    monkeypatch.chdir(folder)
    for source in ("trainer_state.json", "metrics.csv", ".", "../small"):
        assert import_runs(source).rows[0]["run"] == "small"


def test_a_run_that_logged_nothing_is_told(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,val_loss\n0,a,3\n")
    assert any("no row with a step" in note for note in import_runs(tmp_path / "metrics.csv").report["notes"])


@pytest.mark.parametrize(("source", "how", "said"), [
    ("a.log", {"values": {"params": "abc"}}, "--set params=abc: params is a number"),
    ("a.log", {"values": {"tokens": float("nan")}}, "--set tokens=nan: tokens is a number"),
    ("a.log", {"values": {"params": -3.0}}, "--set params=-3: params must be above zero"),
    ("a.log", {"kind": "inspect"}, "is no whole zip file|is not JSON"),
    (".", {"kind": "inspect"}, "holds nothing that --kind inspect reads"),
    ("sqlite:///nothere.db", {}, "no file nothere.db"),
    ("~nobody-is-called-this/x", {}, "cannot read"),
])  # fmt: skip
def test_what_cannot_be_imported_is_one_sentence(tmp_path, monkeypatch, source, how, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.log").write_text(LINES)
    with pytest.raises(RunsError, match=said) as caught:
        import_runs(source, **how)
    assert "\n" not in str(caught.value)


def test_live_wandb_without_an_answer_is_one_sentence(monkeypatch):
    class Error(Exception):
        pass

    def api():
        raise Error("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Api=api, Error=Error))
    with pytest.raises(RunsError, match=r"wandb:a/b gives no runs: No API key configured\. Use `wandb login`"):
        import_runs("wandb:a/b")


def test_live_wandb_needs_a_full_address():
    with pytest.raises(RunsError, match="write wandb:ENTITY/PROJECT"):
        import_runs("wandb:mine")


ANSWERS = {  # as a server of mlflow 3.17 gave them, shortened
    "experiments/search": [{"experiments": [{"experiment_id": "1", "name": "ladder", "lifecycle_stage": "active"}]}],
    "runs/search": [
        {"runs": [{"info": {"run_id": "63", "run_name": "small", "status": "FINISHED", "lifecycle_stage": "active"},
                   "data": {"metrics": [{"key": "val_loss", "value": 4.9, "timestamp": 1, "step": 10}],
                            "params": [{"key": "n_params", "value": "1000"}, {"key": "batch_tokens", "value": "64"}],
                            "tags": []}, "inputs": {}, "outputs": {}}], "next_page_token": "eyJvZmZzZXQiOiAxfQ=="},
        {"runs": [{"info": {"run_id": "39", "run_name": "broken", "status": "FAILED", "lifecycle_stage": "active"},
                   "data": {"metrics": [{"key": "val_loss", "value": "NaN", "timestamp": 1, "step": 3}]}}]},
    ],
    "metrics/get-history": {
        "63": [{"metrics": [{"key": "val_loss", "value": 5.0, "timestamp": 0, "step": 0}], "next_page_token": "x"},
               {"metrics": [{"key": "val_loss", "value": 4.9, "timestamp": 1, "step": 10}]}],
        "39": [{"metrics": [{"key": "val_loss", "value": "NaN", "timestamp": 1, "step": 3}]}],
    },
}  # fmt: skip


class Replay(http.server.BaseHTTPRequestHandler):
    """Answers as recorded, page by page."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._page(ANSWERS[self.path.split("mlflow/")[1]], "page_token" in asked)

    def do_GET(self):
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        self._page(ANSWERS["metrics/get-history"][query["run_id"][0]], "page_token" in query)

    def _page(self, pages, second):
        data = json.dumps(pages[int(second)]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def tracking():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_mlflow_by_its_recorded_answers(tracking):
    done = import_runs(tracking)
    small, broken = done.rows
    assert (small["params"], small["loss"], small["tokens"]) == (1000, 4.9, 640)
    assert broken["status"] == "failed"
    assert done.curves.loss.tolist() == [5.0, 4.9]  # from two pages


def test_no_answer_is_one_sentence():
    with pytest.raises(RunsError, match="is it an MLflow server"):
        import_runs("http://127.0.0.1:9")


# ---- plain logs ------------------------------------------------------------------------------------------------------

LINES = "start\nstep 10 loss=3.5 tokens=1.5M\nstep 20 loss=3.0 tokens=3.0M\n" + "x" * 9000 + "step 30 loss=1\nend\n"
PATTERN = r"step (?P<step>\d+) loss=(?P<loss>\S+) tokens=(?P<tokens>\S+)"


def test_plain_log(tmp_path):
    (tmp_path / "a.log").write_text(LINES)
    done = import_runs(tmp_path / "a.log", pattern=PATTERN)
    assert done.curves[["step", "tokens", "loss"]].to_numpy().tolist() == [[10, 1.5e6, 3.5], [20, 3e6, 3.0]]
    assert any("1 lines of over 4000 characters" in note for note in done.report["notes"])
    both = PATTERN.replace("step ", "(?P<run>st)ep ", 1)
    assert import_runs(tmp_path, "log", pattern=both).rows[0]["run"] == "st"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("loss=(?P<loss>", "is no regular expression"),
        ("loss=(.*)", "names no group for a metric"),
        (r"nothing (?P<loss>\d+)", "matches none of 5 lines"),
        (r"(?P<step>loss)=(?P<loss>\S+)", "the group step matched 'loss', no number"),
        (None, "a plain log needs --pattern"),
    ],
)
def test_a_pattern_that_cannot_work_says_why(tmp_path, pattern, said):
    (tmp_path / "a.log").write_text(LINES)
    with pytest.raises(RunsError, match=re.escape(said)):
        import_runs(tmp_path / "a.log", pattern=pattern)


def test_a_pattern_that_takes_for_ever_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "SECONDS", 1.0)
    (tmp_path / "a.log").write_text("a" * 60 + "\n")
    with pytest.raises(RunsError, match="nested repeats"):
        import_runs(tmp_path / "a.log", pattern="(?P<loss>(a+)+b)")


# ---- the door and the command ----------------------------------------------------------------------------------------


def test_an_importer_of_ones_own(tmp_path):
    @importer(lambda path: path.suffix == ".mine")
    def mine(source):
        """Mine."""
        yield Logged("a", str(source.files[0]), config={"n_params": 3})

    (tmp_path / "x.mine").write_text("")
    code = 'from isoflop.importers._importer import Logged, importer\n@importer()\ndef mine(source):\n    """Mine."""\n'
    (tmp_path / "mine.py").write_text(code + '    yield Logged("a", "x", config={"n_params": 3})\n')
    assert import_runs(tmp_path / "x.mine", kind=f"{tmp_path}/mine.py:mine").rows[0]["params"] == 3
    with pytest.raises(LookupError, match="no importer named 'wandbb'; did you mean wandb"):
        import_runs(tmp_path, kind="wandbb")


def test_the_command_writes_all_or_nothing(run, tmp_path):
    source = runs_json(
        tmp_path / "export.json", {"config": {"n_params": 9}, "history": history({"step": 1, "val_loss": 2})}
    )
    out = tmp_path / "out"
    told = run.json("import", source, "--out", out, "--set", "batch_tokens=0.5M")
    assert told["files"] == ["runs.csv", "curves/curves.csv", "import.json"]
    assert json.loads((out / "import.json").read_text())["columns"]["tokens"] == {"step x batch_tokens": 1}
    assert read(out / "runs.csv").tokens.tolist() == [5e5]
    assert read(out / "curves").loss.tolist() == [2]
    assert run("import", source, "--out", out).stdout.startswith("1 run and 1 checkpoints")  # an import may be replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export.json", "out"]
    (out / "import.json").unlink()
    assert "holds other files than an import's" in run("import", source, "--out", out, code=2).stderr
    assert "write OURS=NUMBER" in run("import", source, "--set", "x", code=2).stderr
    assert "no file or folder" in run("import", tmp_path / "nope", code=2).stderr


def test_a_held_out_loss_that_is_only_a_final_value(tmp_path):
    run = {"config": {}, "summary": {"val_loss": 2.5}, "history": history({"step": 1, "train_loss": 3.0})}
    row, done = row_of(tmp_path, run)
    assert (row["loss"], row["train_loss"], row["step"]) == (2.5, 3.0, 1)
    assert done.report["columns"]["loss"] == {"summary val_loss": 1}
