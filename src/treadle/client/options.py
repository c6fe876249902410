"""What a user asks of tasks: arguments and annotations -> TaskOptions. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any, Final

from treadle import config
from treadle.messages.base import TaskOptions
from treadle.utils.shown import shown

#: Annotations that mean something here, by the names under which they may be given; all others are kept and shown.
_ALIASES: Final = {"restrictions": "workers", "loose_restrictions": "allow_other_workers"}
#: What is larger in amount the scheduler does not take: see ``treadle.messages.base.Finite``.
LARGEST_NUMBER: Final = 1e100
_MEANT: Final = frozenset(["workers", "allow_other_workers", "priority", "retries", "resources", "executor"])


def worker_names(workers: Any) -> list[str] | None:
    """Addresses, names or hosts as text. Raises TypeError for anything else than a name or some."""
    if workers is None:
        return None
    if isinstance(workers, (str, Number)):
        return [str(workers)]
    if isinstance(workers, (list, tuple, set, frozenset)):
        # Sets have no order of their own that is the same in two runs.
        items: Iterable[Any] = workers if isinstance(workers, (list, tuple)) else sorted(workers, key=str)
        names = [str(getattr(worker, "address", worker)) for worker in items]
        if not names:
            raise ValueError("workers must name at least one worker, or be None for any")
        return names
    raise TypeError(f"workers must be a list or set of worker addresses or names, got {type(workers).__name__}")


def make_options(
    *,
    workers: Any = None,
    allow_other_workers: Any = False,
    resources: Any = None,
    retries: Any = None,
    actor: Any = False,
    annotations: Mapping[str, Any] | None = None,
) -> TaskOptions | None:
    """Options of a whole submission; None when nothing is asked. ``annotations`` count where an argument does not.

    The user's ``priority`` is no part of it: it goes by the submission. Raises TypeError and ValueError naming the argument.
    """
    if actor:
        raise NotImplementedError("actors are not available yet (actor=True): keep the state in a task's result instead")
    if allow_other_workers not in (True, False, None):
        raise TypeError("allow_other_workers= must be True or False")
    if allow_other_workers and workers is None:
        raise ValueError("Only use allow_other_workers= if using workers=")
    asked: dict[str, Any] = {"workers": workers, "allow_other_workers": allow_other_workers, "resources": resources, "retries": retries}
    return row_options({name: value for name, value in asked.items() if value not in (None, False)}, annotations)


def row_options(asked: Mapping[str, Any], annotations: Mapping[str, Any] | None) -> TaskOptions | None:
    """Options of a row: ``asked`` wins over ``annotations``, whose callables were called already."""
    merged: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in (annotations or {}).items():
        name = _ALIASES.get(name, name)
        if value is None:
            continue
        if name in _MEANT:
            merged[name] = value
        else:
            others[name] = value
    merged.update(asked)
    if not merged and not others:
        return None
    allow = merged.get("allow_other_workers", False)
    if not isinstance(allow, bool):
        raise TypeError("allow_other_workers= must be True or False")
    return TaskOptions(
        workers=worker_names(merged.get("workers")),
        allow_other_workers=allow,
        resources=_resources(merged.get("resources")),
        retries=_retries(merged.get("retries")),
        priority=number("priority", merged.get("priority", 0)),
        executor=merged.get("executor"),
        annotations=_plain_annotations(others) or None,
    )


def number(name: str, value: Any) -> float:
    """A finite number, no larger than the scheduler takes. Raises TypeError or ValueError that names the argument."""
    if type(value) is not int and type(value) is not float:
        if not isinstance(value, Number) or isinstance(value, (bool, complex)):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name} must be a finite number, got {shown(value)}") from error
    if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ValueError(f"{name} must be a finite number between -1e+100 and 1e+100, got {shown(value)}")
    if type(value) is int and not -(2**63) <= value < 2**64:
        return float(value)  # the wire has no longer integers
    return value  # type: ignore[no-any-return]


def seconds(name: str, value: Any) -> float:
    """A time that is not negative, in seconds: a number, a text with a unit, or a timedelta. Raises ValueError."""
    try:
        time_s = config.seconds(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not 0 <= time_s <= LARGEST_NUMBER:
        raise ValueError(f"{name} must be a finite time of at least 0, got {shown(value)}")
    return time_s


def _retries(value: Any) -> int:
    if value is None:
        return 0
    retries = number("retries", value)
    if not 0 <= retries < 2**60 or retries != int(retries):
        raise ValueError(f"retries must be a whole number of at least 0, got {shown(value)}")
    return int(retries)


def _resources(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"resources must be a dict of amounts by name, got {type(value).__name__}")
    amounts: dict[str, float] = {}
    for name, amount in value.items():
        needed = float(number(f"resources[{name!r}]", amount))
        if needed < 0:
            raise ValueError(f"resources[{name!r}] must be at least 0, got {needed:g}")
        if needed:
            amounts[text("resources", str(name))] = needed
    return amounts or None


def text(name: str, value: str) -> str:
    """Text that can travel. Raises ValueError that names the argument."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: this text cannot be sent: {value!a} ({error.reason})") from None
    return value


def _plain_annotations(others: dict[str, Any]) -> Any:
    try:
        return _plain(others)
    except RecursionError:
        raise ValueError(f"annotations {', '.join(others)}: a value contains itself, or is nested too deeply") from None


def _plain(value: Any) -> Any:
    """The nearest thing that msgpack can hold: annotations are for people and plugins to read."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (value if isinstance(value, (list, tuple)) else sorted(value, key=str))]
    return str(value)
