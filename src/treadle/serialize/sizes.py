"""The size of a value in memory, and the name of its type."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from dask.sizeof import sizeof as _dask_sizeof

#: The estimate for a value whose size cannot be told.
_DEFAULT_BYTES: Final = 1024
_FIXED: Final[dict[type, int]] = {int: 28, float: 24, bool: 28, type(None): 16, complex: 32}
_OWN_SIZE: Final = frozenset([str, bytes, bytearray])
#: A dict with at most this many entries is measured whole, a larger one is sampled.
_FEW: Final = 64
#: Bytes of pandas' objects besides their data: a block of columns or a series, an index, a label.
_FRAME_BYTES: Final = 1200
_INDEX_BYTES: Final = 400
_LABEL_BYTES: Final = 60


def sizeof(value: Any) -> int:
    """The estimated size in bytes, at least 1. Never raises."""
    kind = type(value)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    try:
        if kind in _OWN_SIZE:
            return sys.getsizeof(value)
        return max(1, _of_dict(value) if isinstance(value, dict) and len(value) <= _FEW else _of_value(value))
    except Exception:
        try:
            return max(1, sys.getsizeof(value))
        except Exception:
            return _DEFAULT_BYTES


def _of_dict(value: dict[Any, Any]) -> int:
    return dict.__sizeof__(value) + sum([_of_value(key) + _of_value(item) for key, item in value.items()])


def _of_value(value: Any) -> int:
    kind = type(value)
    measure = _PANDAS.get(kind.__name__)
    if measure is not None and kind.__module__.partition(".")[0] == "pandas":
        known = measure(value)
        if known is not None:
            return known
    return int(_dask_sizeof(value))


# dask makes a Series of each column and samples each index, which takes longer than most tasks on small frames.
# The functions below return None for data with Python objects, which have to be sampled.


def _of_frame(frame: Any) -> int | None:
    total = _INDEX_BYTES + _LABEL_BYTES * len(frame.columns)
    index = _of_index(frame.index)
    if index is None:
        return None
    for block in frame._mgr.blocks:
        nbytes = _of_values(block.values)
        if nbytes is None:
            return None
        total += _FRAME_BYTES + nbytes
    return total + index


def _of_series(series: Any) -> int | None:
    nbytes = _of_values(series._values)
    index = _of_index(series.index)
    return None if nbytes is None or index is None else _FRAME_BYTES + nbytes + index


def _of_index(index: Any) -> int | None:
    name = type(index).__name__
    if name == "RangeIndex":
        return _INDEX_BYTES
    if name == "MultiIndex":
        return None
    nbytes = _of_values(index._values)
    return None if nbytes is None else _INDEX_BYTES + nbytes


def _of_values(values: Any) -> int | None:
    dtype = values.dtype
    if dtype.kind == "O" and getattr(dtype, "storage", None) != "pyarrow":
        return None
    return int(values.nbytes)


_PANDAS: Final[dict[str, Callable[[Any], int | None]]] = {"DataFrame": _of_frame, "Series": _of_series}


def type_name(value: Any) -> str:
    """``"int"``, ``"numpy.ndarray"``: the type's name, with its module unless that is builtins."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
