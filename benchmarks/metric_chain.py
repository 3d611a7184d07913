"""A ladder's log-probabilities of right and wrong continuations: `python benchmarks/metric_chain.py --out chain.csv`.

Nine small transformers on the Python standard library's source, three budgets with three seeds each, choose among four
continuations of twelve bytes of held-out text: the one that follows and three that follow elsewhere. About two minutes.
isoflop/recorded/meters/chain.csv is what it writes.
"""

from __future__ import annotations

import argparse
import csv
import time
from typing import Any

import numpy as np
import torch

from isoflop.levers.train import Train
from isoflop.levers.train._loop import HeldOut
from isoflop.levers.train._run import _advance, _take_up, make_plan

BUDGETS = {1e10: (12, 2), 3e10: (12, 2), 1e11: (16, 2)}  # about optimal: width, depth
QUESTIONS, PROMPT, ANSWER, CHOICES = 120, 116, 12, 4


def ladder(budget: float) -> Train:
    """One size and budget, otherwise as isoflop/recorded/python_source/ladder.toml."""
    width, depth = BUDGETS[budget]
    return Train(sizes=({"width": width, "depth": depth},), tokens=(), budgets=(budget,), batch_tokens=1024,
                 lr={"base": 3e-3, "width": 64, "power": 0.9}, eval_tokens=16_384, device="cpu")  # fmt: skip


def questions(heldout: np.ndarray[Any, Any], seed: int = 0) -> np.ndarray[Any, Any]:
    """Windows (questions, choices, prompt + answer): the first choice is what follows."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(heldout) - PROMPT - ANSWER, (QUESTIONS, CHOICES), replace=False)
    prompt = heldout[places[:, :1] + np.arange(PROMPT)]
    answer = heldout[places[:, :, None] + PROMPT + np.arange(ANSWER)]
    return np.concatenate([np.repeat(prompt[:, None], CHOICES, axis=1), answer], axis=2).astype(np.int64)


def scored(model: torch.nn.Module, windows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Log-probability of each answer in nats; (questions, choices)."""
    flat = torch.from_numpy(windows.reshape(-1, windows.shape[-1]))
    with torch.no_grad():
        logs = torch.log_softmax(model(flat[:, :-1]).float(), dim=-1)
    each = logs[:, -ANSWER:].gather(2, flat[:, -ANSWER:, None]).sum(dim=(1, 2))
    return each.double().numpy().reshape(windows.shape[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="a CSV file for every row")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = []
    for budget in BUDGETS:
        lever = ladder(budget)
        windows = questions(lever.text.heldout)  # type: ignore[attr-defined]
        for seed in range(3):
            began = time.process_time()
            plan = make_plan(lever, lever.ladder()[0], seed=seed)
            state = _take_up(plan, None)
            held_out = HeldOut(lever.text, plan.settings)
            _advance(plan, state, held_out, None)
            state.model.eval()
            loss, _ = held_out.measure(state.model, held_out.count)
            print(f"{budget:g} seed {seed}: loss {loss:.3f}, {time.process_time() - began:.0f} CPU s", flush=True)
            rows += [(q, f"{budget:g}", seed, *(f"{v:.4f}" for v in line))
                     for q, line in enumerate(scored(state.model, windows))]  # fmt: skip
    with open(out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["question", "flops", "seed", "right", *(f"wrong_{k}" for k in range(1, CHOICES))])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
