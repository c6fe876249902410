"""Graph nodes as rows: what they are called with, what is shared, and what a row costs in bytes."""

from __future__ import annotations

import functools
import operator
import pickle
import threading
from typing import Any

import dask
import pytest
from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple, _execute_subgraph

from treadle.client.rows.encoding import Encoding
from treadle.client.rows.functions import Functions
from treadle.serialize.nodes import Subgraph
from treadle.serialize.spec import call_with, load_node, loads_function


class Named(Task):
    """A kind of node that nobody knows here."""


def collect(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def run(graph: dict[Any, Any]) -> dict[Any, Any]:
    """All values, each row by way of its bytes."""
    encoding = Encoding(Functions(), threading.Lock(), graph.values())
    values: dict[Any, Any] = {}
    for key, node in graph.items():
        row = encoding.row(node)
        if row.function is None:
            values[key] = load_node(row.payload, row.buffers)({need: values[need] for need in row.dependencies})
        else:
            function = loads_function(row.function.body)
            values[key] = call_with(function, row.payload, row.buffers, [values[need] for need in row.dependencies])
    return values


X, Y = TaskRef("x"), TaskRef(("y", 0))
NODES = [
    Task("z", operator.sub, X, Y),
    Task("z", operator.sub, Y, X),
    Task("z", operator.mul, X, X),
    Task("z", collect, 1, "a", None, X, b"b"),
    Task("z", collect, X, named=Y, other=3),
    Task("z", collect, named=List(1, List(X, Y))),
    Task("z", collect, Tuple(1, X), Set(X, 5), Dict({"a": Y, "b": 2})),
    Task("z", collect, Task(None, operator.add, X, Task(None, operator.neg, Y)), Alias("x")),
    Task("z", collect, Task(None, functools.partial(collect, 1), n=X), DataNode(None, [1])),
    Task("z", collect, DataNode(None, (10, 10)), k=DataNode(None, {})),
    Task("z", collect, [1, {"a": 2}], 3.5, k=[4]),
    Task("z", collect, List(1, Task(None, operator.add, 1, 2))),
    Task("z", lambda a, b: (b, a), X, Y),
    Task("z", functools.partial(collect, 7), X, b=Y),
    Task("z", collect),
    Named("z", operator.add, X, Y),
    Alias("z", "x"),
    DataNode("z", [1, 2]),
    List(X, 2, Y),
    Dict({"k": X}),
]


@pytest.mark.parametrize("node", NODES, ids=repr)
def test_a_row_computes_what_its_node_does(node: GraphNode) -> None:
    graph = {"x": DataNode("x", 4), ("y", 0): Task(("y", 0), operator.add, 1, 1), "z": node}
    values = run(graph)
    expected = node({"x": 4, ("y", 0): 2})
    assert values["z"] == expected and type(values["z"]) is type(expected)


def fused(number: int, inner: dict[Any, Any]) -> Task:
    return Task(("out", number), _execute_subgraph, inner, "out", ("in", "more"), TaskRef("x"), TaskRef(("y", number)))


def inner_graph() -> dict[Any, Any]:
    return {
        "half": Task("half", operator.floordiv, TaskRef("in"), 2),
        "unused": Task("unused", operator.floordiv, 1, 0),
        "sum": Task("sum", sum, List(TaskRef("half"), TaskRef("half"), TaskRef("more"))),
        "name": Alias("name", "sum"),
        "out": Task("out", operator.mul, TaskRef("name"), TaskRef("in")),
    }


@pytest.mark.parametrize("tasks", [1, 10])
def test_fused_tasks_compute_their_result_whether_they_are_shared_or_not(tasks: int) -> None:
    inner = inner_graph()
    graph: dict[Any, Any] = {"x": DataNode("x", 8)}
    for number in range(tasks):
        graph["y", number] = DataNode(("y", number), number)
        graph["out", number] = fused(number, inner)
    if tasks == 1:
        del inner["unused"]  # dask runs it
    values = run(graph)
    assert [values["out", number] for number in range(tasks)] == [(8 + number) * 8 for number in range(tasks)]


def test_what_tasks_share_is_sent_once() -> None:
    inner = inner_graph()
    partial = functools.partial(collect, "x" * 10_000)
    graph = [fused(number, inner) for number in range(100)] + [Task(number, partial, number) for number in range(100)]
    encoding = Encoding(Functions(), threading.Lock(), graph)
    rows = [encoding.row(node) for node in graph]
    assert len({row.function for row in rows}) == len(encoding.own) == 2
    assert all(row.payload == b"" for row in rows[:100])
    assert all(len(row.payload) < 20 for row in rows[100:])


def test_what_one_task_has_is_no_function_of_its_own() -> None:
    graph = [Task(number, functools.partial(operator.add, number), 1) for number in range(50)]
    encoding = Encoding(Functions(), threading.Lock(), graph)
    rows = [encoding.row(node) for node in graph]
    assert not encoding.own
    assert len({row.function for row in rows}) == 1


def test_a_row_of_references_has_no_payload() -> None:
    node = Task("z", operator.add, X, Y)
    assert Encoding(Functions(), threading.Lock(), [node]).row(node).payload == b""


def test_what_cannot_be_pickled_is_named() -> None:
    node = Task("z", collect, X, threading.Lock())
    with pytest.raises(TypeError, match="lock"):
        Encoding(Functions(), threading.Lock(), [node]).row(node)


def test_a_subgraph_frees_what_nobody_needs_any_more() -> None:
    alive: list[int] = []

    class Big:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def follow(_: Any) -> Any:
        most.append(len(alive))
        return Big()

    most: list[int] = []
    nodes: dict[Any, Any] = {number: Task(number, follow, TaskRef(number - 1)) for number in range(1, 20)}
    Subgraph(nodes, 19, (0,))(None)
    assert max(most) <= 2


def test_a_subgraph_that_is_one_of_its_inputs() -> None:
    subgraph = pickle.loads(pickle.dumps(Subgraph({}, "b", ("a", "b"))))
    assert subgraph(1, 2) == 2


def test_a_subgraph_that_misses_something_says_so() -> None:
    with pytest.raises(KeyError, match="gone"):
        Subgraph({"a": Task("a", operator.neg, TaskRef("gone"))}, "a", ())()


def test_collections_compute_the_same() -> None:
    da = pytest.importorskip("dask.array")
    x = da.arange(400, chunks=20).reshape(20, 20)
    for collection in [(x + x.T).sum(), x.rechunk((7, 5)).mean(axis=0), x.dot(x)[::2, 1:5].std()]:
        results: list[Any] = []

        def schedule(graph: Any, keys: Any, results: list[Any] = results, **_: Any) -> Any:
            from treadle.client.rows.graph import Outside, build_table, flat_keys

            values = run(build_table(graph, flat_keys(keys), Outside(lambda key: False, {})).nodes)
            results.append(1)
            return [values[key] for key in flat_keys(keys)]

        (result,) = dask.compute(collection, scheduler=schedule)
        (expected,) = dask.compute(collection, scheduler="synchronous")
        assert results and (result == expected).all()
