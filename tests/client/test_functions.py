"""A function is pickled once, as long as it is the same function."""

import functools
import operator
import pickle

import pytest

from treadle.client.rows.functions import Functions

LIMIT = 3


def module_level(x):
    return x + LIMIT


def test_one_function_is_found_again():
    functions = Functions()
    known = functions.find(module_level)
    assert functions.find(module_level) is known
    assert known.name == "module_level"
    assert functions.find(operator.add) is functions.find(operator.add)


def test_a_closure_that_changed_is_another_function():
    functions = Functions()
    x = 1

    def f():
        return x

    one = functions.find(f)
    assert functions.find(f) is one
    x = 2
    other = functions.find(f)
    assert other is not one
    assert other.token != one.token
    assert (pickle.loads(one.body)(), pickle.loads(other.body)()) == (1, 2)


def test_a_list_in_a_closure_may_change_inside():
    functions = Functions()
    items = [1]

    def f():
        return items[0]

    one = functions.find(f)
    items[0] = 2
    assert pickle.loads(functions.find(f).body)() == 2
    assert pickle.loads(one.body)() == 1


def test_equal_functions_are_one_by_content():
    functions = Functions()

    def make():
        return functools.partial(operator.add, 1)

    assert functions.find(make()) is functions.find(make())


def test_what_is_made_for_one_graph_is_forgotten_with_it():
    functions = Functions()
    never, defined = functions.make_own(lambda: 1), functions.make_own(lambda: 2)
    defined.id = 7
    assert functions.used(defined) == []
    functions.rebase(1 << 32)
    assert (never.id, defined.id) == (0, (1 << 32) + 7)
    assert functions.forget_own([never, defined]) == [(1 << 32) + 7]
    assert functions.forget_own([never, defined]) == []


def test_what_cannot_be_pickled_is_named():
    lock = __import__("threading").Lock()

    def locked():
        return lock

    with pytest.raises(TypeError, match="locked"):
        Functions().find(locked)


def test_old_functions_are_forgotten(monkeypatch):
    monkeypatch.setattr("treadle.client.rows.functions.MOST_FUNCTIONS", 2)
    functions = Functions()
    forgotten = []
    for i in range(4):
        known = functions.find(functools.partial(operator.add, i))
        known.id = i + 1
        forgotten += functions.used(known)
    assert forgotten == [1, 2]
