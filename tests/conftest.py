"""Where the tests find public data, and how they run the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real public scaling data: ISOFLOP_DATA, else ../shared/data where it exists."""
    folder = Path(os.environ.get("ISOFLOP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public scaling data: set ISOFLOP_DATA to a folder of it (looked for {folder.name})")
    return folder


@pytest.fixture(scope="session")
def chinchilla_rows(data):
    """The 240 reconstructed Chinchilla runs of Besiroglu et al. 2024."""
    from isoflop._runs import load

    return load(data / "chinchilla" / "points.csv", rename={"train_flop": "flops"}, where="point_id > 4")


@pytest.fixture
def planted():
    """A Chinchilla table with known coefficients: 7 sizes on 6 budgets, 1 % lognormal noise."""
    return planted_table()


def planted_table(noise=0.01, seed=0):
    truth = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.36}
    n, c = (a.ravel() for a in np.meshgrid(np.geomspace(3e7, 3e9, 9), np.geomspace(1e18, 3e20, 6)))
    keep = np.abs(np.log(c / (6 * n * 20 * n))) < 4
    n, c = n[keep], c[keep]
    d = c / (6 * n)
    loss = truth["E"] + truth["A"] / n ** truth["alpha"] + truth["B"] / d ** truth["beta"]
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(n.size))
    return {"params": n, "tokens": d, "flops": c, "loss": loss}


def write_csv(path, table):
    names = list(table)
    rows = [",".join(names)] + [",".join(repr(float(v)) for v in row) for row in zip(*table.values(), strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def run():
    """Run `isoflop ...` in a fresh process; returns what it printed, and checks that it never shows a traceback."""

    def go(*args, stdin=None, cwd=None, code=0):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "isoflop", *map(str, args)],
            capture_output=True, text=True, input=stdin, cwd=cwd, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, (done.returncode, done.stdout[-500:], done.stderr[-500:])
        return done

    go.json = lambda *args, **how: json.loads(go(*args, "--json", **how).stdout)
    return go
