"""Exceptions <-> ``TaskError``: the exception with its causes and tracebacks if they can be pickled, and always their text."""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

import cloudpickle

from treadle.messages.base import TaskError

#: File, function, line and module of each frame, outermost first.
Frames: TypeAlias = list[tuple[str, str, int, str]]

_PACKAGE: Final = Path(__file__).parent.parent
#: The outermost frames are left out of a traceback while they are in these folders: users do not care about them.
_OWN: Final = (str(_PACKAGE / "worker"), str(_PACKAGE / "serialize"))
#: A deeper traceback (endless recursion) loses its middle.
_MAX_FRAMES: Final = 100
_MAX_CAUSES: Final = 20
#: An exception with a larger pickle travels as text only, because the scheduler keeps it in memory.
_MAX_EXCEPTION_BYTES: Final = 10_000_000


class _Link(NamedTuple):
    """One exception of a chain: how it was raised, and which of its relations leads to the next one."""

    exception: bytes
    text: str
    frames: Frames
    #: ``"cause"``, ``"context"`` or ``""`` for the last one.
    relation: str
    suppress_context: bool


def dump_error(error: BaseException, max_length: int = 10_000) -> TaskError:
    """The exception as a ``TaskError``. Never raises. Texts are cut to ``max_length`` characters.

    ``exception`` is empty when the exception cannot be pickled, or its pickle cannot be loaded. Tracebacks begin where
    treadle's own frames end.
    """
    trace = _skip_own(error.__traceback__)
    frames = _frames(trace)
    exception = b""
    data = _dump_exception(error)
    if data:
        chain = [tuple(link) for link in _chain(error, data)]
        exception = pickle.dumps(chain, 5)
        if len(exception) > _MAX_EXCEPTION_BYTES:
            exception = b""
    return TaskError(
        exception,
        pickle.dumps(frames, 5),
        _cut(_describe(error), max_length, keep_end=False),
        _cut(_format(error, trace), max_length, keep_end=True),
    )


def load_error(error: TaskError) -> BaseException:
    """The exception with its tracebacks and causes; an ``Exception`` with the text when it cannot be unpickled here."""
    result: BaseException | None = None
    if error.exception:
        try:
            loaded = pickle.loads(error.exception)
            # An error made by the scheduler is a bare exception, without a chain of causes.
            result = loaded if isinstance(loaded, BaseException) else _load_chain(loaded)
        except Exception as failure:
            result = Exception(error.exception_text)
            result.add_note(f"(the original exception could not be unpickled here: {_describe(failure)})")
    if result is None:
        result = Exception(error.exception_text)
    result.__traceback__ = load_traceback(error)
    return result


def load_traceback(error: TaskError) -> TracebackType | None:
    """The traceback of the place where the exception was raised; None when its frames are not known."""
    try:
        return _traceback(pickle.loads(error.traceback)) if error.traceback else None
    except Exception:
        return None


# -------------------------------------------------------------------------------------------------- exceptions


def _chain(error: BaseException, data: bytes) -> list[_Link]:
    links: list[_Link] = []
    seen: set[int] = set()
    current = error
    while True:
        seen.add(id(current))
        following: BaseException | None = current.__cause__
        relation = "cause"
        if following is None:
            following, relation = (None if current.__suppress_context__ else current.__context__), "context"
        if following is None or id(following) in seen or len(links) + 1 >= _MAX_CAUSES:
            following, relation = None, ""
        frames = _frames(_skip_own(current.__traceback__)) if links else []  # the first one's are in ``TaskError.traceback``
        links.append(_Link(data, _describe(current), frames, relation, current.__suppress_context__))
        if following is None:
            return links
        current = following
        data = _dump_exception(current)


def _load_chain(links: list[tuple[Any, ...]]) -> BaseException:
    following: BaseException | None = None
    for link in map(_Link._make, reversed(links)):
        try:
            error: BaseException = pickle.loads(link.exception) if link.exception else Exception(link.text)
        except Exception:
            if link is links[0] or len(links) == 1:
                raise
            error = Exception(link.text)
        error.__traceback__ = _traceback(link.frames)
        if link.relation == "cause":
            error.__cause__ = following
        elif link.relation == "context":
            error.__context__ = following
        error.__suppress_context__ = link.suppress_context
        following = error
    assert following is not None
    return following


def _dump_exception(error: BaseException) -> bytes:
    """The exception's pickle; empty when it cannot be pickled, or would not be unpickled to the same type."""
    for candidate in (error, _Rebuilt(error)):
        try:
            file = io.BytesIO()
            _Pickler(file, error).dump(candidate)
            again = pickle.loads(file.getvalue())
        except Exception:
            continue
        if type(again).__qualname__ == type(error).__qualname__ and _safe_repr(again) == _safe_repr(error):
            return file.getvalue()
    return b""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles an exception by its own ``__reduce_ex__``. Libraries register other reducers for exceptions; that of tblib
    includes the tracebacks of the whole chain, which are sent here already."""

    def __init__(self, file: io.BytesIO, error: BaseException) -> None:
        super().__init__(file, protocol=5)
        self._error = error

    def reducer_override(self, value: Any) -> Any:
        if value is self._error:
            return value.__reduce_ex__(5)
        return super().reducer_override(value)


class _Rebuilt:
    """Pickles as an exception of the same type, arguments and attributes, made without a call of its ``__init__``.

    Many exception classes take other arguments than they pass on to ``Exception``, and could not be unpickled otherwise.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self._error), self._error.args, dict(self._error.__dict__))


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


# -------------------------------------------------------------------------------------------------- tracebacks


def _skip_own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without treadle's own frames at its beginning; all of it when there are no other frames."""
    rest = trace
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_OWN):
        rest = rest.tb_next
    return trace if rest is None else rest


def _frames(trace: TracebackType | None) -> Frames:
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((code.co_filename, code.co_name, trace.tb_lineno or 1, str(trace.tb_frame.f_globals.get("__name__", ""))))
        trace = trace.tb_next
    if len(frames) > _MAX_FRAMES:
        del frames[_MAX_FRAMES // 2 : -_MAX_FRAMES // 2]
    return frames


def _traceback(frames: Frames) -> TracebackType | None:
    trace: TracebackType | None = None
    for filename, name, line, module in reversed(frames):
        code = _nothing.__code__.replace(co_filename=filename, co_name=name, co_qualname=name, co_firstlineno=line)
        # The frame of a generator that was never run: that of a function that raised would refer to its callers and keep
        # alive all that they hold.
        generator = FunctionType(code, {"__name__": module, "__file__": filename})()
        trace = TracebackType(trace, generator.gi_frame, 0, line)
    return trace


def _nothing() -> Iterator[None]:
    yield


# -------------------------------------------------------------------------------------------------------- text


def _safe_repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return f"<{type(error).__qualname__}>"


def _describe(error: BaseException) -> str:
    """``ValueError('text')``; never empty, never raises."""
    return _safe_repr(error) or type(error).__qualname__


def _format(error: BaseException, trace: TracebackType | None) -> str:
    """The exception as Python prints it, including its causes."""
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:
        return "".join(traceback.format_tb(trace)) + _describe(error) + "\n"


def _cut(text: str, max_length: int, keep_end: bool) -> str:
    """At most ``max_length`` characters and a note. ``keep_end``: keep the end, which says more in a traceback."""
    if len(text) <= max_length:
        return text
    missing = len(text) - max_length
    if keep_end:
        return f"[{missing} characters left out]\n{text[missing:]}"
    return f"{text[:max_length]} [{missing} characters left out]"
