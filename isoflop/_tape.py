"""A law, traced once, becomes a tape: its value and its exact first and second derivatives as array operations.

The law runs on symbolic nodes. Each node knows what it depends on: nothing, the rows (a column), the coefficients, or
both. Row-only parts (log N, ...) are computed once a fit, coefficient-only parts once a problem, and only the mixed
rest costs (problems x rows) work. Derivatives are built by rule on the same graph, so equal parts are shared and
structural zeros cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONST, ROW, COEF, MIXED = 0, 1, 2, 3  # what a node depends on; MIXED == ROW | COEF


def _softplus(x: Any, out: Any = None) -> Any:
    return np.logaddexp(0.0, x, out=out)


def _expit(x: Any, out: Any = None) -> Any:
    half = np.multiply(x, 0.5, out=out)
    half = np.tanh(half, out=out)
    half = np.add(half, 1.0, out=out)
    return np.multiply(half, 0.5, out=out)


def _select(cond: Any, a: Any, b: Any, out: Any = None) -> Any:
    value = np.where(cond, a, b)
    if out is None:
        return value
    out[...] = value
    return out


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "exp": np.exp,
    "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt, "square": np.square, "abs": np.abs,
    "sign": np.sign, "tanh": np.tanh, "softplus": _softplus, "expit": _expit, "where": _select, "lt": np.less,
    "le": np.less_equal, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One symbolic value. Arithmetic on nodes builds the graph; laws never need to know."""

    graph: Graph = field(repr=False)
    op: str
    args: tuple[Node, ...]
    value: Any  # a number for "const", a column's name for "col", an index for "coef"
    level: int
    positive: bool  # known to be > 0 for every row and coefficient
    index: int  # order of creation: operands are sorted by it, so that sums round the same way in every process

    __array_ufunc__ = None  # numpy defers to the reflected operators below

    def __add__(self, other: Any) -> Node:
        return self.graph.add(self, other)

    def __sub__(self, other: Any) -> Node:
        return self.graph.sub(self, other)

    def __mul__(self, other: Any) -> Node:
        return self.graph.mul(self, other)

    def __truediv__(self, other: Any) -> Node:
        return self.graph.div(self, other)

    def __pow__(self, other: Any) -> Node:
        return self.graph.pow(self, other)

    def __radd__(self, other: Any) -> Node:
        return self.graph.add(other, self)

    def __rsub__(self, other: Any) -> Node:
        return self.graph.sub(other, self)

    def __rmul__(self, other: Any) -> Node:
        return self.graph.mul(other, self)

    def __rtruediv__(self, other: Any) -> Node:
        return self.graph.div(other, self)

    def __rpow__(self, other: Any) -> Node:
        return self.graph.pow(other, self)

    def __neg__(self) -> Node:
        return self.graph.mul(-1.0, self)

    def __lt__(self, other: Any) -> Node:
        return self.graph.make("lt", self, other)

    def __le__(self, other: Any) -> Node:
        return self.graph.make("le", self, other)

    def __gt__(self, other: Any) -> Node:
        return self.graph.make("lt", other, self)

    def __ge__(self, other: Any) -> Node:
        return self.graph.make("le", other, self)

    def __bool__(self) -> bool:
        raise TypeError("a law is traced once for all rows: use xp.where(condition, a, b) instead of if/and/or")

    def __float__(self) -> float:
        raise TypeError("a law may use arithmetic and the names of isoflop.xp only, not math.* or float()")


