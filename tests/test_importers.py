"""Importers: what is mapped to what, how N, D and C are counted, and what bad input is told."""

import http.server
import json
import random
import re
import stat
import struct
import threading
import urllib.parse
import zipfile

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop import RunsError, _find, read
from isoflop.importers import log as log_module
from isoflop.importers._import import import_runs
from isoflop.importers._importer import Importer, Logged, get_importer, importer
from isoflop.importers._names import pick
from isoflop.importers._wire import crc32c, fields, masked

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


# ---- hostile and broken files ----------------------------------------------------------------------------------------


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in entries.items():
            out.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"../../x.json": "{}"}, "holds an entry outside itself"),
        ({"/etc/x": "{}"}, "holds an entry outside itself"),
        ({"C:\\x": "{}"}, "holds an entry outside itself"),
        ({"header.json": b"0" * (1 << 25)}, "is a zip bomb"),
        ({"header.json": "{"}, "is not JSON"),
        ({"header.json": "[]"}, "says nothing of its evaluation"),
        ({"x": "{}"}, "holds no _journal/start.json"),
        ({"header.json": '{"eval": {}, "results": {"scores": 3}}'}, "is not laid out as inspect writes it"),
    ],
)
def test_archives_that_could_do_harm_are_refused(tmp_path, entries, said):
    if b"0" * (1 << 25) in entries.values():
        path = tmp_path / "a.eval"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as out:
            out.writestr("header.json", entries["header.json"])
    else:
        path = zipped(tmp_path / "a.eval", entries)
    with pytest.raises(RunsError, match=re.escape(said)):
        import_runs(path)


def test_links_are_not_followed(tmp_path):
    info = zipfile.ZipInfo("header.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(RunsError, match="holds a link"):
        import_runs(tmp_path / "a.eval")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trainer_state.json").symlink_to(tmp_path / "a.eval")
    with pytest.raises(RunsError, match="of no kind that is recognised"):
        import_runs(tmp_path / "runs")


def lightning(folder, yaml, metrics="step,val_loss\n1,2.0\n"):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.csv").write_text(metrics)
    (folder / "hparams.yaml").write_text(yaml)
    return folder


def test_yaml_makes_no_objects(tmp_path):
    pytest.importorskip("yaml")
    harm = f"!!python/object/apply:os.mkdir ['{tmp_path}/made']"
    done = import_runs(lightning(tmp_path / "a", f"x: {harm}\nn_params: 5\nbetas: !!python/tuple [0.9, 0.95]\n"))
    assert not (tmp_path / "made").exists()
    assert done.rows[0]["params"] == 5
    bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert import_runs(lightning(tmp_path / "a", bomb)).rows  # lists are left out, so it stays small
    bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 10)
    )
    with pytest.raises(RunsError, match="more than 20000 settings"):
        import_runs(lightning(tmp_path / "a", bomb))
    merges = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], y: 1}}\n" for i in range(1, 10))
    with pytest.raises(RunsError, match="a merge key"):
        import_runs(lightning(tmp_path / "a", "a0: &a0 {x: 1}\n" + merges))
    with pytest.raises(RunsError, match="is not YAML that can be read"):
        import_runs(lightning(tmp_path / "a", "a: [1\nb: }"))
    with pytest.raises(RunsError, match="is not YAML that can be read"):
        import_runs(lightning(tmp_path / "a", "[" * 5000))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("trainer_state.json", b"{", "is not JSON"),
        ("trainer_state.json", b"[" * 100_000, "nested too deeply"),
        ("trainer_state.json", b'{"log_history": 3}', "has no log_history"),
        ("trainer_state.json", b"\xff\xfe", "not UTF-8"),
        ("metrics.csv", b"epoch,loss\n1,2\n", "has no column step"),
        ("x.wandb", b"not one", "is no .wandb file that can be read: it does not begin as one"),
        ("x.wandb", b":W&B\xe1\xbe\x00" + b"\x01" * 40, "is no .wandb file that can be read"),
        ("events.out.tfevents.1", b"x" * 40, "checksum of a record's length is wrong"),
        ("events.out.tfevents.1", b"", "hold no scalars"),
        ("a.eval", b"PK", "is no whole zip file"),
        ("samples_t_2026-01-01T00-00-00.1.jsonl", b"{}\n", "line 1 is no sample"),
        ("results_x.json", b'{"results": []}', "holds no results"),
        ("mlflow.db", b"nothing", "of no kind that is recognised; give --kind, one of wandb, mlflow"),
    ],
)
def test_broken_files_are_told_in_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunsError, match=re.escape(said)):
        import_runs(tmp_path / name)


@given(st.randoms(use_true_random=False), st.sampled_from(["eval", "tfevents", "wandb"]))
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_never_do_more_than_say_so(tmp_path_factory, chance: random.Random, kind):
    """Any byte changed or cut: what is left is read, or one sentence is raised."""
    data = bytearray(_sample_bytes(kind, tmp_path_factory))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    data = data[: chance.randint(1, len(data))]
    name = {"eval": "a.eval", "tfevents": "events.out.tfevents.1", "wandb": "a.wandb"}[kind]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(data)
    said = ""
    try:
        import_runs(path)
    except RunsError as error:
        said = str(error)
    assert said.isprintable()


def message(*parts):
    """A protobuf message of (number, bytes or int or float) fields."""
    out = b""
    for number, value in parts:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _sample_bytes(kind, tmp_path_factory):
    if kind == "eval":
        sample = {"id": "a", "scores": {"m": {"value": "C"}}, "model_usage": {}}
        head = {"eval": {"task": "t", "model": "m"}, "status": "success"}
        path = tmp_path_factory.mktemp("whole") / "a.eval"
        return zipped(path, {"samples/a.json": json.dumps(sample), "header.json": json.dumps(head)}).read_bytes()
    if kind == "tfevents":
        events = [message((2, step), (5, message((1, message((1, b"val_loss"), (2, 2.5)))))) for step in range(5)]
        return b"".join(framed(event) for event in events)
    records = [message((17, message((1, b"id"), (8, b"name"))))]
    for step in range(5):
        items = [message((1, b"val_loss"), (16, b"2.5")), message((1, b"_step"), (16, str(step).encode()))]
        records.append(message((2, message(*((1, item) for item in items)))))
    chunks = (struct.pack("<IHB", _crc(record), len(record), 1) + record for record in records)
    return b":W&B\xe1\xbe\x00" + b"".join(chunks)


def _crc(record):
    import zlib

    return zlib.crc32(b"\x01" + record)


def framed(data):
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked(crc32c(head))) + data + struct.pack("<I", masked(crc32c(data)))


def test_undamaged_bytes_are_read(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for kind, name in (("tfevents", "events.out.tfevents.1"), ("wandb", "a.wandb")):
        (folder / name).write_bytes(_sample_bytes(kind, tmp_path_factory))
        assert import_runs(folder / name).curves.loss.tolist() == [2.5] * 5


@given(st.lists(st.tuples(st.integers(1, 1000), st.one_of(st.binary(max_size=300), st.integers(0, 2**63 - 1)))))
def test_protobuf_fields_come_back(parts):
    assert list(fields(message(*parts))) == parts


def test_crc32c_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283  # the check value that RFC 3720's polynomial is known by


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
