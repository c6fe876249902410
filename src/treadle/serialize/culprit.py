"""Find the part of a value that cannot be pickled, for the text of the error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

#: Bounds of the search: parts that are examined on one level, and levels.
_MAX_PARTS: Final = 200
_MAX_DEPTH: Final = 8


def describe(value: Any, can_be_pickled: Callable[[Any], bool], cause: BaseException, name: str = "value") -> str:
    """A text that names the value's type, the part that is to blame (``value['lock']``), and the reason."""
    path, culprit = _search(value, can_be_pickled, name)
    text = f"cannot pickle {_type_name(value)} object"
    if culprit is not value:
        text += f": {path} is {_brief(culprit)} of type {_type_name(culprit)}"
    return f"{text} ({type(cause).__name__}: {cause})"


def _search(value: Any, can_be_pickled: Callable[[Any], bool], path: str) -> tuple[str, Any]:
    """The path from the value to its smallest part that cannot be pickled, and that part."""
    for _ in range(_MAX_DEPTH):
        for number, (step, part) in enumerate(_parts(value)):
            if number >= _MAX_PARTS:
                return path, value
            if not can_be_pickled(part):
                path, value = path + step, part
                break
        else:
            return path, value
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with the step that leads to it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{_brief(key)}]", part
        for key in value:
            yield " (a key)", key
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield " (an element)", part
    elif hasattr(value, "__code__"):
        yield from _variables(value)
    else:
        yield from _state(value)


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """What a function takes along into its pickle: its closure, the globals that it uses, its defaults."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" (its variable {name!r})", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in code.co_names:
        if name in function.__globals__:
            yield f" (its global variable {name!r})", function.__globals__[name]
    for part in function.__defaults__ or ():
        yield " (a default)", part


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, as its ``__reduce_ex__`` tells pickle."""
    if isinstance(value, type):
        return
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:
        state = getattr(value, "__dict__", None)
        reduced = (None, (), state)
    if not isinstance(reduced, tuple):
        return
    for state in reduced[2:3]:
        for attributes in state if isinstance(state, tuple) else (state,):
            if isinstance(attributes, dict):
                for name, part in attributes.items():
                    yield f".{name}", part
            elif attributes is not None:
                yield " (its state)", attributes
    for part in reduced[1] if isinstance(reduced[1], tuple) else ():
        if part is not value and part is not type(value):
            yield " (an argument)", part


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return "something"
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
