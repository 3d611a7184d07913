"""Best rates by width where seeds differ in number, and the recorded answers, which follow from the recorded runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from _trained import RECORDED

from isoflop.levers.train._best_rate import moved

TABLES = ("digits", "zipf_words", "zipf_words_16")


def valley(width: int, *, seeds: int, rates: int = 7) -> list[dict[str, object]]:
    """Losses with a parabola in ln(rate), lowest at 4e-3 at every width, with noise."""
    rng = np.random.default_rng(width)
    return [
        {"parametrisation": "p", "width": width, "lr": lr, "seed": s, "status": "ok",
         "loss": math.exp(0.1 * math.log(lr / 4e-3) ** 2 + 0.003 * rng.standard_normal())}
        for lr in 4e-3 * 2.0 ** np.arange(-(rates // 2), rates // 2 + 1) for s in range(seeds)
    ]  # fmt: skip


def test_widths_may_have_different_numbers_of_seeds() -> None:
    answer = moved(pd.DataFrame(valley(32, seeds=8) + valley(64, seeds=3)))
    assert [b.seeds for b in answer.best] == [8, 3]
    assert all(b.low <= b.lr <= b.high and b.lr == pytest.approx(4e-3, rel=0.05) for b in answer.best)
    assert answer.drift[0].factor == pytest.approx(1.0, abs=0.05)


def test_a_seed_that_was_not_run_at_every_rate_is_left_out_at_its_width_alone() -> None:
    rows = pd.DataFrame(valley(32, seeds=4) + valley(64, seeds=4))
    cut = rows[~((rows["width"] == 64) & (rows["seed"] == 3) & (rows["lr"] > 1e-2))]
    assert [b.seeds for b in moved(cut, draws=20).best] == [4, 3]


def test_where_one_width_has_one_seed_there_is_no_interval() -> None:
    answer = moved(pd.DataFrame(valley(32, seeds=4) + valley(64, seeds=1)))
    assert math.isnan(answer.drift[0].factor_high)
    assert "one seed: none" in str(answer)


@pytest.mark.parametrize("of", ["loss", "train_loss"])
@pytest.mark.parametrize("name", TABLES)
def test_recorded_answers_follow_from_the_recorded_runs(name: str, of: str) -> None:
    rows = pd.read_csv(RECORDED / "transfer" / f"{name}.csv")
    answer = moved(rows.assign(loss=rows[of]), draws=0)
    for file, found, figure in (("best", answer.best, "lr"), ("drift", answer.drift, "factor")):
        table = pd.read_csv(RECORDED / "transfer" / f"{file}.csv").query("model == @name and of == @of")
        assert [getattr(f, figure) for f in found] == pytest.approx(table[figure].tolist(), rel=1e-3)
