"""Graphs become rows: only what is needed, dependencies first."""

import operator
from collections import namedtuple

import dask
import pytest
from dask._task_spec import DataNode, Task, TaskRef

from treadle.client.futures import Future
from treadle.client.rows.graph import Outside, build_table, count_dependents, flat_keys, replace_keys


def table(dsk, keys, known=(), futures=None):
    return build_table(dsk, keys, Outside(lambda key: key in known, {} if futures is None else futures))


#: Keys that say all of their tasks.
A, B = "a-" + 32 * "0", "b-" + 32 * "0"


def inc(x):
    return x + 1


def test_only_what_is_needed_in_order():
    result = table({"c": (operator.add, "a", "b"), "a": 1, "b": (inc, "a"), "unused": (inc, "c")}, ["c"])
    names = list(result.nodes)
    assert set(names) == {"a", "b", "c"}
    assert names.index("a") < names.index("b") < names.index("c")


def test_without_dependencies_the_order_is_the_callers():
    dsk = {f"x{i}": (inc, i) for i in range(5)}
    assert list(table(dsk, ["x3", "x1", "x2"]).nodes) == ["x3", "x1", "x2"]


def test_nested_futures_are_dependencies():
    Point = namedtuple("Point", "x y")
    dsk = {"r": (sum, [Future("known"), 1]), "p": (inc, Point(Future("known"), 2))}
    result = table(dsk, ["r", "p"], known={"known"})
    assert list(result.external) == ["known"]
    assert all("known" in node.dependencies for node in result.nodes.values())


def test_a_persisted_key_is_its_future():
    futures = {}
    result = table({"x": Future("x"), "y": (inc, "x")}, ["y"], futures=futures)
    assert list(result.nodes) == ["y"]
    assert list(result.external) == ["x"]
    assert set(futures) == {"x"}


def test_what_is_known_is_not_computed_again():
    result = table({A: 1, B: (inc, A), "c": (inc, B)}, ["c"], known={B})
    assert list(result.nodes) == ["c"]
    assert list(result.external) == [B]


def test_a_missing_dependency_names_task_and_key():
    with pytest.raises(ValueError, match="task 'b' needs 'gone'"):
        table({"b": Task("b", inc, TaskRef("gone"))}, ["b"])
    with pytest.raises(ValueError, match="'nowhere' is wanted"):
        table({"b": 1}, ["nowhere"])


def test_a_cycle_is_named():
    with pytest.raises(ValueError, match="Cycle detected.*'a'"):
        table({"a": (inc, "b"), "b": (inc, "a")}, ["a"])


@pytest.mark.parametrize("key", [None, ("a", None), frozenset([1])])
def test_keys_are_checked(key):
    with pytest.raises(TypeError, match=r"key type"):
        table({key: 1}, [key])


def test_annotations_of_graph_and_context():
    with dask.annotate(retries=2, priority=lambda key: len(key)):
        result = table({"a": 1, "bb": (inc, "a")}, ["bb"])
    assert result.annotations == {"a": {"retries": 2, "priority": 1}, "bb": {"retries": 2, "priority": 2}}


def test_annotations_of_collections():
    with dask.annotate(workers=["w1"]):
        x = dask.delayed(inc)(1)
    y = dask.delayed(inc)(x)
    result = table(y.__dask_graph__(), [y.key])
    assert result.annotations == {x.key: {"workers": ["w1"]}}


def test_nodes_of_all_kinds_pass():
    result = table({"d": DataNode("d", 5), "t": Task("t", inc, TaskRef("d"))}, ["t"])
    assert result.nodes["t"]({"d": result.nodes["d"]()}) == 6


def test_dependents_are_counted():
    nodes = table({"a": 1, "b": (inc, "a"), "c": (operator.add, "a", "b")}, ["c"]).nodes
    assert count_dependents(nodes, nodes) == {"a": 2, "b": 1}
    assert count_dependents(nodes, ["b"]) == {"a": 1}


def test_nested_keys():
    keys = ["a", [("b", 0), ["c"]]]
    assert flat_keys(keys) == ["a", ("b", 0), "c"]
    assert replace_keys(keys, {"a": 1, ("b", 0): 2, "c": 3}) == [1, [2, [3]]]
    assert flat_keys(("b", 0)) == [("b", 0)]


def expression_of(*collections):
    found = []

    def schedule(expression, keys, **_):
        found.append((expression, keys))
        return [None for _ in keys]

    dask.compute(*collections, scheduler=schedule)
    return found[0]


def test_delayed_objects_are_not_culled_twice(monkeypatch):
    def cull(*_):
        raise AssertionError("it takes time that grows with the square of the number of layers")

    leaves = [dask.delayed(operator.neg)(number) for number in range(5)]
    unused, total = leaves[0] + 1, dask.delayed(sum)(leaves[1:])
    expression, keys = expression_of(total, total + 1)
    monkeypatch.setattr("dask.highlevelgraph.HighLevelGraph.cull", cull)
    table = build_table(expression, flat_keys(keys), Outside(lambda key: False, {}))
    assert unused.key not in table.nodes and leaves[0].key not in table.nodes
    assert {leaf.key for leaf in leaves[1:]} < set(table.nodes)
    assert len(table) == 6


def test_annotations_of_delayed_objects():
    with dask.annotate(retries=3):
        one = dask.delayed(operator.neg)(1)
    expression, keys = expression_of(one)
    assert build_table(expression, flat_keys(keys), Outside(lambda key: False, {})).annotations == {one.key: {"retries": 3}}
