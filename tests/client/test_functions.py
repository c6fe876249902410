"""A function is pickled once, as long as it is the same function."""

import functools
import operator
import pickle
import types

import numpy as np
import pytest
import toolz

from treadle.client.rows.changing import can_change
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


# ------------------------------------------------------------------------------------------ functions that can change


COUNTED = 0
SEEN = []


class Counter:
    def __init__(self):
        self.seen = []

    def add(self, x):
        self.seen.append(x)
        return list(self.seen)

    __call__ = add


def by_value(function):
    """The same function, of a module that workers cannot import."""
    function.__module__ = "__main__"
    return function


def default_list(x, seen=[]):  # noqa: B006
    seen.append(x)
    return list(seen)


def keyword_default(x, *, seen={}):  # noqa: B006
    seen[x] = x
    return list(seen)


def counts_in_a_global(x):
    global COUNTED
    COUNTED += 1
    return COUNTED


def appends_to_a_global(x):
    SEEN.append(x)
    return list(SEEN)


def counts_in_an_attribute(x):
    counts_in_an_attribute.count = getattr(counts_in_an_attribute, "count", 0) + 1
    return counts_in_an_attribute.count


def counts_by_setattr(x):
    setattr(counts_by_setattr, "count", getattr(counts_by_setattr, "count", 0) + 1)  # noqa: B010
    return counts_by_setattr.count


def closure_over_a_list():
    seen = []
    return lambda x: seen.append(x) or list(seen)


def closure_that_counts():
    count = 0

    def f(x):
        nonlocal count
        count += 1
        return count

    return f


def closure_inside_that_counts():
    count = 0

    def f(x):
        def step():
            nonlocal count
            count += 1

        step()
        return count

    return f


def closure_over_a_function_that_counts():
    inner = closure_that_counts()
    return lambda x: inner(x)


def generator_in_a_partial():
    return functools.partial(lambda seen, x: (seen.append(x), list(seen))[1], [])


CHANGING = {
    "callable object": Counter,
    "bound method": lambda: Counter().add,
    "builtin method": lambda: [].__contains__,
    "default list": lambda: by_value(default_list),
    "keyword default": lambda: by_value(keyword_default),
    "global that is assigned": lambda: by_value(counts_in_a_global),
    "global list": lambda: by_value(appends_to_a_global),
    "attribute of itself": lambda: by_value(counts_in_an_attribute),
    "attribute by setattr": lambda: by_value(counts_by_setattr),
    "closure over a list": closure_over_a_list,
    "closure that is assigned": closure_that_counts,
    "closure that is assigned inside": closure_inside_that_counts,
    "closure over a function": closure_over_a_function_that_counts,
    "partial with a list": generator_in_a_partial,
    "partial of an object": lambda: functools.partial(Counter()),
    "curried with a list": lambda: toolz.curry(default_list, seen=[]),
    "composed with an object": lambda: toolz.compose(tuple, Counter()),
    "object in a tuple in a default": lambda: by_value(types.FunctionType(default_list.__code__, {}, "f", (([], 1),))),
}


def twice(function, argument):
    """What two calls on one worker give, at two functions that were loaded once."""
    body = Functions().find(function).body
    loaded = pickle.loads(body)
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(loaded(argument))
        except AttributeError as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("make", CHANGING.values(), ids=CHANGING)
def test_a_function_that_can_change_is_fresh_in_each_call(make):
    assert can_change(make())
    one, other = twice(make(), 5)
    assert one == other


def remembers_in_its_module(x, seen=[]):  # noqa: B006
    seen.append(x)


def fixed_by_value(x, y=(1, "a", None)):
    return fixed_by_value if x > LIMIT else np.add(x, 1)


SHARED = {
    "importable": module_level,
    "importable with a list for a default": remembers_in_its_module,
    "builtin": len,
    "method of text": "abc".upper,
    "method of a type": str.upper,
    "class": Counter,
    "ufunc": np.add,
    "lambda": lambda x: x + LIMIT,
    "partial": functools.partial(operator.add, 1),
    "partial of partials": functools.partial(functools.partial(operator.add, b"1"), b"2"),
    "getter": operator.itemgetter("a"),
    "function that refers to itself": fixed_by_value,
    "cached": functools.lru_cache(module_level),
    "dtype": functools.partial(np.zeros, dtype=np.dtype("f4"), shape=(1, 2)),
    "curried": toolz.curry(operator.add, 1),
    "composed": toolz.compose(str, operator.neg),
    "slice": functools.partial(operator.getitem, (1, 2, slice(0, 1))),
}


@pytest.mark.parametrize("function", SHARED.values(), ids=SHARED)
def test_a_function_that_cannot_change_is_loaded_once(function):
    if function is fixed_by_value:
        by_value(function)
    assert not can_change(function)


def test_a_function_inside_a_module_may_capture_one_that_changes():
    functions = Functions()
    seen = []

    def inner():
        return list(seen)

    def outer():
        return inner()

    one = functions.find(outer)
    seen.append(1)
    other = functions.find(outer)
    assert (pickle.loads(one.body)(), pickle.loads(other.body)()) == ([], [1])
