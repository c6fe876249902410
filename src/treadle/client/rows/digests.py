"""What a task is, in 16 bytes, for keys that do not tell: equal code with equal arguments has an equal digest, in every process. No I/O.

A digest decides about a warning, never about a value: large arguments are told apart by type and shape alone.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from dask._task_spec import Alias, DataNode, NestedContainer, Task, TaskRef
from dask.tokenize import tokenize

from treadle.client.rows.changing import travels_by_name
from treadle.client.rows.keys import is_plain
from treadle.serialize.sizes import sizeof
from treadle.utils.keys import Key

#: Length of a digest. What stands for a task of which the content is not known has another one.
DIGEST_BYTES: Final = 16
_LARGE_BYTES: Final = 2**20
_MOST_DEEP: Final = 50
#: A digest stands for more calls than these that depend on each other.
_MOST_TOGETHER: Final = 16
_NUMBERS: Final = frozenset([int, float, bool, type(None)])


def call_digest(function: bytes, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Of a call; ``function``: the digest of its function."""
    content = _Content()
    content.add(b"call", function)
    content.add_all(args)
    content.add_named(kwargs)
    return content.digest()


def function_digest(function: Callable[..., Any]) -> bytes:
    """Where it was defined, and how its pickle looks, makes no difference."""
    content = _Content()
    content.add_value(function)
    return content.digest()


def unknown_digest(number: int) -> bytes:
    """Stands for a task that another client has submitted; ``number`` is unique in this one."""
    return b"?%020d" % number


def differ(one: bytes, other: bytes) -> bool:
    """Whether these are known to be of different tasks."""
    return one != other and len(one) == DIGEST_BYTES == len(other)


def node_digest(node: Any, reference: Callable[[Any], bytes]) -> bytes:
    """Of a node of a graph. ``reference``: what stands for a key that it depends on; of an unknown length if that is not known."""
    content = _Content(reference)
    content.add_value(node)
    return content.digest()


class GraphDigests:
    """Of the doubtful tasks of a graph: each counts with what it depends on. All others count by their keys."""

    def __init__(self, nodes: Mapping[Key, Any], doubtful: Collection[Key], outside: Callable[[Key], bytes]) -> None:
        #: Dependencies before dependents.
        self._nodes = nodes
        self._doubtful = doubtful
        #: What stands for a key that is none of ``nodes``: nothing if the key says all.
        self._outside = outside
        #: A digest; of a call that with all it depends on is small, and that ``marshal`` writes the same way everywhere, the call
        #: itself: (how many calls it consists of, function, arguments and what stands for references).
        self._found: dict[Key, bytes | tuple[int, bytes, list[Any]]] = {}
        #: Digests by identity; the nodes keep the functions alive.
        self._functions: dict[int, bytes] = {}

    def __call__(self, key: Key) -> bytes:
        if not self._found:
            self._find_all()
        return self._digest(self._found[key])

    def _find_all(self) -> None:
        found, functions, doubtful = self._found, self._functions, self._doubtful
        for key, node in self._nodes.items():
            if key not in doubtful:
                continue
            if type(node) is not Task or node.kwargs:
                found[key] = self._of_any(node)
                continue
            function = functions.get(id(node.func)) or self._function(node.func)
            if _is_unknown(function):
                found[key] = self._of_any(node)
                continue
            size = 1
            parts: list[Any] = []
            for argument in node.args:
                kind = type(argument)
                if kind in _NUMBERS:
                    parts.append(argument)
                    continue
                part = found.get(argument.key) if kind is TaskRef else None
                if type(part) is tuple:
                    size += part[0]
                elif part is None or len(part) != DIGEST_BYTES:
                    found[key] = self._of_call(node, function)
                    break
                parts.append(part)
            else:
                call = (size, function, parts)
                found[key] = call if size <= _MOST_TOGETHER else _hashed(call)

    def _of_call(self, node: Task, function: bytes) -> bytes:
        """Its arguments are numbers, and other things."""
        parts = self._parts(node.args, 0)
        return self._of_any(node) if parts is None else _hashed((function, parts))

    def _parts(self, args: Sequence[Any], depth: int) -> list[Any] | None:
        """What ``marshal`` writes the same way everywhere. None unless all are plain values, references, or containers of these."""
        parts: list[Any] = []
        for argument in args:
            if type(argument) is TaskRef:
                part = self._found.get(argument.key) or self._reference(argument.key)
                if type(part) is bytes and _is_unknown(part):
                    return None
                # No plain value holds an Ellipsis, so no plain value is mistaken for it.
                parts.append((..., part))
            elif is_plain(argument):
                parts.append(argument)
            elif isinstance(argument, NestedContainer) and depth < _MOST_DEEP:
                inner = self._parts(argument.args, depth + 1)
                if inner is None:
                    return None
                parts.append((..., type(argument).__name__, inner))
            else:
                return None
        return parts

    def _of_any(self, node: Any) -> bytes:
        return node_digest(node, self._reference)

    def _function(self, function: Callable[..., Any]) -> bytes:
        digest = self._functions[id(function)] = self._of_any(function)
        return digest

    def _reference(self, key: Key) -> bytes:
        found = self._found.get(key)
        if found is not None:
            return self._digest(found)
        return (b"" if key in self._nodes else self._outside(key)) or repr(key).encode("utf-8", "surrogatepass")

    def _digest(self, found: Any) -> bytes:
        return found if type(found) is bytes else _hashed(found)


