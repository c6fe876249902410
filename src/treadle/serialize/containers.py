"""Containers of users' types with other items in them: futures in the place of values, values in the place of futures.

Lists, tuples, sets, dicts, and all that derives from them; what else such an object holds stays with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

#: What they may derive from.
KINDS = (dict, list, tuple, set, frozenset)


def emptied(container: Any) -> Any:
    """One of the same type, with the same attributes and no items; of what cannot be changed later, its type. Raises TypeError."""
    kind = type(container)
    if isinstance(container, (tuple, frozenset)):
        return kind
    try:
        empty = copy.copy(container)
        empty.clear()
    except Exception as error:
        raise TypeError(f"a {kind.__qualname__} cannot be copied, so that its items could be replaced: {error}") from error
    return empty


def refilled(empty: Any, items: Any) -> Any:
    """What ``emptied`` gave, with these items: a dict's mapping, else a sequence. May change ``empty``."""
    if isinstance(empty, type):
        return empty(*items) if hasattr(empty, "_fields") else empty(items)
    if isinstance(empty, dict):
        for key, item in items.items():
            empty[key] = item
    elif isinstance(empty, list):
        empty.extend(items)
    else:
        empty.update(items)
    return empty


def with_items(container: Any, items: Any) -> Any:
    """A container of the same type with these items. Raises TypeError."""
    kind = type(container)
    if kind is dict:
        return dict(items)
    if kind in KINDS:
        return kind(items)
    if isinstance(container, Mapping) and not isinstance(container, dict):
        return dict(items)
    return refilled(emptied(container), items)