class Graph:
    """Nodes of one law, each made once (equal expressions are one node), with the rewrites that keep them stable."""

    def __init__(self, positive_columns: Iterable[str] = ()) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._positive = frozenset(positive_columns)
        self.merging = True  # exp(a) * exp(b) -> exp(a + b): a gain while tracing, a loss in derivatives

    # -- leaves
    def const(self, value: float) -> Node:
        return self._intern("const", (), float(value), CONST, value > 0)

    def column(self, name: str) -> Node:
        return self._intern("col", (), name, ROW, name in self._positive)

    def coef(self, index: int, *, positive: bool = False) -> Node:
        return self._intern("coef", (), index, COEF, positive)

    def _intern(self, op: str, args: tuple[Node, ...], value: Any, level: int, positive: bool) -> Node:
        key = (op, value, *map(id, args))
        if key not in self._nodes:
            self._nodes[key] = Node(self, op, args, value, level, positive, len(self._nodes))
        return self._nodes[key]

    def lift(self, value: Any) -> Node:
        if isinstance(value, Node):
            return value
        if isinstance(value, int | float | np.integer | np.floating) or getattr(value, "shape", None) == ():
            return self.const(float(value))
        raise TypeError(f"a law works on columns, coefficients and numbers; got {type(value).__name__}")

    # -- operations
    def make(self, op: str, *operands: Any) -> Node:
        args = tuple(self.lift(a) for a in operands)
        level = 0
        for a in args:
            level |= a.level
        if level == CONST:
            with np.errstate(all="ignore"):
                return self.const(float(FUNCTIONS[op](*(a.value for a in args))))
        positive = op in _ALWAYS_POSITIVE or (op in _KEEPS_POSITIVE and all(a.positive for a in args))
        return self._intern(op, args, None, level, positive)

    def add(self, a: Any, b: Any) -> Node:
        a, b = self.lift(a), self.lift(b)
        if _is(a, 0.0):
            return b
        if _is(b, 0.0):
            return a
        if b.op == "mul" and _is(b.args[0], -1.0):
            return self.make("sub", a, b.args[1])
        if a.op == "mul" and _is(a.args[0], -1.0):
            return self.make("sub", b, a.args[1])
        return self.make("add", *self._sorted(a, b))

    def sub(self, a: Any, b: Any) -> Node:
        a, b = self.lift(a), self.lift(b)
        if a is b:
            return self.const(0.0)
        if _is(b, 0.0):
            return a
        if _is(a, 0.0):
            return self.mul(-1.0, b)
        if b.op == "mul" and _is(b.args[0], -1.0):
            return self.add(a, b.args[1])
        return self.make("sub", a, b)

    def mul(self, a: Any, b: Any) -> Node:
        a, b = self._sorted(self.lift(a), self.lift(b))
        if _is(a, 0.0):
            return a
        if _is(a, 1.0):
            return b
        if a.op == "const" and b.op == "mul" and b.args[0].op == "const":
            return self.mul(a.value * b.args[0].value, b.args[1])
        if a.op == "const" and b.op == "sub" and a.value == -1.0:
            return self.make("sub", b.args[1], b.args[0])
        if a.op == "const" and b.op == "mul" and b.level == MIXED and b.args[0].level in (ROW, COEF):
            return self.mul(self.mul(a, b.args[0]), b.args[1])  # numbers join what is computed once
        for x, y in ((a, b), (b, a)):  # else they go outermost, so that they meet and cancel
            if x.op != "const" and y.op == "mul" and y.level == MIXED and y.args[0].op == "const":
                return self.mul(y.args[0], self.mul(x, y.args[1]))
        if self.merging and a.op == b.op == "exp":
            return self.exp(self.add(a.args[0], b.args[0]))
        if a is b:
            return self.make("square", a)
        return self.make("mul", a, b)

    def div(self, a: Any, b: Any) -> Node:
        a, b = self.lift(a), self.lift(b)
        if b.op == "const":
            return self.mul(1.0 / b.value, a)
        if b.op == "exp":
            return self.mul(a, self.exp(self.mul(-1.0, b.args[0])))
        if b.op == "add" and _is(b.args[0], 1.0) and b.args[1].op == "exp":
            return self.mul(a, self.make("expit", self.mul(-1.0, b.args[1].args[0])))
        if b.level != MIXED and not _is(a, 1.0):
            return self.mul(a, self.make("div", 1.0, b))
        return self.make("div", a, b)

    def pow(self, a: Any, b: Any) -> Node:
        a, b = self.lift(a), self.lift(b)
        if b.op == "const":
            if b.value in (0.0, 1.0):
                return a if b.value else self.const(1.0)
            if b.value in (-1.0, 2.0):
                return self.mul(a, a) if b.value == 2.0 else self.div(1.0, a)
            if not a.positive:
                return self.make("pow", a, b)
        return self.exp(self.mul(b, self.log(a)))

    def exp(self, a: Any) -> Node:
        a = self.lift(a)
        return a.args[0] if a.op == "log" else self.make("exp", a)

    def log(self, a: Any) -> Node:
        a = self.lift(a)
        if a.op == "exp":
            return a.args[0]
        if a.op == "add" and _is(a.args[0], 1.0) and a.args[1].op == "exp":
            return self.make("softplus", a.args[1].args[0])
        if a.op in ("mul", "div") and all(x.positive for x in a.args):
            return (self.add if a.op == "mul" else self.sub)(self.log(a.args[0]), self.log(a.args[1]))
        return self.make("log", a)

    def where(self, cond: Any, a: Any, b: Any) -> Node:
        a, b = self.lift(a), self.lift(b)
        return a if a is b else self.make("where", cond, a, b)

    def call(self, name: str, *args: Any) -> Node:
        if name == "logaddexp":
            a, b = self.lift(args[0]), self.lift(args[1])
            return self.add(a, self.make("softplus", self.sub(b, a)))
        special: dict[str, Callable[..., Node]] = {
            "exp": self.exp,
            "log": self.log,
            "where": self.where,
            "power": self.pow,
            "square": lambda a: a * a,
        }
        return special[name](*args) if name in special else self.make(name, *args)

    def _sorted(self, a: Node, b: Node) -> tuple[Node, Node]:
        return (a, b) if (a.level, a.index) <= (b.level, b.index) else (b, a)


