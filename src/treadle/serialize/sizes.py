"""How large a value is in memory, and what its type is called."""

from __future__ import annotations

import sys
from typing import Any, Final

from dask.sizeof import sizeof as _dask_sizeof

#: For what does not know its own size.
_DEFAULT_BYTES: Final = 1024
_FIXED: Final[dict[type, int]] = {int: 28, float: 24, bool: 28, type(None): 16, complex: 32}
_OWN_SIZE: Final = frozenset([str, bytes, bytearray])


def sizeof(value: Any) -> int:
    """Bytes, estimated; at least 1. Never raises."""
    kind = type(value)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    try:
        return max(1, int(sys.getsizeof(value) if kind in _OWN_SIZE else _dask_sizeof(value)))
    except Exception:
        try:
            return max(1, sys.getsizeof(value))
        except Exception:
            return _DEFAULT_BYTES


def type_name(value: Any) -> str:
    """``"int"``, ``"numpy.ndarray"``: with its module unless that is builtins."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
