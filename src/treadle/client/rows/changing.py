"""Whether a call can change its function, so that the next call would find another one. No I/O.

A worker unpickles a function that cannot change once, and shares it between calls. All others it unpickles for each call.
In doubt a function can change: that costs time, never a result.
"""

from __future__ import annotations

import copyreg
import dis
import operator
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    EllipsisType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    NotImplementedType,
    WrapperDescriptorType,
)
from typing import Any, Final
from uuid import UUID

import cloudpickle
from dask._task_spec import Alias, DataNode, GraphNode, NestedContainer, Task, TaskRef
from dask.utils import methodcaller

#: Types of which no object ever changes. Functions of C that belong to a type are among them.
_CONSTANT: Final = frozenset(
    [
        *(int, float, complex, bool, str, bytes, type(None), EllipsisType, NotImplementedType, range),
        *(date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID, re.Pattern),
        *(ModuleType, MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType),
    ]
)
#: Callables of the standard library and of dask that consist of what they were made with.
_GETTERS: Final = (operator.itemgetter, operator.attrgetter, operator.methodcaller, methodcaller)
_LRU_CACHE: Final = type(lru_cache(int))
#: Names in a function that travels by value with which it can reach what travels with it.
_REACHING: Final = frozenset(
    ["setattr", "delattr", "globals", "vars", "exec", "eval", "__dict__", "__globals__", "__closure__", "__defaults__", "__kwdefaults__"]
)
#: Containers larger, and values nested deeper, are not looked through.
_MOST_ELEMENTS: Final = 1000
_MOST_DEEP: Final = 50


def travels_by_name(function: FunctionType) -> bool:
    """Whether workers import the function: it is one of their own then, as its module's other globals are.

    The name must lead to this very function. That of one that was decorated leads to what the decorator made of it.
    """
    module = function.__module__
    if module not in sys.modules or module in ("__main__", "__mp_main__"):
        return False
    found: Any = sys.modules[module]
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function and not _is_registered_by_value(module)


def _is_registered_by_value(module: str) -> bool:
    """Whether cloudpickle was told to pickle what the module, or a package that it is in, defines by value."""
    registered = cloudpickle.list_registry_pickle_by_value()
    while registered and module:
        if module in registered:
            return True
        module = module.rpartition(".")[0]
    return False


def can_change(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a call of ``value``, or one that gets hold of it, could leave it changed. What travels by name cannot be changed so.

    ``seen``: ids of what contains it, for functions that refer to themselves.
    """
    kind = type(value)
    if kind in _CONSTANT:
        return False
    if isinstance(value, type):  # also one that travels by value is loaded once in each process
        return False
    if id(value) in seen:
        return False
    if len(seen) > _MOST_DEEP:
        return True
    inside = seen | {id(value)}
    if kind is FunctionType:
        return not travels_by_name(value) and _by_value_can_change(value, inside)
    if kind is tuple or kind is frozenset:
        return len(value) > _MOST_ELEMENTS or _any(value, inside)
    if kind is slice:
        return _any((value.start, value.stop, value.step), inside)
    if kind is partial:
        return _any((value.func, *value.args, *value.keywords.values(), *value.__dict__.values()), inside)
    if kind is MethodType:
        return _any((value.__func__, value.__self__), inside)
    if kind is BuiltinFunctionType or kind is MethodWrapperType:
        return can_change(getattr(value, "__self__", None), inside)
    if kind.__module__ == "toolz.functoolz":
        if kind.__name__ == "curry":
            return _any((value.func, *value.args, *value.keywords.values()), inside)
        return kind.__name__ != "Compose" or _any((value.first, *value.funcs), inside)
    if kind is _LRU_CACHE:  # what it remembers is what it would compute
        return can_change(value.__wrapped__, inside)
    if kind in _GETTERS:
        return _any(value.__reduce__()[1], inside)
    if isinstance(value, (Enum, PurePath)):
        return False
    return not _is_numpy_constant(value) and not _travels_as_a_name(value)


def _any(values: Iterable[Any], seen: frozenset[int]) -> bool:
    for value in values:
        if can_change(value, seen):
            return True
    return False


def _by_value_can_change(function: FunctionType, seen: frozenset[int]) -> bool:
    """A function that travels with what it captures: that may change, and it may be assigned to."""
    captured: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *function.__dict__.values()]
    for cell in function.__closure__ or ():
        try:
            captured.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            return True
    codes = _codes(function.__code__)
    for code in codes:
        captured += [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    carries_functions = any([type(value) is FunctionType and not travels_by_name(value) for value in captured])
    free = function.__code__.co_freevars
    for code in codes:
        if not _REACHING.isdisjoint(code.co_names):
            return True
        for instruction in dis.get_instructions(code):
            name = instruction.opname
            if name in ("STORE_GLOBAL", "DELETE_GLOBAL") or (name in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in free):
                return True
            if carries_functions and name in ("STORE_ATTR", "DELETE_ATTR"):
                return True
    return _any(captured, seen)


def _codes(code: CodeType) -> list[CodeType]:
    """That of a function, and of all functions inside it."""
    codes = [code]
    for part in code.co_consts:
        if isinstance(part, CodeType):
            codes += _codes(part)
    return codes


def _is_numpy_constant(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    return isinstance(value, numpy.dtype) or (isinstance(value, numpy.generic) and not isinstance(value, (numpy.void, numpy.object_)))


def _travels_as_a_name(value: Any) -> bool:
    """Whether its pickle is a name, as that of a ufunc."""
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        return isinstance(value.__reduce_ex__(5) if reduce is None else reduce(value), str)
    except Exception:
        return False


# -------------------------------------------------------------------------------------------------- fused tasks


def nodes_can_change(nodes: Mapping[Any, Any]) -> bool:
    """Whether running these fused tasks could change one of their functions or constants, lists and the like in it apart.

    A ``Subgraph`` makes these anew for each call.
    """
    return any([_part_can_change(node) for node in nodes.values()])


def _part_can_change(part: Any) -> bool:
    if isinstance(part, (TaskRef, Alias)):
        return False
    if isinstance(part, DataNode):
        return _constant_can_change(part.value, _MOST_DEEP)
    if isinstance(part, NestedContainer):
        return any([_part_can_change(item) for item in part.args])
    if isinstance(part, Task):
        return can_change(part.func) or any([_part_can_change(item) for item in [*part.args, *part.kwargs.values()]])
    return isinstance(part, GraphNode) or _constant_can_change(part, _MOST_DEEP)


def _constant_can_change(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is list or kind is set or kind is tuple:
        items = value
    elif kind is dict:
        items = value.values()
    else:
        return can_change(value)
    return depth == 0 or len(value) > _MOST_ELEMENTS or any([_constant_can_change(item, depth - 1) for item in items])
