"""Values come back equal, with their memory beside the pickle; what cannot be pickled is named."""

from __future__ import annotations

import pickle
import sys
import threading
import types
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.client.futures import Future
from treadle.exceptions import PeerProtocolError
from treadle.messages.base import Block
from treadle.serialize.errors import load_error
from treadle.serialize.values import belongs_in_a_thread, dumps, dumps_small, loads, pack_values, unpack_block

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4) | st.tuples(children, children)
    ),
    max_leaves=20,
)


def sent(buffers: list[Any]) -> list[bytearray]:
    """As a network delivers them: writable, memory of their own."""
    return [bytearray(buffer) for buffer in buffers]


def there_and_back(value: Any) -> Any:
    data, buffers = dumps(value)
    return loads(data, sent(buffers))


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, False),
        (np.zeros(10_000_000, "u1"), False),  # its memory is taken as it is
        ({"nested": [Future("a")]}, True),
        (list(range(250_000, 500_000)), True),
        ({number: str(number) for number in range(300_000)}, True),
    ],
)
def test_what_takes_long_to_unpack_belongs_in_a_thread(value: Any, expected: bool) -> None:
    (block,), _, _ = pack_values([1], [value], [1_000_000])
    assert belongs_in_a_thread(block) is expected


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10.0),
        np.arange(100_000.0).reshape(100, 1000),
        np.asfortranarray(np.arange(100_000.0).reshape(100, 1000)),
        np.arange(100_000)[::3],
        np.arange(100_000.0).reshape(100, 1000)[::2, ::5],
        np.zeros((0, 5)),
        np.array(3.5),
        np.array(["a", "bc"]),
        np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")]),
    ],
)
def test_arrays_come_back_writable(array: np.ndarray) -> None:
    back = there_and_back(array)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.flags.writeable


def test_read_only_arrays_stay_read_only() -> None:
    array = np.arange(100_000)
    array.flags.writeable = False
    assert not there_and_back(array).flags.writeable


def test_large_arrays_are_not_copied() -> None:
    array = np.arange(100_000)
    data, buffers = dumps([array, "and more"])
    assert len(data) < 1000
    assert len(buffers) == 1
    assert np.shares_memory(np.frombuffer(buffers[0], dtype=array.dtype), array)
    memory = bytearray(buffers[0])
    assert np.shares_memory(loads(data, [memory])[0], np.frombuffer(memory, dtype=array.dtype))


def test_small_buffers_stay_inside() -> None:
    assert dumps(np.arange(10))[1] == []


@pytest.mark.parametrize(
    "value", [b"x" * 100_000, b"x" * 3_000_000, "y" * 3_000_000, [str(n) for n in range(200_000)], bytearray(2_000_000)]
)
def test_a_long_pickle_rides_beside(value: Any) -> None:
    data, buffers = dumps(value)
    assert len(data) < 1000
    assert buffers
    back = loads(data, sent(buffers))
    assert type(back) is type(value)
    assert back == value


def test_a_long_pickle_may_have_buffers_of_its_own() -> None:
    value = [np.arange(10_000), "z" * 2_000_000, np.arange(5_000)]
    value[2].flags.writeable = False
    back = there_and_back(value)
    assert back[1] == value[1]
    assert [array.flags.writeable for array in (back[0], back[2])] == [True, False]


def test_frames_come_back() -> None:
    frame = pd.DataFrame({"a": range(1000), "b": [str(n) for n in range(1000)], "c": np.arange(1000.0)})
    pd.testing.assert_frame_equal(there_and_back(frame), frame)


def test_closures_and_local_classes_travel_by_value() -> None:
    base = 5

    class Local:
        value = 7

    assert there_and_back(lambda x: x + base)(1) == 6
    assert there_and_back(Local()).value == 7


def test_what_can_be_imported_travels_by_reference() -> None:
    assert there_and_back(threading.Thread) is threading.Thread


def test_what_belongs_to_main_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    exec("class Thing:\n    size = 3\ndef double(x):\n    return 2 * x\n", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    data, buffers = dumps([main.Thing(), main.double])
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    thing, double = loads(data, buffers)
    assert (thing.size, double(4)) == (3, 8)


def test_registered_modules_travel_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_on_this_machine")
    exec("def triple(x):\n    return 3 * x\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    try:
        data, buffers = dumps((1, module.triple))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert loads(data, buffers)[1](2) == 6


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (threading.Lock(), ["_thread.lock"]),
        ({"a": [1, threading.Lock()]}, ["dict", "value['a'][1]", "_thread.lock"]),
        ((1, {2: threading.Lock()}), ["tuple", "value[1][2]"]),
        (types.SimpleNamespace(inner=types.SimpleNamespace(lock=threading.Lock())), ["SimpleNamespace", "value.inner.lock"]),
        ([n for n in range(3)] + [(n for n in "ab")], ["value[3]", "generator"]),
    ],
)
def test_what_cannot_be_pickled_is_named(value: Any, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        dumps(value)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_closure_over_a_lock_is_explained() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="variable 'lock'"):
        dumps([lambda: lock])


