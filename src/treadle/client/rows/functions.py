"""Functions that the scheduler was told of: pickled once, sent once, named by id. The caller holds the session's lock."""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, Final

from dask.tokenize import normalize_token, tokenize

from treadle.client.rows.changing import can_change, nodes_can_change, travels_by_name
from treadle.client.rows.keys import function_name
from treadle.serialize.nodes import Subgraph
from treadle.serialize.spec import dumps_function, dumps_unshared

#: Functions known at a time; the one used longest ago is forgotten.
MOST_FUNCTIONS: Final = 10_000


@normalize_token.register(type(lru_cache(int)))  # type: ignore[untyped-decorator]
def _normalize_cached(function: Any) -> Any:
    """Its name says nothing of what it does: another function may have had that in this session."""
    return "lru_cache", repr(function.cache_parameters()), normalize_token(function.__wrapped__)


class KnownFunction:
    """A function as this client sends it. ``id`` is 0 until it is defined, and after it was forgotten."""

    __slots__ = ("__weakref__", "body", "content", "digest", "id", "is_subgraph", "name", "token")

    def __init__(self, name: str, token: str, body: bytes, content: bytes = b"") -> None:
        self.name = name
        #: Stands for the function in keys.
        self.token = token
        #: What workers unpickle: once, or for each call if a call can change it (``treadle.serialize.spec.Unshared``).
        self.body = body
        #: Hash of its pickle; of those of one graph nothing.
        self.content = content
        #: See ``treadle.client.rows.digests``; made when it is asked for first.
        self.digest = b""
        self.id = 0
        #: It stands for fused tasks (``treadle.serialize.nodes.Subgraph``).
        self.is_subgraph = False


class _Remembered:
    """What was found for a function object, and what that rests on."""

    __slots__ = ("captured", "known", "object")

    def __init__(self, known: KnownFunction, captured: tuple[Any, ...], object: Any) -> None:
        self.known = known
        self.captured = captured
        #: The function itself, or a weak reference to it.
        self.object = object


class Functions:
    """By identity, and behind that by content."""

    def __init__(self) -> None:
        self._by_identity: dict[int, _Remembered] = {}
        self._by_content: OrderedDict[bytes, KnownFunction] = OrderedDict()
        #: Those of graphs that are being sent, and of nothing else.
        self._own: dict[KnownFunction, None] = {}

    def find(self, function: Callable[..., Any]) -> KnownFunction:
        """What is known of the function. Raises TypeError with its name when it cannot be pickled."""
        captured = _captured(function)
        if captured is None:  # it may change without notice: look at its content every time
            return self._by_bytes(function)
        remembered = self._by_identity.get(id(function))
        if remembered is not None and _same(remembered.captured, captured):
            return remembered.known
        known = self._by_bytes(function)
        reference: Any
        try:
            number = id(function)
            reference = weakref.ref(function, lambda _: self._by_identity.pop(number, None))
        except TypeError:
            reference = function
        if len(self._by_identity) >= 2 * MOST_FUNCTIONS:
            self._by_identity.clear()
        self._by_identity[id(function)] = _Remembered(known, captured, reference)
        return known

    def _by_bytes(self, function: Callable[..., Any]) -> KnownFunction:
        body = dumps_function(function)
        content = blake2b(body, digest_size=16).digest()
        known = self._by_content.get(content)
        if known is None:
            if can_change(function):
                body = dumps_unshared(body)
            known = KnownFunction(function_name(function), tokenize(function), body, content)
            self._by_content[content] = known
        return known

    def make_own(self, function: Callable[..., Any]) -> KnownFunction:
        """A function that only one graph needs, until ``forget_own``. Raises TypeError with its name when it cannot be pickled."""
        body = dumps_function(function)
        if nodes_can_change(function.nodes) if type(function) is Subgraph else can_change(function):
            body = dumps_unshared(body)
        known = KnownFunction(function_name(function), "", body)
        self._own[known] = None
        return known

    def forget_own(self, made: Iterable[KnownFunction]) -> list[int]:
        """The graph was sent. Returns the ids that nobody needs any more."""
        forgotten = []
        for known in made:
            if self._own.pop(known, 0) is None and known.id:
                forgotten.append(known.id)
        return forgotten

    def used(self, known: KnownFunction) -> list[int]:
        """It was given an id, or used again. Returns the ids of those that are forgotten for it."""
        if known in self._own:
            return []
        self._by_content[known.content] = known
        self._by_content.move_to_end(known.content)
        forgotten = []
        while len(self._by_content) > MOST_FUNCTIONS:
            _, oldest = self._by_content.popitem(last=False)
            if oldest.id:
                forgotten.append(oldest.id)
                oldest.id = 0
        return forgotten

    def defined(self) -> list[KnownFunction]:
        """Those that the scheduler was told of, and was not told to forget."""
        return [known for known in [*self._by_content.values(), *self._own] if known.id]

    def rebase(self, shift: int) -> None:
        """All ids were provisional: raise them."""
        for known in [*self._by_content.values(), *self._own]:
            if known.id:
                known.id += shift


_IMPORTED: Final = ("__main__", "__mp_main__")


def is_importable(function: Callable[..., Any]) -> bool:
    """Whether workers find it by its name, so that it stays what it is."""
    return type(function) in (FunctionType, BuiltinFunctionType, type) and _captured(function) == ()


def _captured(function: Callable[..., Any]) -> tuple[Any, ...] | None:
    """The objects that a pickle of the function is made of; None when that cannot be said.

    A function that travels by value takes with it what its closure and its globals hold at that moment: the same function
    object may be another function a line later.
    """
    kind = type(function)
    if kind is FunctionType:
        return () if travels_by_name(function) else _captured_by_value(function)  # type: ignore[arg-type]
    if kind is BuiltinFunctionType:
        return () if getattr(function, "__self__", None) is None or isinstance(function.__self__, type(sys)) else None  # type: ignore[attr-defined]
    if kind is type:
        return () if function.__module__ not in _IMPORTED and "<" not in function.__qualname__ else None
    return None


def _captured_by_value(function: FunctionType) -> tuple[Any, ...] | None:
    if function.__kwdefaults__ or function.__dict__:
        return None
    values: list[Any] = list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            return None
    for name in _names(function.__code__):
        if name in function.__globals__:
            values.append(function.__globals__[name])
    for value in values:
        # What can change inside without being another object (a list, an instance) makes the function one that can change.
        if not isinstance(value, _FIXED):
            return None
        # It travels along, with what it refers to itself.
        if type(value) is FunctionType and not travels_by_name(value):
            return None
        if type(value) is BuiltinFunctionType and _captured(value) != ():
            return None
    return (function.__code__, *values)


def _names(code: CodeType) -> list[str]:
    """Names of globals (and of attributes) in a function and in the functions inside it."""
    names = list(code.co_names)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            names += _names(part)
    return names


#: Types of which an object stays what it is, or travels by reference.
_FIXED: Final = (int, float, complex, str, bytes, type(None), type(sys), BuiltinFunctionType, FunctionType)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if len(one) != len(other):
        return False
    for mine, its in zip(one, other, strict=True):
        if mine is not its:
            return False
    return True
