"""Orders: topological, a permutation, the same whatever the lists' order, and for the small cases the one that is best."""

from __future__ import annotations

import os
import subprocess
import sys
from graphlib import CycleError
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.client.rows.order import order


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Any acyclic graph, with its numbers in any order, and some of its tasks wanted."""
    size = draw(st.integers(0, 40))
    names = draw(st.permutations(range(size)))
    dependencies: list[list[int]] = [[] for _ in range(size)]
    for i in range(1, size):
        chosen = draw(st.lists(st.integers(0, i - 1), max_size=min(i, 6), unique=True))
        dependencies[names[i]] = [names[j] for j in chosen]
    wanted = draw(st.lists(st.integers(0, size - 1), unique=True)) if size else []
    return dependencies, wanted


def sequence(dependencies: list[list[int]], wanted: list[int]) -> list[int]:
    """The tasks, first to last."""
    ranks = order(dependencies, wanted)
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def peak_alive(dependencies: list[list[int]], wanted: list[int]) -> int:
    """The most results that somebody still needs, after any of the tasks."""
    uses = [0] * len(dependencies)
    for needed in dependencies:
        for task in needed:
            uses[task] += 1
    alive: set[int] = set()
    peak = 0
    for task in sequence(dependencies, wanted):
        if uses[task] and task not in wanted:
            alive.add(task)
        for dependency in dependencies[task]:
            uses[dependency] -= 1
            if not uses[dependency]:
                alive.discard(dependency)
        peak = max(peak, len(alive))
    return peak


@settings(deadline=None)
@given(graphs())
def test_dependencies_come_first_and_each_task_has_a_rank_of_its_own(graph):
    dependencies, wanted = graph
    ranks = order(dependencies, wanted)
    assert sorted(ranks) == list(range(len(dependencies)))
    for task, needed in enumerate(dependencies):
        assert all(ranks[dependency] < ranks[task] for dependency in needed)


@settings(deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_inside_the_lists_changes_nothing_and_nothing_is_changed(graph, chance):
    dependencies, wanted = graph
    shuffled = [chance.sample(needed, len(needed)) for needed in dependencies]
    before = [list(needed) for needed in shuffled]
    assert order(shuffled, chance.sample(wanted, len(wanted))) == order(dependencies, wanted)
    assert shuffled == before


@settings(deadline=None)
@given(graphs(), st.data())
def test_a_cycle_is_refused_by_its_members(graph, data):
    dependencies, wanted = graph
    size = len(dependencies)
    length = data.draw(st.integers(1, 5))
    # A ring of tasks of its own, which depends on others and on which others depend.
    for i in range(length):
        dependencies.append([size + (i + 1) % length])
    if size:
        dependencies[size].append(data.draw(st.integers(0, size - 1)))
    dependencies.append([size])
    with pytest.raises(ValueError, match="cycle") as caught:
        order(dependencies, wanted)
    assert isinstance(caught.value, CycleError)
    cycle = caught.value.args[1]
    assert cycle[0] == cycle[-1]
    assert sorted(cycle[:-1]) == list(range(size, size + length))
    assert all(dependency in dependencies[task] for task, dependency in pairwise(cycle))


def test_the_seed_of_the_hashes_changes_nothing():
    program = """
import random
from treadle.client.rows.order import order
chance = random.Random(1)
graph = [[*{chance.randrange(max(0, i - 30), i) for _ in range(3)}] if i else [] for i in range(500)]
print(order(graph, [499]))
"""
    seen = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("0", "1")
    ]
    assert seen[0] == seen[1]


def test_nothing_and_one():
    assert order([], []) == []
    assert order([[]], [0]) == [0]
    assert order([[]], []) == [0]


def test_independent_tasks_keep_their_order():
    assert order([[] for _ in range(5)], [0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]


def test_a_long_chain():
    size = 200_000
    assert order([[]] + [[i] for i in range(size - 1)], [size - 1]) == list(range(size))
    backwards = [[i + 1] for i in range(size - 1)] + [[]]
    assert order(backwards, [0]) == list(range(size - 1, -1, -1))


def test_a_wide_fan_in_and_out():
    size = 50_000
    fan = [[], *[[0] for _ in range(size)], list(range(1, size + 1))]
    ranks = order(fan, [size + 1])
    assert ranks[0] == 0
    assert ranks[-1] == size + 1


def test_one_chain_after_the_other():
    # 0 -> 1 -> 2 -> 9, 3 -> 4 -> 5 -> 9, 6 -> 7 -> 8 -> 9
    chains = [[], [0], [1], [], [3], [4], [], [6], [7], [2, 5, 8]]
    assert sequence(chains, [9]) == list(range(10))


@pytest.mark.parametrize("depth", range(1, 9))
def test_a_binary_tree_keeps_one_result_a_level(depth):
    """Leaves are 0 to 2**depth - 1; each level pairs the one before."""
    dependencies: list[list[int]] = [[] for _ in range(2**depth)]
    level = list(range(2**depth))
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [len(dependencies) + i for i in range(len(pairs))]
        dependencies += pairs
    assert peak_alive(dependencies, [len(dependencies) - 1]) == depth + 1


def test_the_larger_of_two_branches_goes_first():
    # 7 is the sum of 0 to 3, in pairs; what 8 needs beside it, 4, would only wait meanwhile.
    assert sequence([[], [], [], [], [], [0, 1], [2, 3], [5, 6], [4, 7]], [8])[-2:] == [4, 8]


def test_parts_wait_until_somebody_can_use_them():
    """Inputs are split into parts, and each output takes one part of each: the inputs are kept, not the parts."""
    inputs, outputs = 6, 5
    dependencies: list[list[int]] = [[] for _ in range(inputs)]
    parts: list[list[int]] = [[] for _ in range(outputs)]
    for i in range(inputs):
        for j in range(outputs):
            parts[j].append(len(dependencies))
            dependencies.append([i])
    dependencies += parts
    wanted = list(range(len(dependencies) - outputs, len(dependencies)))
    assert peak_alive(dependencies, wanted) == 2 * inputs


def test_what_is_wanted_does_not_count():
    # 0 is wanted, so that nothing is gained by finishing 1 and 2, which need it, early; 3 and 5 free something each.
    dependencies: list[list[int]] = [[], [0], [0], [], [3], [], [5]]
    assert peak_alive(dependencies, [0, 1, 2, 4, 6]) == 1
    assert peak_alive(dependencies, list(range(7))) == 0


def test_blocks_and_their_transposes_meet_at_once():
    size = 6
    dependencies: list[list[int]] = [[] for _ in range(size * size)]
    dependencies += [sorted({i * size + j, j * size + i}) for i in range(size) for j in range(size)]
    assert peak_alive(dependencies, list(range(size * size, 2 * size * size))) == 2