_ALWAYS_POSITIVE = frozenset({"exp", "softplus", "expit"})
_KEEPS_POSITIVE = frozenset(
    {"add", "mul", "div", "pow", "sqrt", "square", "abs", "log1p", "expm1", "maximum", "minimum"}
)


def _is(node: Node, value: float) -> bool:
    return node.op == "const" and node.value == value


Partials = tuple[dict[int, Node], dict[tuple[int, int], Node]]  # first and (upper-triangle) second derivatives


def differentiate(root: Node) -> Partials:
    """Exact first and second derivatives of `root` by every coefficient node it contains; zeros are left out."""
    graph, done = root.graph, dict[int, Partials]()
    graph.merging = False
    for node in _topological([root]):
        done[id(node)] = _partials(graph, node, [done[id(a)] for a in node.args])
    return done[id(root)]


def _partials(g: Graph, node: Node, inner: list[Partials]) -> Partials:
    if node.op == "coef":
        return {node.value: g.const(1.0)}, {}
    if not node.level & COEF or node.op in ("lt", "le", "sign"):
        return {}, {}
    if node.op in ("add", "sub"):
        sign = 1.0 if node.op == "add" else -1.0
        return _combine(g, [(g.const(1.0), inner[0]), (g.const(sign), inner[1])])
    if node.op == "mul":
        return _product(g, node.args[0], node.args[1], inner[0], inner[1])
    if node.op == "div":
        inverse = g.div(1.0, node.args[1])
        square = g.mul(inverse, inverse)
        slope = _chain(g, g.mul(-1.0, square), g.mul(2.0, g.mul(square, inverse)), inner[1])
        return _product(g, node.args[0], inverse, inner[0], slope)
    if node.op == "where":
        return _branches(g, node.args[0], inner[1], inner[2])
    if node.op in ("maximum", "minimum"):
        a, b = node.args if node.op == "maximum" else node.args[::-1]
        return _branches(g, a >= b, inner[0], inner[1])
    return _chain(g, *_unary(g, node), inner[0])


