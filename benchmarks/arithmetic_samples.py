"""Samples of the recorded arithmetic model: problems x temperatures, each graded, scored and timed in tokens.

    nice python benchmarks/arithmetic_samples.py --out FOLDER

writes samples.csv, by_length.csv, by_problem.csv and searches.csv; the README.md beside the recorded ones says what
they hold.
"""

import argparse
import asyncio
import csv
import random
import time
from pathlib import Path

import numpy as np

import isoflop
from isoflop.levers.think._answers import key_of, vote
from isoflop.levers.think._ask import derive
from isoflop.levers.think._decoder import Decoder, Draft, Network
from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think._task_model import problem_rows, step_is_right
from isoflop.levers.think._types import Problem, Sample
from isoflop.levers.think.adaptive import stops

MODEL = Path(isoflop.__file__).parent / "recorded" / "arithmetic_lm"
PLAN = {0.4: 16, 0.8: 32, 1.2: 16}  # samples of each problem by temperature
FALSE_POSITIVE, FALSE_NEGATIVE = 0.2, 0.1  # of the planted verifier
LENGTHS = (2, 3, 4, 5, 6, 7, 8)
ORDERS = 200
PARTS = ("samples", "selectors", "searches")
WIDTH = 8  # samples or finished branches of a search
STEPS = {"separator": "\n", "final": "####", "depth": 12}
SEARCHES = {
    "best_of_n": {"temperature": 0.8},
    "beam": {"steps": STEPS},
    "dvts": {"steps": STEPS},
    "rebase": {"steps": STEPS},
    "ets": {"steps": STEPS},
}


def draw(decoder, prompt, *, seeds, temperature):
    """Samples of one prompt, queued."""
    made = [Draft(seed=s, temperature=temperature, limit=160, stop=(), top_count=0) for s in seeds]
    decoder.add(prompt.encode(), made)
    return made


def finish(decoder):
    """Decode until nothing is left to do."""
    while decoder.active or decoder.waiting:
        decoder.step()


def row_of(problem, sample, *, luck):
    """One sample as a row: graded by its last line, and scored three ways."""
    text = sample.text.decode("ascii", "replace")
    answer = key_of(text, rule="hashes")
    lines = [line for line in text.splitlines() if not line.startswith("####")]
    right = answer == problem["answer"]
    return {
        "answer": "" if answer is None else answer,
        "correct": int(right),
        "passed": int(luck >= FALSE_NEGATIVE if right else luck < FALSE_POSITIVE),
        "steps": round(sum(map(step_is_right, lines)) / len(lines), 2) if lines else 0.0,
        "logprob": round(float(np.mean(sample.logprobs)), 3),
        "tokens": len(sample.tokens),
    }


def sampled(network, problems, plan, *, seed):
    """Rows of all samples of all problems."""
    decoder, jobs = Decoder(network, slots=64), []
    for number, problem in enumerate(problems):
        for heat, count in plan.items():
            seeds = [seed * 10**6 + number * 1000 + round(heat * 10) * 50 + i for i in range(count)]
            jobs.append((number, problem, heat, draw(decoder, problem["prompt"], seeds=seeds, temperature=heat)))
        finish(decoder)
    rng = random.Random(f"verifier {seed}")
    return [
        {"problem": number, "numbers": problem["operands"], "temperature": heat}
        | row_of(problem, one, luck=rng.random())
        for number, problem, heat, made in jobs
        for one in made
    ]


def chosen(rows):
    """Which selectors are right on one order of the samples of a problem at one temperature."""
    keys, right = [r["answer"] or None for r in rows], [r["correct"] for r in rows]
    passed, steps, sure = ([r[c] for r in rows] for c in ("passed", "steps", "logprob"))
    found = {"one": right[0]}
    for k in (2, 4, 8, 16, 32):
        if k > len(rows):
            break
        both = np.add(passed, steps)
        pick = {"best": passed, "steps": steps, "both": both, "sure": sure, "short": [-r["tokens"] for r in rows]}
        for name, score in pick.items():
            found[f"{name}_{k}"] = right[int(np.argmax(score[:k]))]
        ballots = {"majority": None, "weighted": np.array(passed[:k]) + 0.1, "sure_vote": np.exp(sure[:k])}
        for name, weights in ballots.items():
            won = vote(keys[:k], weights).index
            found[f"{name}_{k}"] = 0 if won is None else right[won]
        found[f"coverage_{k}"] = max(right[:k])
    won, used = early(keys[:16])
    return found | {"early_16": 0 if won is None else right[won], "early_used": used}


def early(keys):
    """The vote that stops as the strategy `adaptive` does: (index of the winner, samples used)."""
    used = next(i for i in range(1, len(keys) + 1) if stops(keys[:i], len(keys)) or i == len(keys))
    return vote(keys[:used]).index, used


