"""Values <-> a pickle and the large buffers beside it (pickle protocol 5, out of band)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import cloudpickle

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import Block, TaskError
from treadle.serialize import by_value
from treadle.serialize.culprit import describe
from treadle.serialize.errors import dump_error

Buffer: TypeAlias = bytes | bytearray | memoryview

PROTOCOL: Final = 5
#: Smaller buffers stay inside the pickle: a frame of their own costs more than the copy.
_SMALL_BUFFER_BYTES: Final = 4096
#: A larger pickle becomes a buffer itself, so that it is not copied on the way.
_BESIDE_BYTES: Final = 2**20
#: Pickles longer than this are not unpickled in a loop's thread.
_LONG_BYTES: Final = 1_000_000
#: Values up to this size are pickled together, up to this many bytes in one block.
_SMALL_VALUE_BYTES: Final = 2**16
_BLOCK_BYTES: Final = 2**24

_PLAIN: Final = frozenset([int, float, bool, type(None), str, complex])


class _Beside:
    """Pickles as a call of ``function`` with these buffers, which stay out of band."""

    def __init__(self, function: Callable[..., Any], *buffers: Buffer) -> None:
        self._function = function
        self._buffers = buffers

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[pickle.PickleBuffer, ...]]:
        return self._function, tuple([pickle.PickleBuffer(buffer) for buffer in self._buffers])


def _load_beside(data: Buffer, *buffers: Buffer) -> Any:
    return pickle.loads(data, buffers=buffers)


def dumps(value: Any) -> tuple[bytes, list[Buffer]]:
    """The pickle of a value and its large buffers, which are the value's own memory.

    What belongs to ``__main__``, to a module registered with ``cloudpickle.register_pickle_by_value``, or cannot be
    imported, travels by value. Raises TypeError that says what in the value cannot be pickled.
    """
    kind = type(value)
    if kind in _PLAIN and (kind is not str or len(value) < _BESIDE_BYTES):
        return pickle.dumps(value, PROTOCOL), []
    if kind is bytes and len(value) >= _SMALL_VALUE_BYTES:
        return _dump_plainly(_Beside(bytes, value))
    return _dump_or_explain(value, value)


def _dump_or_explain(value: Any, culprit: Any) -> tuple[bytes, list[Buffer]]:
    """As ``dumps``, with an error that speaks of ``culprit``."""
    try:
        data, buffers = _dump(value)
    except Exception as error:
        raise TypeError(describe(culprit, _can_be_pickled, error)) from error
    return _slim(data, buffers)


def _slim(data: bytes, buffers: list[Buffer]) -> tuple[bytes, list[Buffer]]:
    """Turn a long pickle into a short one with the long one as a buffer beside it."""
    if len(data) <= _BESIDE_BYTES:
        return data, buffers
    return _dump_plainly(_Beside(_load_beside, data, *buffers))


def loads(data: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The value. Its arrays use the memory of ``buffers``. Raises what unpickling raises."""
    return pickle.loads(data, buffers=buffers)


def travels_by_value(data: bytes) -> bool:
    """Whether a plain pickle refers to what the other side cannot import: ``__main__`` and registered modules."""
    if b"__main__" in data or b"__mp_main__" in data:
        return True
    for name in cloudpickle.list_registry_pickle_by_value():
        if name.encode() in data:
            return True
    return False


def _dump(value: Any) -> tuple[bytes, list[Buffer]]:
    try:
        data, buffers = _dump_plainly(value)
        if not travels_by_value(data):
            return data, buffers
    except Exception:
        pass  # lambdas, closures, local classes; what really cannot be pickled fails again below
    collected: list[Buffer] = []
    data = by_value.dumps(value, buffer_callback=_collector(collected))
    return data, collected


def _dump_plainly(value: Any) -> tuple[bytes, list[Buffer]]:
    buffers: list[Buffer] = []
    return pickle.dumps(value, PROTOCOL, buffer_callback=_collector(buffers)), buffers


