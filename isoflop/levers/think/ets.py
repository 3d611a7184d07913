"""Efficient tree search: keep nodes by reward, cache cost and coverage together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isoflop.levers.think._ask import Ask, at_least, needs_score, settings_of
from isoflop.levers.think._keep import clusters, keep
from isoflop.levers.think._tree import STEPS, Steps, Tree, allot, conclude, grow
from isoflop.levers.think._types import Answer, Model, Problem, Score


async def ets(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 16,
    cache: float = 1.0,
    cover: float = 1.5,
    steps: Any = STEPS,
    seed: int = 0,
) -> Answer:
    """REBASE on the subset S of open nodes that maximises

    sum over S of their REBASE shares - cache x (nodes on the paths of S) / (all such nodes) + cover x (clusters of
    steps that S touches) / (all clusters). Sharing a path is cheap, so the cache stays small; each cluster of steps
    that mean the same needs one node only, so what is pruned is said elsewhere. cache and cover are the paper's
    lambda_c and lambda_s (its settings: 1 to 2). The program is solved exactly, see `_keep`. Steps are clustered by
    their words (cosine, average linkage at distance 0.05; the paper embeds them with a model). Source: Hooper et al.
    2025 (arXiv 2502.13575), section 4. Raises ValueError without a score, ImportError where the program needs a solver
    and there is no scipy.
    """
    at_least("ets", n=n)
    how = settings_of(Steps, steps)
    ask = Ask(problem, model, needs_score(score, "ets"), seed, how.temperature)
    tree = Tree()
    alive: list[int] = [0]
    ended: list[int] = []
    cached = full = 0
    gap = 0.0
    while alive and len(ended) < n and not ask.spent:
        kept, worst = select(tree, alive, n - len(ended), how, cache=cache, cover=cover)
        full, cached, gap = full + tree.kept_tokens(alive), cached + tree.kept_tokens(kept), max(gap, worst)
        counts = allot([tree.value[a] for a in kept], n - len(ended), how.heat)
        fresh = await grow(ask, tree, [(a, c) for a, c in zip(kept, counts, strict=True) if c], how)
        if not fresh:
            break
        ended += [f for f in fresh if tree.done[f]]
        alive = [f for f in fresh if not tree.done[f]]
    told: dict[str, Any] = {"cached_tokens": cached, "cached_tokens_unpruned": full, "gap": gap}
    return conclude(ask, tree, ended or alive, how, **told)


def select(
    tree: Tree,
    alive: Sequence[int],
    width: int,
    how: Steps,
    *,
    cache: float,
    cover: float,
    group: Callable[[Sequence[str]], Sequence[int]] = clusters,
) -> tuple[list[int], float]:
    """The open nodes to keep, in order, and by how much the optimum could be better (0 where it was proven).

    group: from the nodes' steps to a cluster number each.
    """
    if len(alive) < 2:
        return list(alive), 0.0
    shares = allot([tree.value[a] for a in alive], width, how.heat)
    total = sum(shares) or 1
    inner = {i for a in alive for i in [0, *tree.path(a)[:-1]]}
    price = cache / (len(inner) + len(alive))
    labels = group([tree.step[a] for a in alive])
    bonus = cover / len(set(labels)) if len(set(labels)) > 1 else 0.0
    chosen = keep(
        [[0, *tree.path(a)] for a in alive],
        [s / total for s in shares],
        price=price,
        labels=labels,
        bonus=bonus,
    )
    return [alive[i] for i in chosen.leaves], chosen.gap
