"""Names of calls: the same function with the same arguments has the same key, in every process. No I/O."""

from __future__ import annotations

import itertools
import marshal
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from dask.core import validate_key
from dask.tokenize import tokenize
from dask.utils import funcname

from treadle.client.futures import Future
from treadle.serialize.containers import KINDS
from treadle.serialize.values import dumps

#: Of which nothing but the value is of interest.
_LEAVES: Final = frozenset([int, float, bool, type(None), str, bytes, Future])
#: A text or bytes longer than this is hashed by ``tokenize``, and travels on its own.
LARGE_BYTES: Final = 100_000

_BUILTIN: Final = frozenset([*KINDS, int, float, bool, str, bytes])
_NUMBERS: Final = frozenset([int, float, bool, type(None)])
#: Longer lists and tuples are left to ``tokenize``.
_MOST_ELEMENTS: Final = 1000
#: So are those nested deeper, as those are that contain themselves.
_MOST_DEEP: Final = 50


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether ``marshal`` writes it the same way everywhere: numbers, None, short text and bytes, tuples and lists of them."""
    kind = type(value)
    if kind in _NUMBERS:
        return True
    if kind is str or kind is bytes:
        return len(value) <= LARGE_BYTES
    if kind is tuple or kind is list:
        if len(value) > _MOST_ELEMENTS or depth > _MOST_DEEP:
            return False
        for element in value:
            if type(element) not in _NUMBERS and not is_plain(element, depth + 1):
                return False
        return True
    return False


def signature_of(value: Any) -> Any:
    """What ``marshal`` can hash in the place of a plain value or a future; raises ValueError for anything else."""
    kind = type(value)
    if kind in _NUMBERS:
        return value
    if isinstance(value, Future):
        # No plain value holds an Ellipsis, so no plain value is mistaken for it.
        digest = value.digest
        return (..., value.key, digest) if digest else (..., value.key)
    if kind is tuple:
        return tuple([signature_of(element) for element in value])
    if kind is list:
        return [signature_of(element) for element in value]
    if is_plain(value):
        return value
    raise ValueError(kind)


def digest(token: bytes, args: tuple[Any, ...]) -> str:
    """The token of a call: 32 hexadecimal digits. ``args`` are plain."""
    # Version 2 of the format knows no references and no interned text, so equal values have equal bytes.
    return blake2b(token + marshal.dumps(args, 2), digest_size=16).hexdigest()


def bound_token(token: str, kwargs: Mapping[str, Any]) -> str:
    """Stands for a function (``token``) together with keyword arguments."""
    if not kwargs:
        return token
    try:
        return f"{token}-{digest(b'', tuple([(name, signature_of(kwargs[name])) for name in sorted(kwargs)]))}"
    except (ValueError, RecursionError):
        return f"{token}-{token_of(dict(kwargs))}"


def call_key(prefix: str, token: str, args: tuple[Any, ...]) -> str:
    """The key of a pure call. ``token``: see ``bound_token``."""
    try:
        return f"{prefix}-{digest(token.encode(), signature_of(args))}"
    except (ValueError, RecursionError):
        return f"{prefix}-{token_of(token, *args)}"


def token_of(*parts: Any) -> str:
    """Stands for values of any kind. Raises TypeError for one that cannot even be pickled for being nested too deeply."""
    try:
        # To ``tokenize`` a Counter is a dict.
        types: list[str] = []
        _add_types(parts, "", types)
        return str(tokenize(*parts, sorted(types))) if types else str(tokenize(*parts))
    except RecursionError:
        pass  # it contains itself
    try:
        data, buffers = dumps(parts)
    except (TypeError, RecursionError) as error:
        raise TypeError("an argument is nested too deeply to be sent to workers") from error
    hashed = blake2b(data, digest_size=16)
    for buffer in buffers:
        hashed.update(buffer)
    return hashed.hexdigest()


def _add_types(value: Any, path: str, found: list[str]) -> None:
    """What derives from a builtin type in there, and where."""
    kind = type(value)
    if kind not in _BUILTIN and isinstance(value, (*KINDS, int, float, str, bytes)):
        found.append(f"{path} {kind.__module__}.{kind.__qualname__}")
    if isinstance(value, dict):
        for key, item in value.items():
            if type(item) not in _LEAVES:
                _add_types(item, f"{path}.{key!r:.50}", found)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            if type(item) not in _LEAVES:
                _add_types(item, f"{path}.{position}", found)


def unique_key(prefix: str) -> str:
    """The key of an impure call."""
    return f"{prefix}-{next(_numbers):032x}"


def _draw_numbers() -> None:
    """Unique names cost a count each, from a start that is random in every process, also in the child of a fork."""
    global _numbers
    # Well below the highest number of 32 digits, so that no count ever has more.
    _numbers = itertools.count(uuid.uuid4().int >> 1)


_numbers: Iterator[int]
_draw_numbers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_draw_numbers)


def check_key(key: Any) -> None:
    """Raises TypeError for what cannot be a key, ValueError for a key that the wire has no form for."""
    validate_key(key)
    if isinstance(key, tuple):
        for part in key:
            check_key(part)
    elif isinstance(key, float) and key != key:
        raise ValueError("nan cannot be a key: it is not equal to itself, so its task could not be found again")
    elif isinstance(key, int) and not -(2**63) <= key < 2**64:
        raise ValueError(f"a number this large cannot be a key: {key}")
    elif isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"this text cannot be a key: {key!a} ({error.reason})") from None


def function_name(function: Callable[..., Any]) -> str:
    return str(funcname(function))
