"""Searches over steps: the tree they share, what they keep, and how right they are."""

import asyncio
from itertools import combinations

import numpy as np
import pytest
from _think_fakes import FakeModel, FakeScore, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.levers.think._keep import clusters, keep
from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think._tree import Steps, Tree, allot, conclude
from isoflop.levers.think.ets import select as select_ets
from isoflop.levers.think.mcts import select

SEARCHES = ("beam", "dvts", "rebase", "ets", "mcts", "forest")


def answer(name, model, score=None, number=0, **own):
    if name == "ets":
        pytest.importorskip("scipy", reason="it solves an integer program: pip install 'isoflop[think]'")
    return asyncio.run(get_strategy(name)(problem(number), model, score or FakeScore(), **own))


def accuracy(name, p, n=100, score=None, **own):
    many = [answer(name, FakeModel(p), score, number=i, seed=i, **own) for i in range(n)]
    return np.mean([a.key == str(100 + i) for i, a in enumerate(many)])


# -- strategies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_process_scores_find_what_sampling_misses(name):
    """Steps good with probability .6: a chain of four is right with .13; a search is three times that."""
    assert accuracy(name, 0.6**4, n=60, steps=Steps(separator="\n\n")) > 3 * 0.6**4


@pytest.mark.parametrize("name", SEARCHES)
def test_whole_text_scores_serve_where_there_are_no_process_scores(name):
    assert answer(name, FakeModel(0.5), FakeScore(process=False)).key is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_texts_are_whole_chains(name):
    found = answer(name, FakeModel(0.9))
    assert [f"Step {i}" in found.text for i in (1, 2, 3, 4)] == [True, True, True, False]
    assert found.text.count("\\boxed{") == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_depth_is_the_most_steps(name):
    shallow = answer(name, FakeModel(0.9, steps=12), steps={"depth": 2})
    assert shallow.key is not None


def test_settings_of_steps_are_checked():
    with pytest.raises(ValueError, match="no aggregate='median'"):
        answer("beam", FakeModel(), steps={"aggregate": "median"})
    with pytest.raises(ValueError, match="unexpected keyword argument 'with'"):
        answer("beam", FakeModel(), steps={"with": 3})
    with pytest.raises(ValueError, match="must be a Steps or a mapping, not int"):
        answer("beam", FakeModel(), steps=3)
    with pytest.raises(ValueError, match="no choose='all'"):
        Steps(choose="all")
    with pytest.raises(ValueError, match="depth and expand"):
        Steps(depth=0)
    with pytest.raises(ValueError, match=r"n / expand=0\.5"):
        answer("beam", FakeModel(), n=2)


def test_a_search_costs_what_its_width_says():
    """n texts of three steps and an answer each, and never more than n drawn a level."""
    for name in ("beam", "dvts", "rebase"):
        model = FakeModel(1.0)
        answer(name, model, n=8)
        assert len(model.seeds) <= 8 * 4


def test_ets_keeps_less_in_the_cache():
    cheap = answer("ets", FakeModel(0.5), n=16, cache=2.0, seed=2)
    dear = answer("ets", FakeModel(0.5), n=16, cache=0.0, seed=2)
    assert cheap.info["cached_tokens"] < 0.8 * cheap.info["cached_tokens_unpruned"]
    assert dear.info["cached_tokens"] == dear.info["cached_tokens_unpruned"]
    assert cheap.info["gap"] == 0.0


def test_forest_stops_at_consensus_and_mends():
    sure = answer("forest", FakeModel(1.0), trees=5)
    assert max(sure.info["votes"].values()) > 2.5
    assert answer("forest", FakeModel(0.05)).info["mended"] > 0
    assert answer("forest", FakeModel(0.9), mend=0.0).info["mended"] == 0


def test_mcts_writes_its_best_line_to_the_end():
    found = answer("mcts", FakeModel(1.0, steps=30), iterations=2)
    assert found.key == "100"


# -- the tree -------------------------------------------------------------------------------------------------------


