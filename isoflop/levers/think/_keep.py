"""Which leaves of a tree to keep: reward, less the cost of their paths, plus a bonus for each group they touch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_BRANCHES = 40  # of our own; where they do not settle it, the solver does


@dataclass(frozen=True)
class Kept:
    """The leaves chosen, in order, their objective, and how far above it the optimum can lie (0: proven)."""

    leaves: tuple[int, ...]
    objective: float
    gap: float


def keep(
    paths: Sequence[Sequence[Hashable]],
    rewards: Sequence[float],
    *,
    price: float = 0.0,
    labels: Sequence[Hashable] | None = None,
    bonus: float = 0.0,
) -> Kept:
    """maximise over S, not empty: sum_{i in S} reward_i - price |union of the paths of S| + bonus |labels of S|

    paths: the nodes from the root to each leaf, the leaf last; each node costs `price` once. Without the bonus this is
    a closure problem on a tree, solved in one pass from the leaves up. The pass with no bonus gives leaves that some
    optimum holds, the pass with a bonus for every leaf those that it is among (the first part of the objective is
    supermodular, the second monotone and submodular); what is left open between the two is branched on by which leaf
    earns its label's bonus, and after 40 branches given to HiGHS as an integer program (10,000 branches, then the best
    found), which needs scipy. Raises ValueError where there is no leaf, or the price or the bonus is negative;
    ImportError where the solver is needed and there is no scipy.
    """
    if not paths or price < 0 or bonus < 0:
        raise ValueError("keep needs at least one leaf, and a price and a bonus that are not negative")
    names = list(labels) if labels is not None and bonus else list(range(len(paths)))
    search = _Search(paths, rewards, price, names, bonus if labels is not None else 0.0)
    search.solve([0.0] * len(paths), search.groups(), 0.0)
    if search.best < 0:  # nothing pays; then each leaf in turn has to be there
        for leaf in range(len(paths)):
            search.force(leaf)
            search.solve([0.0] * len(paths), search.groups(), 0.0)
    if search.settled:
        return Kept(search.leaves, search.best, 0.0)
    from isoflop.levers.think._keep_program import solve

    return solve(paths, rewards, price, names, search.bonus)


class _Search:
    """Branch and bound over which leaf earns each label's bonus. best, leaves: the best found; settled: and proven."""

    def __init__(
        self, paths: Sequence[Sequence[Hashable]], rewards: Sequence[float], price: float, labels: Sequence[Hashable],
        bonus: float,
    ) -> None:  # fmt: skip
        self.paths, self.rewards, self.price, self.labels, self.bonus = paths, rewards, price, labels, bonus
        number = {node: i for i, node in enumerate(dict.fromkeys(n for path in paths for n in path[:-1]))}
        self.number, inner = number, len(number)
        self.up = [-1] * inner + [number[path[-2]] if len(path) > 1 else -1 for path in paths]
        for path in paths:
            for above, below in pairwise(path[:-1]):
                self.up[number[below]] = number[above]
        self.order = sorted(range(inner), key=lambda i: -self._depth(i))
        self.inner, self.cost, self.sunk = inner, [price] * len(self.up), 0.0
        self.best, self.leaves = -np.inf, tuple[int, ...]()
        self.settled, self.left = True, _BRANCHES

    def _depth(self, node: int) -> int:
        depth = 0
        while node >= 0:
            node, depth = self.up[node], depth + 1
        return depth

    def groups(self) -> dict[Hashable, list[int]]:
        """The leaves that may earn each label's bonus: of siblings that share it, the one of highest reward."""
        best: dict[tuple[Hashable, int], int] = {}
        for i, label in enumerate(self.labels if self.bonus else ()):
            place = (label, self.up[self.inner + i])
            if place not in best or self.rewards[i] > self.rewards[best[place]]:
                best[place] = i
        found: dict[Hashable, list[int]] = {}
        for (label, _), i in best.items():
            found.setdefault(label, []).append(i)
        return found

    def force(self, leaf: int) -> None:
        """Have a leaf in every set from now on: its path is paid for, and it earns more than it can cost."""
        self.cost, self.left, much = [self.price] * len(self.up), _BRANCHES, 1.0 + abs(self.rewards[leaf])
        for node in self.paths[leaf][:-1]:
            self.cost[self.number[node]] = 0.0
        self.cost[self.inner + leaf] = -much
        self.sunk = self.price * len(self.paths[leaf]) + much

    def closure(self, credit: Sequence[float]) -> tuple[float, list[int]]:
        """The largest best set of leaves where each earns its reward and credit, and what it is worth."""
        inner, up = self.inner, self.up
        net = [-c for c in self.cost]
        for i, (reward, more) in enumerate(zip(self.rewards, credit, strict=True)):
            net[inner + i] += reward + more
            if net[inner + i] >= 0 and up[inner + i] >= 0:
                net[up[inner + i]] += net[inner + i]
        total = sum(net[i] for i in range(inner, len(net)) if up[i] < 0 and net[i] >= 0)
        for node in self.order:
            if net[node] >= 0 and up[node] >= 0:
                net[up[node]] += net[node]
        inside = [False] * len(net)
        for node in reversed(self.order):
            inside[node] = net[node] >= 0 and (up[node] < 0 or inside[up[node]])
            total += net[node] if inside[node] and up[node] < 0 else 0.0
        leaves = range(len(self.rewards))
        return total - self.sunk, [
            i for i in leaves if net[inner + i] >= 0 and (up[inner + i] < 0 or inside[up[inner + i]])
        ]

    def solve(self, credit: list[float], open_: dict[Hashable, list[int]], sure: float) -> None:
        """The best set where leaves earn `credit`, each label of `open_` once by one of its leaves, `sure` besides."""
        while True:
            _, least = self.closure(credit)
            had = {self.labels[i] for i in least}
            sure += self.bonus * sum(label in had for label in open_)
            open_ = {label: leaves for label, leaves in open_.items() if label not in had}
            every = {i for leaves in open_.values() for i in leaves}
            bound, most = self.closure([c + self.bonus * (i in every) for i, c in enumerate(credit)])
            self._take(least)
            self._take(most)
            if bound + sure <= self.best + 1e-12:
                return
            few = {label: [i for i in leaves if i in most] for label, leaves in open_.items()}
            alone = [leaves[0] for leaves in few.values() if len(leaves) == 1]
            for i in alone:
                credit[i] += self.bonus
            changed = bool(alone) or few != open_
            open_ = {label: leaves for label, leaves in few.items() if len(leaves) > 1}
            if not changed:
                break
        if not open_:
            return
        if self.left <= 0 or not self.settled:
            self.settled = False
            return
        label = min(open_, key=lambda name: len(open_[name]))
        rest = {name: leaves for name, leaves in open_.items() if name != label}
        for leaf in open_[label]:
            self.left -= 1
            more = credit.copy()
            more[leaf] += self.bonus
            self.solve(more, rest, sure)

    def _take(self, leaves: Sequence[int]) -> None:
        """Note a set of leaves if it is the best so far."""
        if not leaves:
            return
        nodes: set[int] = set()
        for i in leaves:
            node = self.inner + i
            while node >= 0 and node not in nodes:
                nodes.add(node)
                node = self.up[node]
        value = sum(self.rewards[i] for i in leaves) - self.price * len(nodes)
        value += self.bonus * len({self.labels[i] for i in leaves})
        if value > self.best:
            self.best, self.leaves = value, tuple(leaves)


