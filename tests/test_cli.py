"""The command line as other programs use it: real processes, stable JSON, exit codes, one sentence of blame."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import planted_table, write_csv
from test_runs import MALFORMED

import isoflop
from isoflop import _find
from isoflop._cli import main


@pytest.fixture
def runs(tmp_path):
    table = planted_table()
    table["N"] = table.pop("params")
    table["point_id"] = np.arange(len(table["loss"]), dtype=float)
    return write_csv(tmp_path / "runs.csv", table)


@pytest.fixture
def fitted(runs, run, tmp_path):
    run("fit", runs, "--rename", "N=params", "--draws", 40, "--out", tmp_path / "fit.json")
    return tmp_path / "fit.json"


def test_fit_json_is_the_contract(runs, run, tmp_path):
    out = run.json("fit", runs, "--law", "chinchilla", "--rename", "N=params", "--where", "point_id > 4",
                   "--target", "loss", "--objective", "huber_log", "--delta", "1e-3", "--draws", "30", "--seed", "0",
                   "--out", tmp_path / "fit.json")  # fmt: skip
    assert set(out) >= {
        "law", "coef", "interval", "level", "objective", "n", "starts", "agreeing", "warnings",
    }  # fmt: skip
    assert out["law"] == "chinchilla"
    assert set(out["coef"]) == set(out["interval"]) == {"E", "A", "B", "alpha", "beta"}
    assert all(low <= out["coef"][c] <= high for c, (low, high) in out["interval"].items())
    assert out["objective"]["name"] == "huber_log"
    assert out["objective"]["value"] > 0
    assert out["n"] == len(planted_table()["loss"]) - 5
    assert out["level"] == 90
    assert (tmp_path / "fit.json").exists()


def test_allocate_and_forecast_json(fitted, run):
    best = run.json("allocate", fitted, "--flops", "1e24")
    for name in ("params", "tokens", "loss"):
        low, high = best[name]["interval"]
        assert low <= best[name]["median"] <= high
    assert 6 * best["params"]["best"] * best["tokens"]["best"] == pytest.approx(1e24, rel=1e-6)
    assert best["isoflop_profiles"]["params"]["median"] > 0
    out = run.json("forecast", fitted, "--at", "params=70e9", "--at", "tokens=1.4T")
    assert out["loss"]["interval"][0] < out["loss"]["median"] < out["loss"]["interval"][1]
    assert any("decades above" in w for w in out["warnings"])


def test_by_run_makes_a_cluster_bootstrap(run, tmp_path):
    table = planted_table()
    rows = {k: np.repeat(v, 3) for k, v in table.items()}
    rows["run"], rows["step"] = np.repeat(np.arange(len(table["loss"])), 3.0), np.tile([1.0, 2, 3], len(table["loss"]))
    path = write_csv(tmp_path / "runs.csv", {k: np.asarray(v, float) for k, v in rows.items()})
    out = run.json("fit", path, "--by", "run", "--draws", 20)
    assert (out["by"], out["uncertainty"]) == ("run", "cluster bootstrap")


def test_text_goes_to_stdout_and_doubts_to_stderr(fitted, run):
    done = run("forecast", fitted, "--at", "params=70B", "--at", "tokens=1.4T")
    assert done.stdout.split()[:3] == ["median", "90", "%"]
    assert done.stderr.startswith("warning: params 7e+10 is")


def test_stdin(runs, run):
    out = run.json("fit", "-", "--rename", "N=params", "--draws", 0, stdin=runs.read_text())
    assert out["n"] == len(planted_table()["loss"])
    assert out["interval"]["alpha"] == [None, None]


def test_frontier_compare_list_show_check(fitted, runs, run, tmp_path):
    rows = run.json("frontier", fitted, "--flops", "1e20", "--flops", "1e22")["rows"]
    assert [r["flops"] for r in rows] == [1e20, 1e22]
    assert run.json("frontier", runs)["rows"][0]["flops"] > 0
    ranking = run.json("compare", runs, "--rename", "N=params", "--law", "chinchilla", "--law", "kaplan", "--draws", 20)
    assert ranking["rows"][0]["law"] == "chinchilla"
    assert run.json("list", "laws")["laws"] == _find.names("laws")
    assert set(run.json("list")) == {"laws", "meters", "levers", "theory", "importers"}
    shown = run("show", "chinchilla").stdout
    assert "E + A / N^alpha" in shown
    assert "Hoffmann et al. 2022" in shown
    assert "positive, 0.05 to 1.5" in shown
    assert run.json("show", "train_flops")["settings"] == {"size": "total", "attention": "none"}
    law = tmp_path / "mine.py"
    law.write_text(
        "from isoflop import law, positive\n@law()\ndef flat(x, *, A=positive(1, 9)):\n    return A + 0 * x\n"
    )
    assert run.json("check", f"{law}:flat")["ok"]


def test_sweep_trains_resumes_and_its_folder_is_a_table(run, tmp_path):
    pytest.importorskip("torch", reason="the train lever needs PyTorch: pip install 'isoflop[torch]'")
    ladder = tmp_path / "ladder.toml"
    ladder.write_text(
        'source = "zipf_words"\nsource_settings = {words = 50}\ntokens = [2048, 4096]\ncontext = 32\n'
        "batch_tokens = 256\n"
        "warmup_steps = 2\neval_tokens = 1024\ncurve_tokens = 512\n"
        "[[sizes]]\nwidth = 8\ndepth = 1\n[[sizes]]\nwidth = 16\ndepth = 1\n"
    )
    out = run.json("sweep", "train", ladder, "--out", tmp_path / "runs")
    assert (out["runs"], out["failed"]) == (4, 0)
    before = (tmp_path / "runs" / "runs.jsonl").read_bytes()
    assert run.json("sweep", "train", ladder, "--out", tmp_path / "runs")["runs"] == 4
    assert (tmp_path / "runs" / "runs.jsonl").read_bytes() == before
    fit = run.json("fit", tmp_path / "runs", "--law", "power", "--axis", "flops", "--draws", 0)
    assert fit["n"] == 4
    curves = isoflop.read(tmp_path / "runs" / "curves")
    assert {"run", "step", "lr", "loss"} <= set(curves.columns)
    ladder.write_text(ladder.read_text().replace("width", "widht", 1))
    assert "width" in run("sweep", "train", ladder, "--out", tmp_path / "runs", code=2).stderr


def test_your_own_law_from_fit_to_forecast(runs, run, tmp_path):
    law = tmp_path / "mine.py"
    law.write_text(
        "from isoflop import law, positive\n@law()\n"
        "def tied(params, tokens, *, E=positive(0.5, 4), A=positive(1, 1e5), alpha=positive(0.05, 1)):\n"
        "    return E + A / params**alpha + A / tokens**alpha\n"
    )
    run("fit", runs, "--law", f"{law}:tied", "--rename", "N=params", "--draws", 10, "--out", tmp_path / "f.json")
    assert run.json("forecast", tmp_path / "f.json", "--at", "params=1e9", "--at", "tokens=2e10")["loss"]["median"] > 1


def test_skip_bad_keeps_the_rest_and_writes_the_refused(runs, run, tmp_path):
    lines = runs.read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[2], "oops")
    lines[7] = lines[7].rsplit(",", 3)[0] + ",-1,1e9,3"
    runs.write_text("\n".join(lines) + "\n")
    done = run("fit", runs, "--rename", "N=params", "--draws", 0, code=2)
    assert done.stderr.count("\n") == 1
    assert "line 4" in done.stderr
    assert "--skip-bad" in done.stderr
    done = run("fit", runs, "--rename", "N=params", "--draws", 0, "--skip-bad")
    side = tmp_path / "runs.refused.csv"
    assert side.exists()
    assert "oops" in side.read_text()
    assert "2 rows refused" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fit", "nowhere.csv"], "no file nowhere.csv"),
        (["fit", "RUNS"], "--rename N=params"),
        (["fit", "RUNS", "--law", "chinchila"], "did you mean chinchilla?"),
        (["fit", "RUNS", "--rename", "M=params"], "'M'"),
        (["fit", "RUNS", "--rename", "N=params", "--where", "point > 3"], "did you mean point_id?"),
        (["fit", "RUNS", "--rename", "N=params", "--where", "__import__('os')"], "__import__"),
        (["fit", "RUNS", "--rename", "N=params", "--where", "point_id > 1e9"], "where"),
        (["fit", "RUNS", "--rename", "N=params", "--objective", "hubr"], "no objective named 'hubr'"),
        (["fit", "RUNS", "--rename", "N=params", "--delta", "-1"], "delta must be above zero"),
        (["fit", "RUNS", "--rename", "N=params", "--by", "runn"], "'runn'"),
        (["fit", "RUNS", "--rename", "N=params", "--draws", "-3"], "draws must be 0 or more"),
        (["fit", "RUNS", "--law", "power"], "no column 'x'"),
        (["fit", "RUNS", "--law", "mine.py:x"], "no file 'mine.py'"),
        (["forecast", "RUNS", "--at", "params=1"], "is not a fit that isoflop saved"),
        (["allocate", "nowhere.json", "--flops", "1e24"], "nowhere.json"),
        (["fot"], "did you mean fit?"),
        (["fit"], "FILE"),
        (["show", "nothing"], "no law named 'nothing'"),
        (["sweep", "train", "nowhere.toml", "--out", "x"], "nowhere.toml"),
    ],
)
def test_bad_use_is_one_sentence_and_exit_code_two(args, says, runs, run, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = run(*[runs if a == "RUNS" else a for a in args], cwd=tmp_path, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("isoflop: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("amount", "option"), [("params", "--at"), ("params=much", "--at"), ("=3", "--at")])
def test_bad_amounts(fitted, run, amount, option):
    done = run("forecast", fitted, option, amount, code=2)
    assert "write NAME=NUMBER" in done.stderr


def test_help_and_list_load_nothing_heavy():
    heavy = ("pandas", "scipy", "torch", "jax", "matplotlib", "plotly", "pyarrow")
    for args in (["--help"], ["list"], ["fit", "--help"]):
        code = (
            "import sys\nsys.argv = ['isoflop', *" + repr(args) + "]\nfrom isoflop._cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            f"print([m for m in {heavy!r} if m in sys.modules])"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.strip().splitlines()[-1] == "[]"


def test_fit_from_a_csv_does_not_load_pandas(runs):
    code = (
        f"import sys\nsys.argv = ['isoflop', 'fit', {str(runs)!r}, '--rename', 'N=params', '--draws', '5', '--json']\n"
        "from isoflop._cli import main\nmain()\nprint('pandas' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(out[0])["n"] > 30
    assert out[1] == "False"


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_tables_are_one_sentence_exit_code_two_and_nothing_written(case, tmp_path, monkeypatch, capsys):
    name, content, _, *options = MALFORMED[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    how = options[0] if options else {}
    args = ["--where", how["where"]] if "where" in how else []
    rename = how.get("rename", [])
    pairs = [f"{k}={v}" for k, v in rename.items()] if isinstance(rename, dict) else [rename] * isinstance(rename, str)
    args += [a for pair in pairs or rename for a in ("--rename", pair)]
    monkeypatch.setattr(sys, "argv", ["isoflop", "fit", name, "--law", "chinchilla", "--out", "fit.json", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == 2
    assert shown.out == ""
    assert shown.err.startswith("isoflop: ")
    assert shown.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_there_are_at_least_forty_malformed_tables():
    assert len(MALFORMED) >= 40
