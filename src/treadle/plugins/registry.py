"""Where features announce themselves to code that may not import them: factories by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_factories: dict[str, Callable[..., Any]] = {}


def register_factory(name: str, factory: Callable[..., Any]) -> None:
    """Make ``factory(name)`` answer with this one; a later registration replaces an earlier one."""
    _factories[name] = factory


def factory(name: str) -> Callable[..., Any]:
    """The factory of that name. Raises LookupError that names it when nothing was registered."""
    try:
        return _factories[name]
    except KeyError:
        raise LookupError(f"no factory {name!r} is registered; import treadle itself, which registers its features") from None