def by_problem(rows, problem):
    """Mean over random orders of what each selector gets right at .8, and of 15 samples of one temperature or three."""
    rng = random.Random(f"orders {problem}")
    heats = {t: [r for r in rows if r["temperature"] == t] for t in PLAN}
    total = {}
    for _ in range(ORDERS):
        for own in heats.values():
            rng.shuffle(own)
        found = chosen(heats[0.8])
        pools = {f"t{round(t * 10):02}": own[:15] for t, own in heats.items()}
        pools["mixed"] = [r for i in range(5) for own in heats.values() for r in own[i : i + 1]]
        for name, pool in pools.items():
            won = vote([r["answer"] or None for r in pool]).index
            found[f"{name}_one"] = np.mean([r["correct"] for r in pool])
            found[f"{name}_vote"] = 0 if won is None else pool[won]["correct"]
            found[f"{name}_coverage"] = max(r["correct"] for r in pool)
        for name, value in found.items():
            total[name] = total.get(name, 0) + value / ORDERS
    right = [r for r in heats[0.8] if r["correct"]]
    counts = {"n": len(heats[0.8]), "c": len(right), "flawed": sum(r["steps"] < 1 for r in right)}
    return (
        {"problem": problem, "numbers": int(rows[0]["numbers"])}
        | counts
        | {k: round(float(v), 4) for k, v in total.items()}
    )


class InProcess:
    """The recorded model as strategies see one, without a server; calls that wait at once are decoded together."""

    def __init__(self, network):
        self.decoder, self.tokens, self.read = Decoder(network, slots=64), 0, 0

    def key(self, text):
        return key_of(text, rule="hashes")

    async def sample(self, prompt, *, n=1, prefix="", max_tokens=None, temperature=None, stop=(), seed=0, **_):
        marks, limit = tuple(s.encode() for s in stop), max_tokens or 160
        made = [Draft(derive(seed, "draw", i), temperature or 0.8, limit, marks, 0) for i in range(n)]
        read, _ = self.decoder.add((prompt + prefix).encode(), made)
        while not all(one.finish for one in made):
            self.decoder.step()
            await asyncio.sleep(0)
        self.tokens, self.read = self.tokens + sum(len(one.tokens) for one in made), self.read + read
        return [Sample(one.text.decode(), one.finish, len(one.tokens), read, seed=one.seed) for one in made]


class Checker:
    """Says of a text whether its last step is a true equation, with the planted errors, the same for the same text."""

    async def __call__(self, problem, texts):
        return [min(each) if each else 0.0 for each in await self.steps(problem, texts)]

    async def steps(self, problem, texts):
        return [self._of(problem, t.splitlines()) for t in texts]

    def _of(self, problem, lines):
        kept = [line for line in lines if not line.startswith("####")]
        luck = [random.Random(f"{problem.id} {line}").random() for line in kept]
        pairs = zip(map(step_is_right, kept), luck, strict=True)
        return [float(x >= FALSE_NEGATIVE if right else x < FALSE_POSITIVE) for right, x in pairs]


async def searched(network, problems, *, seed):
    """A row a problem, and for each search: whether it is right, tokens written and read, and what its cache held."""
    rows = []
    for number, problem in enumerate(problems):
        row = {"seed": seed, "problem": number}
        for name, own in SEARCHES.items():
            model = InProcess(network)
            asked = Problem(problem["id"], problem["prompt"], {})
            steps = {"steps": {**own["steps"], "aggregate": "min"}} if "steps" in own else own
            got = await get_strategy(name)(asked, model, Checker(), n=WIDTH, seed=seed * 1000 + number, **steps)
            row |= {name: int(got.key == problem["answer"]), f"{name}_tokens": model.tokens, f"{name}_read": model.read}
            row |= {f"{name}_{k}": got.info[k] for k in ("cached_tokens", "cached_tokens_unpruned") if k in got.info}
        rows.append(row)
    return rows


def write(path, rows):
    """Rows as CSV."""
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def read(path):
    """Rows of samples.csv, numbers as numbers."""
    with path.open(newline="") as file:
        return [{k: v if k == "answer" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def main():
    """Record, and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    network, began = Network(MODEL), time.process_time()
    problems = problem_rows(args.problems, seed=1)
    if "samples" in args.parts:
        write(args.out / "samples.csv", sampled(network, problems, PLAN, seed=1))
        by_length = [p for n in LENGTHS for p in problem_rows(12, seed=2, operands=n)]
        write(args.out / "by_length.csv", sampled(network, by_length, {0.8: 8}, seed=2))
    if "selectors" in args.parts:
        rows = read(args.out / "samples.csv")
        each = [[r for r in rows if r["problem"] == p] for p in range(args.problems)]
        write(args.out / "by_problem.csv", [by_problem(own, p) for p, own in enumerate(each)])
    if "searches" in args.parts:
        few = problems[: args.problems // 2]
        write(args.out / "searches.csv", [r for s in (1, 2, 3) for r in asyncio.run(searched(network, few, seed=s))])
    print(round(time.process_time() - began, 1), "s of processor time")


if __name__ == "__main__":
    main()