def _collector(buffers: list[Buffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        """True: leave the buffer in the pickle. False: it was taken out, as flat bytes."""
        raw = buffer.raw()
        if raw.nbytes < _SMALL_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    return keep


def _can_be_pickled(value: Any) -> bool:
    try:
        _dump(value)
    except Exception:
        return False
    return True


#: The largest size of a value, and of its pickle, that travels inside the report of its task.
SMALL_BYTES: Final = 1024


def dumps_small(value: Any, nbytes: int) -> bytes:
    """The pickle of a small value of a simple type; empty for any other."""
    if nbytes > SMALL_BYTES or not _is_simple(value, 2):
        return b""
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:  # a subclass' own fault; whoever asks for the value gets the error
        return b""
    return data if len(data) <= SMALL_BYTES else b""


def _is_simple(value: Any, depth: int) -> bool:
    """Whether the pickle is about as large as the value, and every process can load it."""
    kind = type(value)
    if kind in _PLAIN or kind is bytes:
        return True
    if kind is tuple or kind is list:
        return depth > 0 and len(value) <= _MOST_ELEMENTS and all([_is_simple(item, depth - 1) for item in value])
    if kind is dict:
        return depth > 0 and len(value) <= _MOST_ELEMENTS and _is_simple(list(value), 1) and _is_simple(list(value.values()), depth)
    if kind.__module__ == "numpy":
        dtype = getattr(value, "dtype", None)
        return dtype is not None and not dtype.hasobject
    return False


_MOST_ELEMENTS: Final = 128

# ------------------------------------------------------------------------------------------------------ blocks


def pack_values(
    ids: Sequence[int], values: Sequence[Any], sizes: Sequence[int]
) -> tuple[list[Block], list[Buffer], list[tuple[int, TaskError]]]:
    """Blocks, the buffers of all blocks in order, and (id, error) of each value that cannot be pickled.

    Small values share a block, a large one has its own. ``sizes`` are estimates in bytes.
    """
    packed = _Packed()
    group_ids: list[int] = []
    group: list[Any] = []
    total = 0
    for id, value, size in zip(ids, values, sizes, strict=True):
        if size > _SMALL_VALUE_BYTES:
            packed.add([id], [value])
            continue
        group_ids.append(id)
        group.append(value)
        total += size
        if total > _BLOCK_BYTES:
            packed.add(group_ids, group)
            group_ids, group, total = [], [], 0
    if group:
        packed.add(group_ids, group)
    return packed.blocks, packed.buffers, packed.failed


class _Packed:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.buffers: list[Buffer] = []
        self.failed: list[tuple[int, TaskError]] = []

    def add(self, ids: list[int], values: list[Any]) -> None:
        """Pickle all values in one block; if that fails, one by one, so that a bad value harms no other."""
        if len(values) > 1:
            try:
                data, buffers = _slim(*_dump(values))
            except Exception:
                data = b""
            if data:
                self._append(ids, data, buffers)
                return
        for id, value in zip(ids, values, strict=True):
            listed = _Single(value) if type(value) is bytes else [value]
            try:
                data, buffers = _dump_or_explain(listed, value)
            except TypeError as error:
                self.failed.append((id, dump_error(error)))
            else:
                self._append([id], data, buffers)

    def _append(self, ids: list[int], data: bytes, buffers: list[Buffer]) -> None:
        self.blocks.append(Block(ids, data, len(buffers)))
        self.buffers += buffers


class _Single:
    """Pickles as ``[value]``, with large bytes out of band."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        value = self._value
        return _single, (value if len(value) < _SMALL_VALUE_BYTES else _Beside(bytes, value),)


def _single(value: Any) -> list[Any]:
    return [value]


#: Bytes that occur in the pickle of a value that holds futures, and in one with a long pickle beside it.
_FUTURES: Final = b"treadle.client.futures"
_LONG_BESIDE: Final = b"_load_beside"


def belongs_in_a_thread(block: Block) -> bool:
    """Whether to unpack the block in a thread, not on the loop: it may take long, or connect a client for the futures in it."""
    data = block.pickle
    return len(data) > _LONG_BYTES or _FUTURES in data or _LONG_BESIDE in data


class _Handed(bytearray):
    """A buffer that carries the values themselves, not their pickle, to a party in the same process."""

    __slots__ = ("values",)
    values: list[Any]


def _take_handed(buffer: _Handed) -> list[Any]:
    return buffer.values


#: A pickle that calls ``_take_handed`` with the one buffer beside it.
_HANDED: Final = pickle.dumps(_Beside(_take_handed, bytearray()), PROTOCOL, buffer_callback=lambda buffer: False)


def hand_over(ids: Sequence[int], values: Sequence[Any]) -> tuple[list[Block], list[Buffer]]:
    """As ``pack_values``, for a connection that passes frames by reference: the other end gets the very objects."""
    if not ids:
        return [], []
    handed = _Handed()
    handed.values = list(values)
    return [Block(list(ids), _HANDED, 1)], [handed]


def pack_or_hand_over(ids: Sequence[int], values: Sequence[Any], sizes: Sequence[int]) -> tuple[list[Block], list[Buffer]]:
    """As ``hand_over``, for another party: it gets copies of the values that can be pickled, so that futures in them become its own."""
    blocks, buffers, failed = pack_values(ids, values, sizes)
    if not failed:
        return blocks, buffers
    by_id = dict(zip(ids, values, strict=True))
    handed = [id for id, _ in failed]
    more, beside = hand_over(handed, [by_id[id] for id in handed])
    return blocks + more, buffers + beside


def unpack_block(block: Block, buffers: Sequence[Buffer]) -> list[Any]:
    """The values of ``block.ids``, in order. Raises PeerProtocolError when the number is wrong, and what unpickling raises."""
    values = pickle.loads(block.pickle, buffers=buffers)
    if type(values) is not list or len(values) != len(block.ids):
        raise PeerProtocolError(f"a block of {len(block.ids)} values holds something else")
    return values
