"""What simulated tasks compute: values that tell at once whether every argument was the right one."""

from __future__ import annotations

from typing import Any

_PRIME = 2**61 - 1


class Injected(Exception):
    """The failure that a task was made for."""


def leaf(number: int, *, salt: int = 0) -> int:
    return (number * 0x9E3779B97F4A7C15 + salt + 1) % _PRIME


def combine(number: int, *values: Any) -> int:
    total = number + 1
    for position, value in enumerate(values):
        total = (total * 1_000_003 + value * (position + 1)) % _PRIME
    return total


def broken(number: int, *values: Any) -> int:
    raise Injected(f"task {number}")
