"""isoflop's side of the benchmark, each task in a process of its own: python benchmarks/_tasks.py NAME ARGUMENTS

Prints one JSON object. Nothing but the standard library is imported up here, because `fit` times the imports.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRID = 4500
NAMES = ("params", "tokens", "loss")


def fit(columns: str, draws: str) -> dict[str, Any]:
    """From nothing imported to the best fit, columns as arrays."""
    began = time.perf_counter()
    import numpy as np

    import isoflop

    found = isoflop.fit("chinchilla", dict(zip(NAMES, np.load(columns), strict=True)), draws=int(draws))
    wall = time.perf_counter() - began
    out = {"wall": wall, "cpu": time.process_time(), "peak": peak_mib(), "value": found.objective["value"]}
    out["loaded"] = [name for name in ("pandas", "scipy") if name in sys.modules]
    out |= {"starts": found.starts, "agreeing": found.agreeing}
    out["se"] = dict(zip(found.coef, found.draws.std(axis=0).tolist(), strict=True)) if int(draws) else {}
    return out


def grow(columns: str, draws: str) -> dict[str, Any]:
    """A fit without and one with draws, imports done; what the draws add."""
    import numpy as np

    import isoflop

    rows = dict(zip(NAMES, np.load(columns), strict=True))
    isoflop.fit("chinchilla", {name: column[:50] for name, column in rows.items()}, draws=2)
    plain = timed(lambda: isoflop.fit("chinchilla", rows, draws=0))
    drawn = timed(lambda: isoflop.fit("chinchilla", rows, draws=int(draws)))
    out = {"wall": plain["wall"], "cpu": plain["cpu"], "peak": peak_mib()}
    out |= {"draws_wall": drawn["wall"] - plain["wall"], "draws_cpu": drawn["cpu"] - plain["cpu"]}
    return out | {"method": drawn["result"].made["uncertainty"], "coef": plain["result"].coef}


def audit(columns: str) -> dict[str, Any]:
    """The published grid of starts, imports done."""
    import numpy as np

    import isoflop

    rows = dict(zip(NAMES, np.load(columns), strict=True))
    isoflop.fit("chinchilla", rows, draws=0)
    done = timed(lambda: isoflop.audit("chinchilla", rows, starts=GRID))
    return {"wall": done["wall"], "cpu": done["cpu"], "peak": peak_mib(), "values": done["result"].values.tolist()}


def resamples(columns: str, count: str, answer: str) -> dict[str, Any]:
    """The first bootstrap refits: which rows each had (picks) and where it ended, for the peers to repeat."""
    import numpy as np

    from isoflop import _fit, _uncertainty

    rows = dict(zip(NAMES, np.load(columns), strict=True))
    setup = _fit.prepare("chinchilla", rows)
    found = _fit.search(setup, seed=0)
    best = _fit.polished(setup.problem, found.theta[_fit.pick(found)[0]])
    ends = _uncertainty.bootstrap(setup.problem, best, draws=int(count), seed=0).theta
    n = rows["loss"].size
    counts = _uncertainty.resample_weights(n, 0, None)(np.arange(int(count))).astype(int)
    picks = np.stack([np.repeat(np.arange(n), of_row) for of_row in counts])
    best, ends = published(setup.law.outward(best[None]))[0], published(setup.law.outward(ends))
    np.savez(answer, picks=picks, ends=ends, best=best)
    return {}


def laws(repeats: str) -> dict[str, Any]:
    """Every law of the package on planted rows with 1 % noise."""
    from isoflop import _find

    return {name: _one_law(name, int(repeats)) for name in _find.names("laws")}


def _one_law(name: str, repeats: int) -> dict[str, Any]:
    import numpy as np

    import isoflop
    from isoflop import _check
    from isoflop._law import get_law

    law, rng = get_law(name), np.random.default_rng(0)
    design = _check.plant_columns(law, rng)
    truth = _check.plant_coefs(law, design)
    rows = _check.observe(law, design, truth, 0.01, rng)
    plain = [timed(lambda: isoflop.fit(law, rows, draws=0)) for _ in range(repeats)]
    drawn = timed(lambda: isoflop.fit(law, rows, draws=1000))
    found, wall, cpu = plain[0]["result"], *(statistics.median(p[key] for p in plain) for key in ("wall", "cpu"))
    inside = [low <= truth[c] <= high for c, (low, high) in drawn["result"].interval(90).items()]
    out = {"n": found.n, "p": len(truth), "wall": wall, "cpu": cpu, "draws_wall": drawn["wall"] - wall}
    out |= {"draws_cpu": drawn["cpu"] - cpu, "agreeing": found.agreeing, "starts": found.starts}
    return out | {"inside": sum(inside)}


def derivatives(columns: str) -> dict[str, Any]:
    """Nanoseconds a row for objective, gradient and Hessian at 64 points: by isoflop's tape, and by forward jets."""
    import _peers
    import numpy as np

    from isoflop import _fit
    from isoflop._newton import Evaluator

    table = np.load(columns)
    setup = _fit.prepare("chinchilla", dict(zip(NAMES, table, strict=True)))
    spread = np.exp(0.02 * np.random.default_rng(0).standard_normal((64, 5)))
    coefs = np.array([1.82, 478, 2143, 0.347, 0.367]) * spread
    inward, logs, log_rows = setup.law.inward(coefs), published(coefs), np.log(table)
    evaluate = Evaluator(setup.problem, 64)
    ways: dict[str, Callable[[], Any]] = {
        "tape": lambda: evaluate(inward, None),
        "jets": lambda: _peers.jet_evaluate(logs, log_rows),
    }
    seconds = {name: statistics.median(timed(way)["cpu"] for _ in range(50)) for name, way in ways.items()}
    disagree = float(np.abs(ways["tape"]().value / ways["jets"]()[0] - 1).max())
    return {name: 1e9 * s / (64 * table.shape[1]) for name, s in seconds.items()} | {"disagree": disagree}


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Run it once: its result, wall and CPU seconds (all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"result": result, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def published(coefs: Any) -> Any:
    """Coefficients E, A, B, alpha, beta (k, 5) in the published coordinates log A, log B, log E, alpha, beta."""
    import numpy as np

    return np.column_stack([np.log(coefs[:, [1, 2, 0]]), coefs[:, 3:]])


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts at the parent's size on Linux
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


TASKS = {task.__name__: task for task in (fit, grow, audit, resamples, laws, derivatives)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