def _unary(g: Graph, node: Node) -> tuple[Node, Node]:
    """First and second derivative of a one-argument function at its argument."""
    x = node.args[0]
    if node.op == "exp":
        return node, node
    if node.op == "expm1":
        return node + 1.0, node + 1.0
    if node.op in ("log", "log1p"):
        inverse = g.div(1.0, x if node.op == "log" else 1.0 + x)
        return inverse, -g.mul(inverse, inverse)
    if node.op == "sqrt":
        return g.div(0.5, node), g.div(-0.25, g.mul(node, x))
    if node.op == "square":
        return 2.0 * x, g.const(2.0)
    if node.op == "pow":
        power = node.args[1].value
        return power * g.make("pow", x, power - 1.0), power * (power - 1.0) * g.make("pow", x, power - 2.0)
    if node.op == "softplus":
        share = g.make("expit", x)
        return share, g.mul(share, 1.0 - share)
    if node.op == "expit":
        slope = g.mul(node, 1.0 - node)
        return slope, g.mul(slope, 1.0 - 2.0 * node)
    if node.op == "tanh":
        slope = 1.0 - g.mul(node, node)
        return slope, -2.0 * g.mul(node, slope)
    if node.op == "abs":
        return g.make("sign", x), g.const(0.0)
    raise TypeError(f"no derivative rule for {node.op!r}")


def _combine(g: Graph, terms: list[tuple[Node, Partials]]) -> Partials:
    first: dict[int, Node] = {}
    second: dict[tuple[int, int], Node] = {}
    for factor, (grad, hess) in terms:
        for i, node in grad.items():
            first[i] = g.add(first.get(i, 0.0), g.mul(factor, node))
        for ij, node in hess.items():
            second[ij] = g.add(second.get(ij, 0.0), g.mul(factor, node))
    return first, {ij: n for ij, n in second.items() if not _is(n, 0.0)}


def _product(g: Graph, x: Node, y: Node, dx: Partials, dy: Partials) -> Partials:
    first, second = _combine(g, [(y, dx), (x, dy)])
    for i, xi in dx[0].items():
        for j, yj in dy[0].items():
            ij = (min(i, j), max(i, j))
            twice = 2.0 if i == j else 1.0
            second[ij] = g.add(second.get(ij, 0.0), g.mul(twice, g.mul(xi, yj)))
    return first, second


def _chain(g: Graph, slope: Node, bend: Node, inner: Partials) -> Partials:
    first = {i: g.mul(slope, node) for i, node in inner[0].items()}
    second = {ij: g.mul(slope, node) for ij, node in inner[1].items()}
    if not _is(bend, 0.0):
        for i, xi in inner[0].items():
            for j, xj in inner[0].items():
                if i <= j:  # slope_i is often made already (exp): bend * x_i * x_j shares it
                    shared = g.mul(first[i], xj) if bend is slope else g.mul(bend, g.mul(xi, xj))
                    second[i, j] = g.add(second.get((i, j), 0.0), shared)
    return first, second


def _branches(g: Graph, cond: Node, da: Partials, db: Partials) -> Partials:
    zero = g.const(0.0)
    first = {i: g.where(cond, da[0].get(i, zero), db[0].get(i, zero)) for i in da[0].keys() | db[0].keys()}
    second = {ij: g.where(cond, da[1].get(ij, zero), db[1].get(ij, zero)) for ij in da[1].keys() | db[1].keys()}
    return first, second


def _topological(roots: Iterable[Node]) -> list[Node]:
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in roots][::-1]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if id(a) not in seen)
    return order


@dataclass(frozen=True, slots=True)
class _Step:
    """One array operation: function, operand slots, and where the result goes (-1: a fresh small array)."""

    function: Callable[..., Any]
    args: tuple[int, ...]
    result: int
    register: int


