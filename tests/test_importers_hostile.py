"""Importers and files that could do harm or are broken: nothing of them is run, and one sentence says why."""

import json
import random
import re
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop import RunsError
from isoflop.importers._import import import_runs
from isoflop.importers._wire import crc32c, fields, masked


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
        ("metrics.csv", b"step,loss\n1,\xff\n", "is not UTF-8 text"),
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
    chunks = (struct.pack("<IHB", zlib.crc32(b"\x01" + record), len(record), 1) + record for record in records)
    return b":W&B\xe1\xbe\x00" + b"".join(chunks)


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
