"""Which keys of a graph say all of their tasks, and what the others are called for themselves. Pure.

A *generated* key holds a hash, or a unique number, of 32 hexadecimal digits: two tasks with equal keys are the same. Any other key was
*chosen*: another graph may call another task so. A task that depends on a chosen key is no better, even with a hash in its own key: dask
hashes the names of what a task needs, not their content. All these are called *doubtful*, and travel under names of their own where
nobody asks for the key.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

from treadle.utils.keys import Key

_GENERATED: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").search
#: No key with fewer characters is generated.
_SHORTEST: Final = 32


def is_generated(key: Key) -> bool:
    """Whether the key, or the first part of one, holds a hash or a unique number."""
    while type(key) is tuple and key:
        key = key[0]
    return type(key) is str and _GENERATED(key) is not None


def chosen_among(keys: Iterable[Key]) -> list[Key]:
    """Those that are not generated."""
    chosen: list[Key] = []
    last: Any = None
    generated = True
    for key in keys:
        if type(key) is str:
            if len(key) < _SHORTEST or _GENERATED(key) is None:
                chosen.append(key)
            continue
        head = key[0] if type(key) is tuple and key else key
        # Neighbours mostly share their first part.
        if head is not last:
            last = head
            generated = is_generated(head)
        if not generated:
            chosen.append(key)
    return chosen


def doubtful_among(nodes: Mapping[Key, Any], chosen: list[Key], outside: Set[Key]) -> Set[Key]:
    """The keys of ``nodes`` that do not say all of their tasks. ``nodes``: dependencies before dependents.

    ``chosen``: those that are not generated, each once, maybe with others; ``outside``: doubtful keys that nodes depend on, and that
    are none of them.
    """
    doubtful = {key for key in chosen if key in nodes}
    if doubtful or outside:
        reaching = doubtful | outside
        for key, node in nodes.items():
            if key not in reaching and not reaching.isdisjoint(node.dependencies):
                doubtful.add(key)
                reaching.add(key)
    return doubtful


def private_keys(keys: Iterable[Key]) -> dict[Key, Key]:
    """Keys like these that nobody else has, by these."""
    token = uuid.uuid4().hex[:31]
    end = f"-{token}0"
    return {key: key + end if type(key) is str else private_key(key, token) for key in keys}


def private_key(key: Key, token: str) -> Key:
    """A key like this one that nobody else has; ``token``: 31 hexadecimal digits that are unique. Different keys stay different."""
    if type(key) is str:
        return f"{key}-{token}0"
    if type(key) is tuple and key:
        return (private_key(key[0], token), *key[1:])
    return f"{key!r}-{token}1"