def _hashed(value: Any) -> bytes:
    # Version 2 of the format knows no references and no interned text, so equal values have equal bytes.
    return blake2b(marshal.dumps(value, 2), digest_size=DIGEST_BYTES).digest()


def _is_unknown(digest: bytes) -> bool:
    return len(digest) != DIGEST_BYTES and digest.startswith(b"?")


class _Content:
    """Feeds a hash with what values consist of."""

    def __init__(self, reference: Callable[[Any], bytes] | None = None) -> None:
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._reference = reference
        self._certain = True
        self._inside: list[int] = []

    def digest(self) -> bytes:
        return self._hash.digest() if self._certain else unknown_digest(int.from_bytes(self._hash.digest()[:8]))

    def add(self, kind: bytes, data: bytes) -> None:
        self._hash.update(b"%s %d " % (kind, len(data)))
        self._hash.update(data)

    def add_all(self, values: Iterable[Any]) -> None:
        items = list(values)
        self.add(b"items", b"%d" % len(items))
        for item in items:
            self.add_value(item)

    def add_named(self, values: Mapping[Any, Any]) -> None:
        items = sorted(values.items(), key=lambda item: repr(item[0]))
        self.add(b"named", repr([name for name, _ in items]).encode("utf-8", "surrogatepass"))
        for _, item in items:
            self.add_value(item)

    def add_value(self, value: Any) -> None:
        if id(value) in self._inside or len(self._inside) > _MOST_DEEP:
            self.add(b"again", type(value).__name__.encode())
            return
        self._inside.append(id(value))
        try:
            self._add(value)
        finally:
            self._inside.pop()

    def _add(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, TaskRef):
            self._add_reference(value)
        elif isinstance(value, Alias):
            self._add_reference(TaskRef(value.target))
        elif isinstance(value, DataNode):
            self.add_value(value.value)
        elif isinstance(value, NestedContainer):
            self.add(b"container", kind.__name__.encode())
            self.add_all(value.args)
        elif isinstance(value, Task):
            self.add(b"task", b"")
            self.add_value(value.func)
            self.add_all(value.args)
            self.add_named(value.kwargs)
        elif kind is FunctionType:
            self._add_function(value)
        elif kind is BuiltinFunctionType and isinstance(value.__self__, (ModuleType, type(None))):
            self.add(b"name", f"{value.__module__}:{value.__qualname__}".encode())
        elif kind is MethodType:
            self.add(b"method", value.__func__.__qualname__.encode())
            self.add_value(value.__self__)
        elif kind is partial:
            self.add(b"partial", b"")
            self.add_value(value.func)
            self.add_all(value.args)
            self.add_named(value.keywords)
        elif kind is list or kind is tuple:
            self.add(kind.__name__.encode(), b"")
            self._add_plain(value) if is_plain(value) else self.add_all(value)
        elif kind is dict:
            self.add_named(value)
        elif is_plain(value):
            self._add_plain(value)
        else:
            self._add_other(value)

    def _add_reference(self, reference: Any) -> None:
        if self._reference is not None:
            data = self._reference(reference.key)
        else:
            # A future among the arguments of a call.
            data = getattr(reference, "digest", b"") or repr(reference.key).encode("utf-8", "surrogatepass")
        if _is_unknown(data):
            self._certain = False
        self.add(b"key", data)

    def _add_plain(self, value: Any) -> None:
        self.add(type(value).__name__.encode(), repr(value).encode("utf-8", "surrogatepass"))

    def _add_function(self, function: FunctionType) -> None:
        if travels_by_name(function):
            self.add(b"name", f"{function.__module__}:{function.__qualname__}".encode())
            return
        self.add(b"function", function.__name__.encode())
        self._add_code(function.__code__)
        self.add_all(function.__defaults__ or ())
        self.add_named(function.__kwdefaults__ or {})
        for cell in function.__closure__ or ():
            try:
                self.add_value(cell.cell_contents)
            except ValueError:  # not assigned yet
                self.add(b"empty", b"")
        names = sorted({name for name in _names(function.__code__) if name in function.__globals__})
        self.add_named({name: function.__globals__[name] for name in names})

    def _add_code(self, code: CodeType) -> None:
        """Without the lines and the file that it stands in."""
        self.add(b"code", code.co_code)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.add(b"names", repr((counts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_code(constant)
            elif isinstance(constant, frozenset):
                self.add(b"set", repr(sorted(map(repr, constant))).encode("utf-8", "surrogatepass"))
            else:
                self.add(b"constant", repr(constant).encode("utf-8", "surrogatepass"))

    def _add_other(self, value: Any) -> None:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}".encode()
        try:
            if isinstance(value, type):
                self.add(b"type", f"{value.__module__}.{value.__qualname__}".encode())
                return
            if sizeof(value) <= _LARGE_BYTES:
                self.add(name, tokenize(value).encode())
                return
            shape = getattr(value, "shape", None)
            self.add(name, repr(len(value) if shape is None else shape).encode())
        except Exception:  # of a user's type
            self.add(name, b"")


def _names(code: CodeType) -> list[str]:
    names = list(code.co_names)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            names += _names(part)
    return names
