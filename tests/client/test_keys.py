"""The same call has the same key everywhere; another value or another type has another."""

import os
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.client.futures import Future
from treadle.client.rows.keys import bound_token, call_key, is_plain, unique_key
from treadle.utils.keys import prefix_of

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.tuples(children, children),
    max_leaves=6,
)


def key(*args, token="t", **kwargs):
    return call_key("f", bound_token(token, kwargs), args)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((0.0,), (-0.0,)),
        ((0,), (False,)),
        (("1",), (1,)),
        (("a",), (b"a",)),
        (((1, 2),), ([1, 2],)),
        ((1, 2), ((1, 2),)),
        ((None,), ()),
        ((1, 2), (2, 1)),
        ((Future("a"),), ("a",)),
        ((Future("a"),), (("a",),)),
        ((Future(("a", 1)),), (Future(("a", 2)),)),
    ],
)
def test_type_and_value_count(one, other):
    assert key(*one) != key(*other)


def test_keyword_arguments_count():
    assert key(1, a=2) != key(1, 2)
    assert key(1, a=2) != key(1, b=2)
    assert key(1, a=2, b=3) == key(1, b=3, a=2)
    assert key(1) != key(1, token="u")


@given(plain)
def test_plain_values_are_recognised_and_named_the_same_twice(value):
    assert is_plain(value)
    assert key(value) == key(value)
    head, dash, token = key(value).partition("-")
    assert (head, dash, len(token)) == ("f", "-", 32)


def test_text_that_is_interned_has_the_same_key_as_text_that_is_not():
    made = "".join(["in", "tern"])
    assert key(sys.intern("intern")) == key(made) == key(made + "")
    shared = [made, made]
    assert key(shared) == key(["".join(["in", "tern"]), "".join(["in", "tern"])])


def test_what_is_not_plain_is_named_by_dask():
    assert not is_plain({1: 2})
    assert not is_plain("x" * 200_000)
    assert key({1: 2}) == key({1: 2})
    assert key({1: 2}) != key({1: 3})


def test_keys_are_the_same_in_another_process():
    code = "from treadle.client.rows.keys import call_key; print(call_key('f', 't', (1, 'a', (2.5, None))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == call_key("f", "t", (1, "a", (2.5, None)))


def test_impure_keys_differ():
    keys = {unique_key("f") for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {34}
    assert {prefix_of(key) for key in keys} == {"f"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_impure_keys_differ_from_those_of_a_forked_child():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, unique_key("f").encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100).decode() != unique_key("f")
    os.close(read)
    os.close(write)


def test_calls_with_containers_of_other_types_are_others() -> None:
    class Some(set[int]):
        pass

    class Number(int):
        pass

    alike = [[{"a": 1}, Counter(a=1), defaultdict(list, a=1)], [{1}, Some([1])], [{"x": Number(5)}, {"x": 5}]]
    for values in alike:
        for wrap in (lambda value: value, lambda value: [value], lambda value: ({"y": value},)):
            keys = [call_key("f", "token", (wrap(value),)) for value in values]
            assert len(set(keys)) == len(values)
            assert keys == [call_key("f", "token", (wrap(value),)) for value in values]
