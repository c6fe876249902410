"""What stands for the tasks of a graph whose keys do not tell."""

import operator
import subprocess
import sys

import pytest
from dask._task_spec import Alias, List, Task, TaskRef, convert_legacy_graph

from treadle.client.rows.digests import DIGEST_BYTES, GraphDigests, unknown_digest
from treadle.client.rows.graph import Outside, build_table


def digest(graph, key="end", outside=lambda key: b""):
    nodes = convert_legacy_graph(graph)
    return GraphDigests(nodes, nodes.keys(), outside)(key)


def chain(length, start=0, name="n"):
    graph = {f"{name}0": (operator.neg, start)}
    for i in range(1, length):
        graph[f"{name}{i}"] = (operator.add, f"{name}{i - 1}", i)
    graph["end"] = (operator.neg, f"{name}{length - 1}")
    return graph


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 40, 3000])
def test_a_task_counts_with_all_that_it_depends_on(length):
    assert len(digest(chain(length))) == DIGEST_BYTES
    assert digest(chain(length)) == digest(chain(length, name="other"))
    assert digest(chain(length)) != digest(chain(length, start=1))
    assert digest(chain(length)) != digest(chain(length + 1))


def test_who_else_needs_a_task_makes_no_difference():
    graph = chain(10)
    more = {**graph, "beside": (operator.add, "n3", "n3"), "end": graph["end"]}
    assert digest(graph) == digest(more)


VALUES = [0, 1, -1, 0.0, 1.0, True, False, None, "", "1", b"1", "x", [1], (1,), [], [[1]], ["x"], {"a": 1}, {"a": 2}, 2**70, operator.add]


def test_arguments_are_told_apart():
    found = [digest({"end": Task("end", operator.neg, value)}) for value in VALUES]
    found += [digest({"x": Task("x", operator.neg, value), "end": Task("end", operator.neg, TaskRef("x"))}) for value in VALUES]
    found += [
        digest({"x": Task("x", abs, 1), "end": Task("end", operator.neg, nested)})
        for nested in (List(TaskRef("x")), List(List(TaskRef("x"))), List(TaskRef("x"), 1))
    ]
    found += [digest({"x": Task("x", abs, 1), "end": Task("end", operator.add, *args)}) for args in ((TaskRef("x"), 1), (1, TaskRef("x")))]
    assert len(set(found)) == len(found)


def test_order_of_the_graph_and_names_make_no_difference():
    one = {"a": Task("a", abs, 1), "b": Task("b", abs, "x"), "end": Task("end", max, List(TaskRef("a"), TaskRef("b")))}
    other = {"q": Task("q", abs, "x"), "p": Task("p", abs, 1), "end": Task("end", max, List(TaskRef("p"), TaskRef("q")))}
    assert digest(one) == digest(other)
    assert digest({**other, "end": Task("end", max, List(TaskRef("q"), TaskRef("p")))}) != digest(one)


def test_what_is_not_known_makes_all_uncertain_that_depends_on_it():
    def outside(key):
        return unknown_digest(7)

    def captured():
        return ref

    ref = TaskRef("far")
    for first in (Task("a", abs, TaskRef("far")), Task("a", max, List(TaskRef("far"), 1)), Alias("a", "far"), Task("a", captured)):
        graph = {"a": first, "b": Task("b", abs, TaskRef("a")), "end": Task("end", max, List(TaskRef("b"), 2), key=abs)}
        assert len(digest(graph, "b", outside)) != DIGEST_BYTES
        assert len(digest(graph, "end", outside)) != DIGEST_BYTES


PROGRAM = """
import operator
from dask._task_spec import convert_legacy_graph
from treadle.client.rows.digests import GraphDigests
def make(n):
    return lambda x, y=[n]: x in ("a", "b", n)
nodes = convert_legacy_graph({"x": (operator.add, 1, 2), "y": (make(3), "x", "text"), "end": (max, ["x", "y", {"k": "y"}])})
print(GraphDigests(nodes, nodes.keys(), lambda key: b"")("end").hex())
"""


def test_every_process_finds_the_same():
    found = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
        )
        for seed in ("1", "2")
    ]
    assert found[0].stdout == found[1].stdout and len(found[0].stdout) == 2 * DIGEST_BYTES + 1, found


def test_a_graph_of_chosen_keys_is_looked_through_once():
    asked = []
    graph = {"a": (operator.neg, 1), "b": (operator.neg, "a"), "c": (operator.neg, "b")}

    def known(key):
        asked.append(key)
        return False

    table = build_table(graph, ["c"], Outside(known, {}))
    assert sorted(asked) == ["a", "b", "c"]
    assert set(table.names) == {"a", "b"} and list(table.digests) == ["c"]


def test_a_wanted_key_that_others_need_has_two_names():
    graph = {"a": (operator.neg, 1), "b": (operator.neg, "a"), "c": (operator.neg, "b")}
    table = build_table(graph, ["b", "c"], Outside(lambda key: False, {}))
    kept = table.stands_for["b"]
    assert table.names[kept] == "b" and table.names["b"] != "b" and "c" not in table.names
    assert set(table.digests) == {kept, "c"}