def clusters(texts: Sequence[str], *, distance: float = 0.05) -> list[int]:
    """Group numbers of texts by their words: average linkage of cosine distances, cut at `distance`."""
    spelt = [" ".join(t.lower().split()) for t in texts]
    weight = Counter(spelt)  # equal texts are one point of that weight
    count = np.array([float(c) for c in weight.values()])
    far = 1.0 - _cosines(list(weight))
    np.fill_diagonal(far, np.inf)
    member = np.arange(len(weight))
    while len(weight) > 1 and far.min() <= distance:
        a, b = sorted(int(i) for i in np.unravel_index(far.argmin(), far.shape))
        far[a] = far[:, a] = (count[a] * far[a] + count[b] * far[b]) / (count[a] + count[b])
        far[b] = far[:, b] = far[a, a] = np.inf
        count[a] += count[b]
        member[member == b] = a
    of_text = dict(zip(weight, member.tolist(), strict=True))
    number = {m: i for i, m in enumerate(dict.fromkeys(of_text[t] for t in spelt))}
    return [number[of_text[t]] for t in spelt]


def _cosines(texts: Sequence[str]) -> np.ndarray:
    """Cosine of the word counts of each pair; 0 with a text of no words."""
    words = [t.split() for t in texts]
    place: dict[str, int] = {}
    columns = [place.setdefault(w, len(place)) for text in words for w in text]
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in words])
    table = np.bincount(rows * len(place) + columns, minlength=len(texts) * len(place)).reshape(len(texts), -1)
    table = table.astype(float)  # whole numbers would miss the fast product
    norm = np.sqrt((table**2).sum(1))
    return (table @ table.T) / np.maximum(np.outer(norm, norm), 1e-300)
