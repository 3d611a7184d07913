"""Plans under real limits: closed forms, monotonicity, prices, recipes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, planted_table
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop._constraints import plan_at
from isoflop._planned import crossings, pareto, plan, undominated
from isoflop._prices import Device, read_prices

PRICES = {"box": Device("box", 80.0, 2.0, {"bf16": 1e15, "fp8": 2e15}, "2026-01-01")}
PUBLISHED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}


@pytest.fixture(scope="module")
def fit():
    return isoflop.fit("chinchilla", planted_table(), draws=40)


@pytest.fixture(scope="module")
def exact(fit):
    """The published law without draws."""
    return replace(fit, coef=PUBLISHED, draws=fit.draws[:0])


def best(fit, **given):
    made = plan_at(fit, given, prices=PRICES)
    assert made["feasible"], made["why"]
    return {name: f["best"] for name, f in made["figures"].items()}


# ---- against algebra and against allocate ----------------------------------------------------------------------------


def test_compute_alone_is_the_closed_form(exact):
    al, be = PUBLISHED["alpha"], PUBLISHED["beta"]
    ratio = (al * PUBLISHED["A"] / (be * PUBLISHED["B"])) ** (1 / (al + be))
    found = best(exact, flops=5.76e23)
    assert found["params"] == pytest.approx(ratio * (5.76e23 / 6) ** (be / (al + be)), rel=1e-3)
    assert found["flops"] == pytest.approx(5.76e23, rel=1e-9)


def test_every_draw_agrees_with_allocate(fit):
    made, other = plan(fit, flops=1e24), isoflop.allocate(fit, flops=1e24)
    assert made.loss.draws == pytest.approx(other.loss.draws, rel=1e-6)
    assert made.params.draws == pytest.approx(other.params.draws, rel=0.02)
    assert (made.regret.draws >= 0).all()


def test_serving_satisfies_its_first_order_condition(exact):
    """d/dN and d/dD of the Lagrangian of 6 N D + 2 N D_inf (arXiv 2401.00448, eq. 2) vanish together."""
    served, found = 2e12, best(exact, flops=1e24, served_tokens=2e12)
    n, d = found["params"], found["tokens"]
    slope_n = PUBLISHED["alpha"] * PUBLISHED["A"] * n ** (-PUBLISHED["alpha"] - 1)
    slope_d = PUBLISHED["beta"] * PUBLISHED["B"] * d ** (-PUBLISHED["beta"] - 1)
    assert slope_n / (6 * d + 2 * served) == pytest.approx(slope_d / (6 * n), rel=1e-2)
    assert 6 * n * d + 2 * n * served == pytest.approx(1e24, rel=1e-9)


def test_the_published_saving_of_a_smaller_model_that_serves(exact):
    """arXiv 2401.00448, figure 1: 13B quality, 2T tokens served: 7B on more data saves 1.7e22 FLOPs, 17 %."""
    n, al, be = 13e9, 0.336, 0.283  # the exponents to three digits
    law = replace(exact, coef=PUBLISHED | {"alpha": al, "beta": be})
    tokens = (be * PUBLISHED["B"] / (al * PUBLISHED["A"]) * n**al) ** (1 / be)  # compute-optimal for 13B
    goal = float(law.predict(params=n, tokens=tokens))
    as_usual = 6 * n * tokens + 2 * n * 2e12
    found = best(law, goal=goal, served_tokens=2e12)
    assert found["loss"] == pytest.approx(goal, rel=1e-9)
    assert found["params"] == pytest.approx(7e9, rel=0.02)
    assert as_usual - found["flops"] == pytest.approx(1.7e22, rel=0.02)
    assert 1 - found["flops"] / as_usual == pytest.approx(0.17, abs=0.005)


def test_a_goal_and_its_budget_are_inverse(fit):
    loss = plan(fit, flops=1e22).loss.best
    back = plan(fit, goal=loss)
    assert back.figures["flops"].best == pytest.approx(1e22, rel=1e-3)
    assert back.loss.draws == pytest.approx(np.full(40, loss), rel=1e-6)
    assert not plan_at(fit, {"goal": loss, "flops": 0.9e22})["feasible"]
    assert plan_at(fit, {"goal": loss, "flops": 1.1e22})["feasible"]


def test_repeats_are_worth_what_the_law_says(exact):
    found = best(exact, flops=1e22, unique_tokens=1e10, params=1e9)
    repeats = found["epochs"] - 1
    worth = 1e10 * (1 + 15.387756 * (1 - np.exp(-repeats / 15.387756)))
    expected = PUBLISHED["E"] + PUBLISHED["A"] / 1e9**0.34 + PUBLISHED["B"] / worth**0.28
    assert found["loss"] == pytest.approx(expected, rel=1e-9)
    assert best(exact, flops=1e22, unique_tokens=1e10, epochs=4)["tokens"] <= 4e10 * (1 + 1e-9)


def test_wall_clock_and_critical_batch(exact):
    """d = D / (1 + B / B_crit) with the batch that n = 6 N D / (speed T) devices need."""
    found = best(exact, flops=1e22, hours=100, devices=1000, batch_crit=2e6)
    n = 1e22 / (0.4 * 1e15 * 3600 * 100)
    assert found["devices"] == pytest.approx(n, rel=1e-6)
    assert found["hours"] == pytest.approx(100, rel=1e-9)
    assert found["effective_tokens"] == pytest.approx(found["tokens"] / (1 + 8192 * n / 2e6), rel=1e-9)
    capped = best(exact, flops=1e22, hours=100, devices=10)
    assert capped["flops"] == pytest.approx(10 * 0.4 * 1e15 * 3600 * 100, rel=1e-6)


def test_memory_caps_the_size(exact):
    one = best(exact, flops=1e24, shard=1)
    assert one["shard"] == 1
    assert one["memory_gb"] == pytest.approx(0.9 * 80, rel=1e-6)
    assert best(exact, flops=1e24, shard=64)["params"] > 5 * one["params"]
    assert best(exact, flops=1e24, shard=1, active_share=0.25)["params"] < 1.5 * one["params"]


def test_a_law_that_rises_with_tokens_stops_in_time(fit):
    law = isoflop._law.get_law("qat")
    coef = {
        "E": 1.93,
        "A": 237.7,
        "B": 596.2,
        "alpha": 0.3022,
        "k": 0.1582,
        "g_N": 0.2186,
        "g_D": 0.0745,
        "g_G": 0.7779,
    }
    made = replace(fit, law=law, coef=coef, draws=np.empty((0, 8)))
    found = best(made, flops=1e24, params=1e8, group_size=128)
    from isoflop.laws.qat import tokens_until_harm

    harm = tokens_until_harm(1e8, 128, **{c: coef[c] for c in ("B", "alpha", "k", "g_N", "g_D", "g_G")})
    assert found["tokens"] == pytest.approx(harm, rel=0.02)


def test_a_law_of_flops_alone_is_planned_too():
    x = np.geomspace(1e18, 1e21, 12)
    made = isoflop.fit("power_offset", {"flops": x, "loss": 1.7 + 400 * x**-0.12}, axis="flops", draws=0)
    found = best(made, usd=1000)
    assert found["flops"] == pytest.approx(1000 / 2.0 * 3600 * 0.4 * 1e15)
    assert found["loss"] == pytest.approx(float(made.predict(flops=found["flops"])))
    with pytest.raises(ValueError, match="of flops alone"):
        plan_at(made, {"usd": 1000, "served_tokens": 1e9})


# ---- laws of nature --------------------------------------------------------------------------------------------------

amounts = st.floats(1.01, 30)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["flops", "usd", "hours", "devices", "unique_tokens", "epochs", "batch_crit", "memory_gb"]),
       amounts)  # fmt: skip
def test_a_looser_limit_is_never_worse(exact, name, factor):
    given = {"flops": 1e22, "usd": 3000, "hours": 200, "devices": 60, "unique_tokens": 5e9, "epochs": 3,
             "batch_crit": 1e6, "memory_gb": 60}  # fmt: skip
    looser = given | {name: given[name] * factor}
    assert best(exact, **looser)["loss"] <= best(exact, **given)["loss"] * (1 + 1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["served_tokens", "bytes_per_param", "tokens_per_device"]), amounts)
def test_a_heavier_burden_is_never_better(exact, name, factor):
    given = {"flops": 1e22, "hours": 200, "devices": 64, "batch_crit": 1e6, "served_tokens": 1e11,
             "bytes_per_param": 16, "tokens_per_device": 4096}  # fmt: skip
    assert best(exact, **given | {name: given[name] * factor})["loss"] >= best(exact, **given)["loss"] * (1 - 1e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 50), st.floats(1e3, 1e7))
def test_only_the_ratio_of_money_to_price_matters(exact, price, usd):
    dear = {"box": replace(PRICES["box"], usd_per_hour=price * 2.0)}
    one, other = (plan_at(exact, {"usd": u}, prices=p)["figures"] for u, p in ((usd, PRICES), (price * usd, dear)))
    assert other["loss"]["best"] == pytest.approx(one["loss"]["best"], rel=1e-9)
    assert other["usd"]["best"] == pytest.approx(price * one["usd"]["best"], rel=1e-6)


def test_more_served_tokens_mean_smaller_models(exact):
    sizes = [best(exact, flops=1e23, served_tokens=s)["params"] for s in (0, 1e11, 1e12, 1e13)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]


# ---- choices, recipes, fronts ----------------------------------------------------------------------------------------


def test_experts_are_a_choice_that_memory_ends(fit):
    """Sparse models lose less for their compute, until all their parameters no longer fit on one device."""
    law = isoflop._law.get_law("dense_sparse")
    made = replace(fit, law=law, coef=PUBLISHED | {"g": 0.0, "u": 0.2, "v": 0.0}, draws=np.empty((0, 8)))
    kinds = {"dense": {"sparsity_ratio": 1}, "moe": {"sparsity_ratio": 8, "active_share": 1 / 8}}
    spans = {"params_active": (1e7, 1e10), "tokens": (1e9, 1e12), "sparsity_ratio": (1.0, 8.0)}
    made = replace(made, spans=spans)
    free = plan_at(made, {"flops": 1e21, "choices": kinds}, prices=PRICES)
    assert free["choice"] == "moe"
    tight = plan_at(made, {"flops": 1e21, "memory_gb": 8, "shard": 1, "choices": kinds}, prices=PRICES)
    assert tight["choice"] == "dense"
    figures = {c["name"]: {k: f["best"] for k, f in c["figures"].items()} for c in tight["choices"]}
    assert figures["moe"]["params_active"] < figures["dense"]["params_active"]
    assert figures["moe"]["memory_gb"] <= 8


def test_precision_is_a_choice_that_the_law_prices(fit):
    law = isoflop._law.get_law("precision")
    made = replace(fit, law=law, coef=PUBLISHED | {"g_w": 2.6745}, draws=np.empty((0, 6)))
    bits = {"bf16": {"bits_weights": 16}, "fp8": {"bits_weights": 8, "precision": "fp8"}}
    answer = plan_at(made, {"usd": 1e5, "choices": bits}, prices=PRICES)
    assert answer["choice"] == "fp8"  # twice the compute for 5 % of the parameters
    assert plan_at(made, {"flops": 1e23, "choices": bits}, prices=PRICES)["choice"] == "bf16"
    assert [c["wins"] for c in answer["choices"]] == [None, None]


def test_recipes_are_ranked_and_their_crossing_found(fit):
    steep = replace(
        fit, coef=fit.coef | {"A": 1.3 * fit.coef["A"], "E": fit.coef["E"] - 0.02}, draws=np.array(fit.draws)
    )
    steep.draws[:, 1] *= 1.3
    steep.draws[:, 0] -= 0.02
    fits = {"flat": fit, "steep": steep}
    assert plan_at(fits, {"flops": 1e19})["choice"] == "flat"
    assert plan_at(fits, {"flops": 1e26})["choice"] == "steep"
    (crossing,) = crossings(fits, {"flops": 1e22}, span=(1e18, 1e27))
    (root,) = crossing.roots
    assert (root.before, root.after) == ("flat", "steep")
    at = {name: plan_at(f, {"flops": root.at})["figures"]["loss"]["best"] for name, f in fits.items()}
    assert at["flat"] == pytest.approx(at["steep"], abs=1e-6)
    (given,) = isoflop.crossover(fit, steep, meter="train_flops", span=(1e18, 1e27)).roots
    assert root.at == pytest.approx(given.at, rel=0.02)


def test_the_front_has_no_row_that_another_beats(fit):
    front = pareto(fit, {"devices": 512, "batch_crit": 1e6}, cost="usd", budgets=[1e4, 1e5, 1e6], hours=[100, 1000],
                   prices=PRICES)  # fmt: skip
    scores = front[["loss", "usd", "hours"]].to_numpy(float)
    assert undominated(scores).all()
    assert len(front) >= 4
    assert list(undominated(np.array([[1, 1], [2, 2], [1, 3], [0, 4]]))) == [True, False, False, True]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing limits the plan"),
        ({"flops": -1}, "flops must be above zero"),
        ({"flops": "1e20"}, "flops must be a finite number"),
        ({"flops": 1e22, "mfu": 2}, "mfu is a share"),
        ({"flop": 1e22}, "did you mean flops"),
        ({"flops": 1e22, "epochs": 2}, "unique_tokens"),
        ({"flops": 1e22, "precision": "fp3"}, "no peak for 'fp3'"),
        ({"goal": 2, "cheapest": "euro"}, "cheapest is one of"),
    ],
)
def test_bad_constraints_are_refused_in_a_sentence(fit, given, words):
    with pytest.raises(ValueError, match=words):
        plan_at(fit, given, prices=PRICES)


def test_what_is_not_feasible_says_why(fit):
    made = plan_at(fit, {"flops": 1e20, "served_tokens": 1e25, "params": 1e9})
    assert not made["feasible"]
    assert "tokens to be served" in made["why"]
    with pytest.raises(LookupError, match="did you mean box"):
        plan_at(fit, {"flops": 1e20, "device": "bux"}, prices=PRICES)
    with pytest.raises(ValueError, match="hold column 'bits_weights'"):
        plan_at(replace(fit, law=isoflop._law.get_law("precision"), coef=PUBLISHED | {"g_w": 2.7},
                        draws=np.empty((0, 6))), {"flops": 1e20})  # fmt: skip


def test_a_table_of_prices_is_checked(tmp_path):
    ours = read_prices()
    assert all(d.usd_per_hour > 0 and "bf16" in d.peak for d in ours.values())
    path = tmp_path / "prices.toml"
    path.write_text("date = '2026-05-01'\n[device.mine]\nmemory_gb = 24\nusd_per_hour = 0.5\npeak = { bf16 = 1e14 }\n")
    assert read_prices(path)["mine"].memory_gb == 24
    free = "[device.x]\nmemory_gb = 1\nusd_per_hour = -1\npeak = { bf16 = 1 }\n"
    for text, words in (("[device.x]\n", "peak"), ("x = 1\n", "no .device"), ("[", "not TOML"), (free, "above zero")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_prices(path)


def test_plain_numbers_are_json_and_the_text_says_the_limits(fit):
    made = plan(fit, usd=1e6, hours=720, devices=256, unique_tokens=1e11, batch_crit=4e6, served_tokens=1e12)
    again = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert {r["name"] for r in again["limits"]} == {"usd", "hours", "unique_tokens", "devices"}
    assert any(r["binding"] for r in again["limits"])
    assert all(r["worth"] <= 1e-9 for r in again["limits"])
    assert "limit usd" in str(made)
    assert "edit them" in str(made)
    low, high = again["figures"]["loss"]["interval"]
    assert low < again["figures"]["loss"]["median"] < high


def test_the_verb_plans_compares_and_writes_a_front(tmp_path, run, fit):
    fit.save(tmp_path / "fit.json")
    told = "--usd 1M --hours 720 --devices 256 --at batch_crit=4M --choice fp8:precision=fp8 --choice bf16:"
    shown = run("plan", "fit.json", *told.split(), "--pareto", "front.csv", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["choice"] == "fp8"
    assert (tmp_path / "front.csv").read_text().startswith("usd,hours,loss")
    shown = run("plan", "fit.json", "--goal", "0.5", cwd=tmp_path, code=1)
    assert "no model reaches" in shown.stdout


def test_the_page_on_planning_runs_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "planning.md").read_text()
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, scope)
    (table,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "mine.toml").write_text(table)
    assert read_prices(tmp_path / "mine.toml")["H100-SXM"].usd_per_hour == 2.2