class Tape:
    """Value, gradient and Hessian entries of one law, ready to run on blocks of (problems, rows).

    `outputs` lists the nodes that are written to the block: the value, the p first derivatives, then each second
    derivative that is not already among them. `second[(i, j)]` is the output's index, from the gradient's start.
    """

    def __init__(self, root: Node, n_coef: int) -> None:
        graph = root.graph
        first, second = differentiate(root)
        zero = graph.const(0.0)
        listed = [first.get(i, zero) for i in range(n_coef)]
        self.second: dict[tuple[int, int], int] = {}
        for ij, node in second.items():
            if node not in listed:
                listed.append(node)
            self.second[ij] = listed.index(node)
        self.outputs = [root, *listed]
        self.n_out = len(listed)
        self._compile()

    def _compile(self) -> None:
        order = _topological(self.outputs)
        self._slot = {id(n): k for k, n in enumerate(order)}
        self._row_steps = [n for n in order if n.level == ROW]
        asked = {id(n) for n in self.outputs} | {id(a) for n in order if n.level == MIXED for a in n.args}
        self.row_nodes = [n for n in self._row_steps if id(n) in asked]
        self._consts = [(self._slot[id(n)], n.value) for n in order if n.op == "const"]
        self._leaves = [(self._slot[id(n)], n.value) for n in order if n.op == "coef"]
        self._coef_steps = [self._step(n, -1) for n in order if n.level == COEF and n.args]
        mixed = [n for n in order if n.level == MIXED]
        self._mixed_steps, self.n_registers = self._allocate(mixed)
        self._n_slots = len(order)
        owner = {id(n): k for k, n in reversed(list(enumerate(self.outputs)))}
        self._copies = [
            (k, self._slot[id(n)]) for k, n in enumerate(self.outputs) if n.level != MIXED or owner[id(n)] != k
        ]

    def _step(self, node: Node, register: int) -> _Step:
        args = tuple(self._slot[id(a)] for a in node.args)
        return _Step(FUNCTIONS[node.op], args, self._slot[id(node)], register)

    def _allocate(self, mixed: list[Node]) -> tuple[list[_Step], int]:
        """Registers by last use, so that the working set stays in the cache. Outputs own the first registers."""
        own = {id(n): k for k, n in reversed(list(enumerate(self.outputs)))}
        last = {id(a): step for step, node in enumerate(mixed) for a in node.args}
        free: list[int] = []
        count = len(self.outputs)
        place: dict[int, int] = {}
        steps = []
        for step, node in enumerate(mixed):
            if id(node) in own:
                register = own[id(node)]
            elif free:
                register = free.pop()
            else:
                register, count = count, count + 1
            place[id(node)] = register
            steps.append(self._step(node, register))
            for a in set(node.args):
                if a.level == MIXED and id(a) not in own and last[id(a)] == step:
                    free.append(place[id(a)])
        return steps, count

    def rows(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Row-only parts, shape (row nodes, rows), computed once for the whole fit."""
        n = len(next(iter(columns.values()))) if columns else 0
        out = np.empty((len(self.row_nodes), n))
        done: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            for node in self._row_steps:
                if node.op == "col":
                    value = columns[node.value]
                else:
                    value = FUNCTIONS[node.op](*(a.value if a.op == "const" else done[id(a)] for a in node.args))
                done[id(node)] = value
            for k, node in enumerate(self.row_nodes):
                out[k] = done[id(node)]
        return out

    def run(self, theta: np.ndarray, rows: np.ndarray, work: np.ndarray, scratch: np.ndarray) -> None:
        """Write value and derivatives at `theta` (problems, p) for one block of rows into `work`.

        work: (1 + n_out, problems, rows), scratch: (registers, problems, rows). Results are whole planes: where their
        memory interleaves with an operand's, numpy copies.
        """
        slots: list[Any] = [None] * self._n_slots
        for k, value in self._consts:
            slots[k] = value
        for k, node in enumerate(self.row_nodes):
            slots[self._slot[id(node)]] = rows[k]
        for k, index in self._leaves:
            slots[k] = theta[:, index, None]
        for step in self._coef_steps:
            slots[step.result] = step.function(*(slots[a] for a in step.args))
        n_own = len(self.outputs)
        for step in self._mixed_steps:
            out = work[step.register] if step.register < n_own else scratch[step.register - n_own]
            slots[step.result] = step.function(*(slots[a] for a in step.args), out=out)
        for k, slot in self._copies:
            work[k] = slots[slot]