def grown(n, branching, seed=0):
    rng = np.random.default_rng(seed)
    tree = Tree()
    for node in range(1, n):
        tree.back_up(tree.add((node - 1) // branching, f"{node} ", tokens=node % 7 + 1), rng.random())
    return tree


def test_texts_and_paths():
    tree = grown(40, 3)
    assert tree.path(0) == []
    assert tree.path(39) == [*tree.path(tree.parent[39]), 39]
    assert tree.text(39).split() == [str(i) for i in tree.path(39)]


def test_values_are_backed_up_to_the_root():
    tree = grown(40, 3)
    assert tree.visits[0] == 39
    assert tree.visits[1] == 1 + sum(1 in tree.path(n) for n in range(2, 40))
    assert tree.total[0] == pytest.approx(sum(np.random.default_rng(0).random(39)))


def test_shared_paths_are_kept_once():
    tree = grown(40, 3)
    for nodes in ([39], [39, 38], [39, 20, 7], range(40)):
        union = {i for n in nodes for i in tree.path(n)}
        assert tree.kept_tokens(nodes) == sum(tree.tokens[i] for i in union)


def test_selection_is_by_upper_confidence():
    tree = Tree()
    a, b, c = (tree.add(0, s) for s in "abc")
    tree.back_up(a, 1.0)
    tree.back_up(b, 0.0)
    assert tree.best_child(0, 1.0) == c
    tree.back_up(c, 0.5)
    assert tree.best_child(0, 0.0) == a
    for _ in range(50):
        tree.back_up(a, 0.6)
    assert tree.best_child(0, 2.0) != a


def test_work_of_a_step_does_not_grow_with_the_tree():
    """Counted, not timed: the nodes that a step looks at, at 100 and at 10,000 nodes of the same depth."""

    class Counting(list):
        looked = 0

        def __getitem__(self, i):
            Counting.looked += 1
            return super().__getitem__(i)

    looked = []
    for n, branching in ((100, 5), (10_000, 22)):  # three levels each
        tree = grown(n, branching)
        for name in ("parent", "visits", "total", "children"):
            setattr(tree, name, Counting(getattr(tree, name)))
        Counting.looked = 0
        node = select(tree, 1.4)
        tree.back_up(tree.add(node, "x"), 0.5)
        looked.append(Counting.looked / branching)
    assert looked[1] < 1.5 * looked[0]


def test_conclusions_prefer_finished_texts_with_an_answer():
    from isoflop.levers.think._ask import Ask

    ask = Ask(problem(), FakeModel(), FakeScore())
    tree = Tree()
    none = tree.add(0, "no answer", done=True, value=0.9)
    good = tree.add(0, "\\boxed{1}", done=True, value=0.5)
    also = tree.add(0, "\\boxed{2}", done=True, value=0.3)
    more = tree.add(0, "\\boxed{2}.", done=True, value=0.3)
    unfinished = tree.add(0, "\\boxed{3}", value=1.0)
    ends = [none, good, also, more, unfinished]
    assert conclude(ask, tree, ends, Steps()).key == "1"
    assert conclude(ask, tree, ends, Steps(choose="vote")).key == "2"
    assert conclude(ask, tree, [unfinished], Steps()).key == "3"
    assert conclude(ask, tree, [], Steps()).text == ""


# -- shares and what to keep ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.integers(1, 64), st.floats(0.05, 2))
def test_shares_add_up_and_follow_the_scores(scores, width, heat):
    counts = allot(scores, width, heat)
    assert sum(counts) == width
    assert min(counts) >= 0
    by_score = [c for _, c in sorted(zip(scores, counts, strict=True), key=lambda x: -x[0])]
    best = max(scores)
    assert by_score[0] == max(counts) or scores.count(best) > 1


def test_shares_are_those_of_the_softmax():
    assert allot([1.0, 1.0], 8, 0.2) == [4, 4]
    assert allot([1.0, 0.8, 0.0], 16, 0.2) == [12, 4, 0]
    assert allot([5.0], 3, 0.1) == [3]


def kept(*args, **settings):
    pytest.importorskip("scipy", reason="it solves an integer program: pip install 'isoflop[think]'")
    return keep(*args, **settings)


def brute(paths, rewards, price, labels, bonus):
    best = -np.inf
    for size in range(1, len(paths) + 1):
        for chosen in combinations(range(len(paths)), size):
            nodes = {n for i in chosen for n in paths[i]}
            value = sum(rewards[i] for i in chosen) - price * len(nodes) + bonus * len({labels[i] for i in chosen})
            best = max(best, value)
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10**6), st.floats(0, 0.4), st.floats(0, 0.6))
def test_what_is_kept_is_optimal(n, seed, price, bonus):
    rng = np.random.default_rng(seed)
    paths = [["root", f"a{rng.integers(3)}"] for _ in range(n)]
    paths = [[*p, p[1] + f"b{rng.integers(2)}", f"leaf{i}"] for i, p in enumerate(paths)]
    rewards = rng.dirichlet(np.ones(n)).tolist()
    labels = rng.integers(0, 4, n).tolist()
    got = kept(paths, rewards, price=price, labels=labels, bonus=bonus)
    assert got.gap == 0.0
    assert got.leaves
    assert got.objective == pytest.approx(
        brute(paths, rewards, price, labels, bonus), abs=2e-6
    )  # the solver's own tolerance


