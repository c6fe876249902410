"""Factories by name: features register here for code that may not import them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_factories: dict[str, Callable[..., Any]] = {}


def register_factory(name: str, factory: Callable[..., Any]) -> None:
    """Register a factory under a name; a later registration replaces an earlier one."""
    _factories[name] = factory


def factory(name: str) -> Callable[..., Any]:
    """The factory with that name. Raises LookupError, which names it, when none is registered."""
    try:
        return _factories[name]
    except KeyError:
        raise LookupError(f"no factory {name!r} is registered; import treadle itself, which registers its features") from None
