"""Equal tasks have equal digests, wherever they were written; other tasks have others. And which keys say all of a task."""

import functools
import operator
import subprocess
import sys
import uuid

import numpy as np
import pytest
from dask._task_spec import Task, TaskRef

from treadle.client.rows.digests import call_digest, differ, function_digest, node_digest, unknown_digest
from treadle.client.rows.naming import chosen_among, doubtful_among, is_generated, private_key

TOKEN = 32 * "a"


def compiled(source, **names):
    """The function ``f`` of that source, as if it was typed in."""
    space = {"__name__": "__main__", **names}
    exec(compile(source, f"<cell {len(source)}>", "exec"), space)
    return space["f"]


F = "def f(x, y=[1, 2]):\n    return g(x) + len([z for z in y if z in {'a', 'b', 3}])\n"
G = "def f(x):\n    return x * 2\n"


def test_lines_and_files_make_no_difference():
    one = compiled(F, g=compiled(G))
    other = compiled("\n\n# a comment\n" + F, g=compiled("\n" + G))
    assert function_digest(one) == function_digest(other)


CHANGED = {
    "a constant": (F.replace("3", "4"), G),
    "the code": (F.replace("+", "-"), G),
    "a default": (F.replace("[1, 2]", "[1, 3]"), G),
    "what it calls": (F, G.replace("2", "3")),
}


@pytest.mark.parametrize("sources", CHANGED.values(), ids=CHANGED)
def test_what_makes_another_function(sources):
    f, g = sources
    assert differ(function_digest(compiled(F, g=compiled(G))), function_digest(compiled(f, g=compiled(g))))


def closure(n):
    return lambda x: x + n


def test_functions_of_all_kinds():
    partial = functools.partial(operator.add, 1)
    functions = [closure(1), closure(2), operator.add, operator.sub, np.add, [1].count, [2].count, partial, int, str]
    digests = [function_digest(function) for function in functions]
    assert len(set(digests)) == len(functions)
    assert function_digest(closure(1)) == digests[0]
    assert function_digest(functools.partial(operator.add, 1)) == digests[7]
    recursive = compiled("def f(x):\n    return x and f(x - 1)\n")
    assert function_digest(recursive) == function_digest(recursive)


def test_arguments():
    f = function_digest(operator.add)
    items = [1]
    items.append(items)
    calls = [
        ((1, 2), {}),
        ((1, 3), {}),
        ((1, 2.0), {}),
        ((1, True), {}),
        ((1,), {"b": 2}),
        (([1, 2],), {}),
        (((1, 2),), {}),
        (({"a": 1},), {}),
        ((np.arange(3),), {}),
        ((np.arange(4),), {}),
        ((np.zeros(10**6),), {}),
        ((np.zeros(10**6 + 1),), {}),
        ((items,), {}),
        ((object(),), {}),
    ]
    digests = [call_digest(f, args, kwargs) for args, kwargs in calls]
    assert len(set(digests)) == len(calls)
    assert [call_digest(f, args, kwargs) for args, kwargs in calls[:13]] == digests[:13]


def test_every_process_finds_the_same():
    program = (
        "from treadle.client.rows.digests import call_digest, function_digest\n"
        "def f(x, y={'a': 1}):\n    return {x} | {'b', 'c', 'd'}\n"
        "print(call_digest(function_digest(f), ({'x', 'y', 'z'}, (1, 'a')), {'k': [None]}).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1 and len(found.pop().strip()) == 32


def test_a_task_is_what_it_depends_on():
    node = Task("z", operator.add, TaskRef("a"), 1)
    one = node_digest(node, {"a": b"0" * 16}.__getitem__)
    assert one == node_digest(Task("other name", operator.add, TaskRef("b"), 1), {"b": b"0" * 16}.__getitem__)
    assert differ(one, node_digest(node, {"a": b"1" * 16}.__getitem__))
    unknown = node_digest(node, {"a": unknown_digest(5)}.__getitem__)
    assert unknown != one and not differ(one, unknown)


def test_generated_keys():
    generated = [f"x-{TOKEN}", (f"x-{TOKEN}", 0), ((f"x-{TOKEN}", 0), 1), f"load-{uuid.uuid4()}", f"x-{TOKEN}-y"]
    chosen = ["x", "x-5", ("x", TOKEN), 5, ("x", 0), f"x-{TOKEN[1:]}", f"x-{TOKEN[1:]}Z", ()]
    assert all(is_generated(key) for key in generated)
    assert not any(is_generated(key) for key in chosen)
    assert chosen_among([*generated, *chosen]) == chosen


def test_what_depends_on_a_chosen_key_is_doubtful():
    a, b, c, d = [f"{name}-{TOKEN}" for name in "abcd"]
    nodes = {
        "x": Task("x", operator.neg, 1),
        a: Task(a, operator.neg, TaskRef("x")),
        b: Task(b, operator.neg, TaskRef(a)),
        c: Task(c, operator.neg, 2),
        d: Task(d, operator.neg, TaskRef("outside")),
    }
    assert doubtful_among(nodes, chosen_among(nodes), set()) == {"x", a, b}
    assert doubtful_among(nodes, chosen_among(nodes), {"outside"}) == {"x", a, b, d}


def test_private_keys_stay_apart():
    keys = ["1", 1, ("1", 0), (1, 0), (("1", 0), 0), ("('1', 0)", 0), 1.5, "1.5", b"1", "b'1'"]
    private = [private_key(key, TOKEN[1:]) for key in keys]
    assert len(set(private)) == len(keys)
    assert all(map(is_generated, private))