def test_a_large_program_is_solved():
    rng = np.random.default_rng(0)
    paths = [["root", f"a{i % 8}", f"b{i % 32}", f"leaf{i}"] for i in range(256)]
    rewards, labels = rng.dirichlet(np.ones(256)).tolist(), rng.integers(0, 40, 256).tolist()
    got = kept(paths, rewards, price=1 / 297, labels=labels, bonus=1.5 / 40)
    nodes = {n for i in got.leaves for n in paths[i]}
    value = sum(rewards[i] for i in got.leaves) - len(nodes) / 297 + 1.5 / 40 * len({labels[i] for i in got.leaves})
    assert (got.objective, got.gap) == (pytest.approx(value), 0.0)


def test_where_nothing_pays_the_least_bad_is_kept():
    paths = [["root", "a", "b", "x"], ["root", "a", "b", "y"], ["root", "c", "d", "e", "z"]]
    got = kept(paths, [0.3, 0.3, 0.1], price=1.0, labels=[0, 1, 2], bonus=0.9)
    assert (got.leaves, got.gap) == ((0, 1), 0.0)
    assert got.objective == pytest.approx(0.6 - 5 + 1.8)


def test_what_branching_does_not_settle_the_solver_does():
    rng = np.random.default_rng(0)
    paths = [["root", f"a{i % 8}", f"b{i % 32}", f"leaf{i}"] for i in range(64)]
    rewards, labels = rng.dirichlet(np.ones(64)).tolist(), rng.integers(0, 10, 64).tolist()
    got = kept(paths, rewards, price=2 / 64, labels=labels, bonus=0.15)
    nodes = {n for i in got.leaves for n in paths[i]}
    value = sum(rewards[i] for i in got.leaves) - len(nodes) * 2 / 64 + 0.15 * len({labels[i] for i in got.leaves})
    assert (got.objective, got.gap) == (pytest.approx(value), 0.0)


def test_keep_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one leaf"):
        keep([], [])
    with pytest.raises(ValueError, match="not negative"):
        keep([["a"]], [1.0], price=-1)


def test_steps_that_say_the_same_are_one_cluster():
    texts = ["add two and three", "Add  two and three", "take two from three", "add two and three"]
    assert clusters(texts) == [0, 0, 1, 0]
    assert len(set(clusters(["a b c d", "a b c e"], distance=0.3))) == 1


def test_coverage_keeps_what_reward_alone_would_drop():
    pytest.importorskip("scipy", reason="it solves an integer program: pip install 'isoflop[think]'")
    tree = Tree()
    first, second = tree.add(0, "one way", value=1.0), tree.add(0, "quite another", value=-1.0)
    alone, _ = select_ets(tree, [first, second], 8, Steps(), cache=1.0, cover=0.0)
    covered, _ = select_ets(tree, [first, second], 8, Steps(), cache=1.0, cover=1.5)
    assert (alone, covered) == ([first], [first, second])
