"""What `_keep` cannot settle by itself, as an integer program for HiGHS."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from isoflop.levers.think._keep import Kept


def solve(
    paths: Sequence[Sequence[Hashable]], rewards: Sequence[float], price: float, labels: Sequence[Hashable],
    bonus: float,
) -> Kept:  # fmt: skip
    """See `_keep.keep`. A binary for each leaf; nodes and labels come out whole by themselves."""
    milp, constraint, bounds, sparse = _scipy()
    n = len(paths)
    inner = {node: n + i for i, node in enumerate(dict.fromkeys(node for path in paths for node in path[:-1]))}
    group = {label: n + len(inner) + i for i, label in enumerate(dict.fromkeys(labels))}
    size = n + len(inner) + len(group)
    cost = np.full(size, price)
    cost[:n] -= rewards
    cost[n + len(inner) :] = -bonus
    rows = [([below], [above]) for below, above in _links(paths, inner)]  # a node needs the one above it
    for label, column in group.items():  # a label needs one of its leaves
        rows.append(([column], [i for i, x in enumerate(labels) if x == label]))
    rows.append(([], list(range(n))))  # not empty
    top = np.zeros(len(rows))
    top[-1] = -1.0
    options = {"mip_rel_gap": 0.0, "node_limit": 10_000}
    matrix = constraint(_matrix(sparse, rows, size), -np.inf, top)
    found = milp(cost, constraints=matrix, integrality=np.arange(size) < n, bounds=bounds(0, 1), options=options)
    if found.x is None:
        leaf = max(range(n), key=lambda i: (rewards[i] - price * len(paths[i]), -i))
        return Kept((leaf,), float(rewards[leaf] - price * len(paths[leaf]) + bonus), np.inf)
    leaves = tuple(i for i in range(n) if found.x[i] > 0.5)
    gap = max(0.0, float(found.fun - found.mip_dual_bound))
    return Kept(leaves, -float(found.fun), gap if gap > 1e-6 else 0.0)


def _scipy() -> tuple:
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array
    except ImportError:
        raise ImportError("this search solves an integer program with scipy: pip install 'isoflop[think]'") from None
    return milp, LinearConstraint, Bounds, csr_array


def _links(paths: Sequence[Sequence[Hashable]], inner: dict[Hashable, int]) -> list[tuple[int, int]]:
    """Columns of nodes and of the nodes above them, each pair once."""
    pairs: dict[tuple[int, int], None] = {}
    for i, path in enumerate(paths):
        columns = [*(inner[node] for node in path[:-1]), i]
        pairs |= dict.fromkeys(zip(columns[1:], columns, strict=False))
    return list(pairs)


def _matrix(sparse: Any, rows: Sequence[tuple[list[int], list[int]]], size: int) -> Any:
    """Rows of +1 and -1 at the columns given."""
    place = [(r, c, sign) for r, both in enumerate(rows) for cs, sign in zip(both, (1, -1), strict=True) for c in cs]
    at, column, value = zip(*place, strict=True)
    return sparse((np.array(value, float), (at, column)), shape=(len(rows), size))
