"""Forest of thought."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from isoflop.levers.think._answers import vote
from isoflop.levers.think._ask import Ask, at_least, filled, needs_score, settings_of, together
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._tree import STEPS, Steps, Tree, conclude, grow, ranked, value
from isoflop.levers.think._types import Answer, Model, Problem, Score

MEND = """{problem}

### Solution so far
{before}

### Next step, which looks wrong
{step}

Write that next step again, corrected. Write this one step only."""


@dataclass(frozen=True)
class Mend:
    """A step that scores below `below` is written again; template: with {step}, and {problem} and {before}."""

    below: float = 0.3
    template: str = MEND


async def forest(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    trees: int = 4,
    active: int = 2,
    mend: Any = 0.3,
    steps: Any = STEPS,
    seed: int = 0,
) -> Answer:
    """`trees` greedy trees with sparse activation, self-correction and consensus

    Each level, the `active` unfinished trees with the best step so far go on, drawing steps.expand steps each; the
    others wait. A best step that scores below `mend` is written again once, and the better of the two stays. The forest
    stops when more than half of all trees agree. Consensus: the vote of the trees; a tie goes to the tree of highest
    score. mend: that score, or the fields of `Mend` (below, template). Source: Bi et al. 2024 (arXiv 2412.09078):
    sparse activation, dynamic self-correction (there by the model's own confidence), consensus-guided decision. Raises
    ValueError without a score.
    """
    at_least("forest", trees=trees, active=active)
    how = settings_of(Steps, steps)
    again = settings_of(Mend, {"below": mend} if isinstance(mend, int | float) else mend)
    again = replace(again, template=template_of(again.template, "forest", "step"))
    ask = Ask(problem, model, needs_score(score, "forest"), seed, how.temperature)
    tree = Tree()
    at = (await grow(ask, tree, [(0, trees)], how))[:trees]
    mended = 0
    while not ask.spent and not _agreed(ask, tree, at, trees):
        waiting = [i for i, node in enumerate(at) if not tree.done[node]]
        lively = sorted(waiting, key=lambda i: (-tree.value[at[i]], i))[:active]
        fresh = await grow(ask, tree, [(at[i], how.expand) for i in lively], how)
        if not fresh:
            break
        best = [ranked(tree, tree.children[at[i]])[:1] or [at[i]] for i in lively]
        mended += sum(tree.value[b[0]] < again.below for b in best)
        better = await together([_mend(ask, tree, b[0], how, again) for b in best])
        for i, node in zip(lively, better, strict=True):
            at[i] = node
    return _consensus(ask, tree, at, how, mended)


def _agreed(ask: Ask, tree: Tree, at: list[int], trees: int) -> bool:
    if all(tree.done[node] for node in at):
        return True
    keys = [ask.model.key(tree.text(node)) for node in at if tree.done[node]]
    return max(vote(keys).weights.values(), default=0) > trees / 2


async def _mend(ask: Ask, tree: Tree, node: int, how: Steps, again: Mend) -> int:
    """The node, or its corrected twin where that scores higher."""
    if tree.value[node] >= again.below or tree.done[node]:
        return node
    parent = tree.parent[node]
    step, before = tree.step[node].strip(), tree.text(parent)
    prompt = filled(again.template, problem=ask.problem.prompt, before=before, step=step)
    got = await ask.branch(f"mend{node}")(prompt, max_tokens=how.max_tokens, stop=(how.separator,))
    if not got or not got[0].text.strip():
        return node
    twin = tree.add(parent, got[0].text + how.separator, tokens=got[0].gen_tokens)
    await value(ask, tree, [twin], how)
    return twin if tree.value[twin] > tree.value[node] else node


def _consensus(ask: Ask, tree: Tree, at: list[int], how: Steps, mended: int) -> Answer:
    ended = [node for node in at if tree.done[node]]
    keys = [ask.model.key(tree.text(node)) for node in ended]
    won = vote(keys)
    agreed = [node for node, k in zip(ended, keys, strict=True) if k is not None and k in won.tied]
    told: dict[str, Any] = {"trees": len(at), "mended": mended, "votes": dict(won.weights)}
    return conclude(ask, tree, agreed or ended or at, how, **told)
