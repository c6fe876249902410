"""Copy containers of users' types with other items: futures in place of values, or values in place of futures.

For lists, tuples, sets, dicts and types derived from them. A copy keeps the other attributes of the object.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

#: The builtin types that such a container is, or derives from.
KINDS = (dict, list, tuple, set, frozenset)


def emptied(container: Any) -> Any:
    """A container of the same type with the same attributes and no items; for an immutable container, its type. Raises TypeError."""
    kind = type(container)
    if isinstance(container, (tuple, frozenset)):
        return kind
    try:
        empty = copy.copy(container)
        empty.clear()
    except Exception as error:
        raise TypeError(f"a {kind.__qualname__} holds futures but cannot be copied to replace them: {error}") from error
    return empty


def refilled(empty: Any, items: Any) -> Any:
    """The result of ``emptied``, filled with ``items``: a mapping for a dict, else a sequence. May change ``empty``."""
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
