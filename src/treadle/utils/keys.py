"""Keys: which values may be keys, how keys travel, and which group and prefix a key belongs to."""

from __future__ import annotations

from typing import Any

#: str, bytes, int, float, or a (nested) tuple of these.
Key = Any


def key_from_wire(key: Any) -> Key:
    """The key as users know it: arrays become tuples again, at every depth."""
    if type(key) is list:
        return tuple([key_from_wire(part) for part in key])
    return key


def is_key(key: Any) -> bool:
    """Whether a value that arrived can be a key, as it came from the wire or as users know it."""
    if type(key) is list or type(key) is tuple:
        for part in key:
            if not is_key(part):
                return False
        return True
    # nan is not equal to itself: a task with such a key could never be found again.
    return isinstance(key, (str, bytes, int)) or (isinstance(key, float) and key == key)


def group_of(key: Key) -> str:
    """The name that a key shares with its siblings: ``"x-1f3c"`` for ``("x-1f3c", 0)``; for other keys, the key without its token."""
    if type(key) is tuple:
        return str(key[0]) if key else "()"
    return prefix_of(key)


def prefix_of(key: Key) -> str:
    """The name of the operation, for learned durations: ``"inc"`` for ``"inc-<token>"``, ``"x"`` for ``("x-<token>", 0)``."""
    if type(key) is tuple:
        key = key[0] if key else "()"
    text = key if type(key) is str else str(key)
    head, dash, tail = text.rpartition("-")
    while dash:
        if not _is_token(tail):
            break
        text = head
        if len(tail) == 12:
            # This may be the end of a UUID: 8, 4, 4, 4 and 12 digits.
            parts = head.rsplit("-", 4)
            if len(parts) == 5 and [len(part) for part in parts[1:]] == [8, 4, 4, 4] and _is_hex("".join(parts[1:])):
                text = parts[0]
        head, dash, tail = text.rpartition("-")
    return text


def _is_token(part: str) -> bool:
    """Whether the last part of a name is a counter, a hash or a piece of one, and no word."""
    if part.isdigit():
        return True
    return len(part) >= 8 and _is_hex(part)


def _is_hex(part: str) -> bool:
    return not part.strip("0123456789abcdef")