def test_a_repr_that_fails_does_no_harm() -> None:
    class Nasty:
        def __repr__(self) -> str:
            raise RuntimeError

        def __reduce__(self) -> str:
            raise ValueError("not me")

    with pytest.raises(TypeError, match="not me"):
        dumps({"a": Nasty()})


def test_endless_nesting_is_a_type_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(TypeError):
        dumps(nested)


# ------------------------------------------------------------------------------------------------------ blocks


def unpacked(blocks: list[Block], buffers: list[Any]) -> dict[int, Any]:
    values = {}
    rest = sent(buffers)
    for block in blocks:
        own, rest = rest[: block.buffers], rest[block.buffers :]
        values.update(zip(block.ids, unpack_block(block, own), strict=True))
    assert rest == []
    return values


@given(st.lists(st.tuples(plain, st.integers(0, 200_000)), max_size=20))
def test_blocks_come_back_whatever_the_sizes_claim(rows: list[tuple[Any, int]]) -> None:
    ids = list(range(10, 10 + len(rows)))
    blocks, buffers, failed = pack_values(ids, [value for value, _ in rows], [size for _, size in rows])
    assert failed == []
    assert unpacked(blocks, buffers) == dict(zip(ids, [value for value, _ in rows], strict=True))


def test_small_values_share_a_block_and_large_ones_do_not() -> None:
    big = np.arange(100_000)
    values = [1, big, "two", b"x" * 100_000, 3.0]
    blocks, buffers, _ = pack_values([1, 2, 3, 4, 5], values, [28, big.nbytes, 50, 100_000, 24])
    assert sorted(block.ids for block in blocks) == [[1, 3, 5], [2], [4]]
    back = unpacked(blocks, buffers)
    assert (back[1], back[3], back[5], back[4]) == (1, "two", 3.0, values[3])
    np.testing.assert_array_equal(back[2], big)


def test_many_values_are_cut_into_blocks() -> None:
    values = ["x" * 50_000 for _ in range(1000)]
    blocks, buffers, _ = pack_values(range(1000), values, [50_000] * 1000)
    assert len(blocks) > 1
    assert all(len(block.pickle) < 1000 for block in blocks)
    assert unpacked(blocks, buffers) == dict(enumerate(values))


def test_a_value_that_cannot_be_pickled_harms_no_other() -> None:
    values = [1, threading.Lock(), np.arange(10), (n for n in "ab"), "five"]
    blocks, buffers, failed = pack_values([1, 2, 3, 4, 5], values, [10, 10, 10, 10**6, 10])
    back = unpacked(blocks, buffers)
    assert sorted(back) == [1, 3, 5]
    assert sorted(id for id, _ in failed) == [2, 4]
    by_id = {id: load_error(error) for id, error in failed}
    assert isinstance(by_id[2], TypeError) and "cannot pickle _thread.lock" in str(by_id[2])
    assert "generator" in str(by_id[4])


def test_a_block_that_holds_something_else_is_a_protocol_error() -> None:
    with pytest.raises(PeerProtocolError):
        unpack_block(Block([1, 2], pickle.dumps([1])), [])
    with pytest.raises(PeerProtocolError):
        unpack_block(Block([1], pickle.dumps("x")), [])


class Trap:
    def __reduce__(self) -> Any:
        raise AssertionError("what is not known to be small is not touched")


@pytest.mark.parametrize("value", [1, None, "a", b"a", 1.5, (1, [2], {"a": None}), np.float64(2), np.arange(3), np.bool_(True)])
def test_small_values_ride(value: Any) -> None:
    back = loads(dumps_small(value, 100))
    assert type(back) is type(value) and np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value


@pytest.mark.parametrize(
    "value", [Point(1), Trap(), [Trap()], {"a": Trap()}, np.array([Trap()]), "a" * 2000, [[[[1]]]], list(range(1000)), lambda: 1]
)
def test_others_do_not(value: Any) -> None:
    assert dumps_small(value, 100) == b""
    assert dumps_small(1, 2000) == b""
