"""Functions, calls and graph nodes arrive as they left."""

from __future__ import annotations

import functools
import operator
import pickle
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest
from dask._task_spec import Alias, DataNode, Task, TaskRef
from hypothesis import given
from hypothesis import strategies as st

from treadle.serialize.spec import call_with, dumps_call, dumps_function, dumps_node, load_node, loads_function

argument = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.lists(st.integers())


def given_arguments(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


@given(st.lists(argument, max_size=5), st.dictionaries(st.text(min_size=1, max_size=5), argument, max_size=3))
def test_calls_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    payload, buffers = dumps_call(tuple(args), kwargs)
    assert call_with(given_arguments, payload, [bytearray(buffer) for buffer in buffers], ()) == (tuple(args), kwargs)


def test_the_payload_is_a_pickle_of_the_arguments() -> None:
    assert pickle.loads(dumps_call((1, "a"), {})[0]) == (1, "a")
    assert pickle.loads(dumps_call((1,), {"b": 2})[0]) == [(1,), {"b": 2}]


def test_large_arguments_ride_beside() -> None:
    array = np.arange(100_000)
    payload, buffers = dumps_call((array,), {"x": array})
    assert len(payload) < 1000
    args, kwargs = call_with(given_arguments, payload, [bytearray(buffer) for buffer in buffers], ())
    np.testing.assert_array_equal(args[0], array)
    np.testing.assert_array_equal(kwargs["x"], array)


def test_arguments_that_cannot_be_pickled_are_named() -> None:
    with pytest.raises(TypeError, match=r"argument 1 .*value\[0\].*_thread.lock"):
        dumps_call((1, [threading.Lock()]), {})
    with pytest.raises(TypeError, match=r"argument 'lock' .*_thread.lock"):
        dumps_call((1,), {"lock": threading.Lock()})


def test_functions_travel_by_reference_when_they_can() -> None:
    assert loads_function(dumps_function(operator.add)) is operator.add
    assert len(dumps_function(operator.add)) < 60


def test_closures_lambdas_and_partials_travel() -> None:
    step = 3
    assert loads_function(dumps_function(lambda x: x + step))(1) == 4
    assert loads_function(dumps_function(functools.partial(operator.add, 1)))(1) == 2
    assert loads_function(dumps_function(functools.partial(lambda x, y: x * y, 5)))(2) == 10


def test_functions_of_main_travel_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    exec("def double(x):\n    return 2 * x\n", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    data = dumps_function(main.double)
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert loads_function(data)(4) == 8


def test_a_function_that_cannot_be_pickled_is_named_with_the_reason() -> None:
    lock = threading.Lock()

    def locked() -> bool:
        return lock.locked()

    with pytest.raises(TypeError, match=r"function .*locked cannot be sent .*variable 'lock'.*_thread.lock"):
        dumps_function(locked)


def test_what_cannot_be_called_is_no_function() -> None:
    with pytest.raises(TypeError, match="int"):
        loads_function(pickle.dumps(5))


def test_graph_nodes_come_back() -> None:
    for node in [Task("z", operator.add, TaskRef("x"), 2), DataNode("x", [1, 2]), Alias("y", "x")]:
        payload, buffers = dumps_node(node)
        back = load_node(payload, buffers)
        assert (type(back), back.key, back.dependencies) == (type(node), node.key, node.dependencies)
    payload, buffers = dumps_node(Task("z", lambda x: x + 1, TaskRef("x")))
    assert load_node(payload, buffers)({"x": 4}) == 5
    with pytest.raises(TypeError, match=r"_thread.lock"):
        dumps_node(Task("z", operator.add, threading.Lock()))
