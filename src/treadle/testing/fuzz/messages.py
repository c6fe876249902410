"""Random messages of every kind, for a core that has some state: mostly shaped as they should be, with ids, keys and numbers that may mean
something, and odd values among them. One seed decides everything."""

from __future__ import annotations

from math import inf, nan
from random import Random
from typing import Any, Final

import msgspec
from msgspec import inspect

#: Numbers at and beyond the limits of the messages' types.
ODD_INTEGERS: Final = (-1, -(2**63), 2**31, 2**53 + 1, 2**60 - 1, 2**60, 2**62, 2**63, 2**64 - 1)
ODD_FLOATS: Final = (nan, inf, -inf, -1.0, -0.0, 1e-300, 1e100, 1e300, -1e100)
ODD_KEYS: Final[list[Any]] = [
    *["", b"", 0, -1, True, nan, inf, "x" * 1000],
    *[[], ["x", []], ["x", nan], [["deep", ["er"]], 1.5], None, {"no": "key"}],
]
ODD_TEXTS: Final = ("", "running", "paused", "retiring", "\x00", "é" * 100)


class Pool:
    """The ids, keys and numbers that a random message may use."""

    def __init__(self, random: Random) -> None:
        self.random = random
        #: Ids of tasks and functions, attempts, numbers of parties.
        self.integers: list[int] = [0, 1, 2, 3]
        self.keys: list[Any] = ["a", "b", ["x", 0], ["x", 1]]
        self.texts: list[str] = ["a"]

    def integer(self) -> int:
        random = self.random
        if random.random() < 0.03:
            return random.choice(ODD_INTEGERS)
        return random.choice(self.integers)

    def key(self) -> Any:
        return self.random.choice(ODD_KEYS if self.random.random() < 0.05 else self.keys)

    def message(self, kind: type[msgspec.Struct]) -> Any:
        """A random message of that kind. Its columns mostly have the same length."""
        random = self.random
        length = random.choice((0, 1, 1, 2, 3))
        values = {}
        for field in msgspec.structs.fields(kind):
            if field.default is not msgspec.NODEFAULT and random.random() < 0.5:
                continue
            name = field.name
            if name in ("key", "keys", "assigned_keys", "name", "parent"):
                many = name.endswith("keys")
                if name != "name" or "Data" in kind.__name__:
                    values[name] = [self.key() for _ in range(self._around(length))] if many else self.key()
                    continue
            values[name] = self.value(inspect.type_info(field.type), length)
        return kind(**values)

    def mutate(self, message: Any) -> None:
        """Change one field of a valid message."""
        random = self.random
        field = random.choice(msgspec.structs.fields(type(message)))
        value = getattr(message, field.name)
        if isinstance(value, list) and value and random.random() < 0.7:
            at = random.randrange(len(value))
            other = random.choice(value)
            if isinstance(value[at], list) and random.random() < 0.7:
                value[at] = [*value[at], random.choice([*value[at], self.integer()])]
            else:
                value[at] = random.choice((other, self.integer(), self.key()))
            if random.random() < 0.1:
                del value[at]
            return
        length = len(value) if isinstance(value, list) else random.choice((0, 1, 2))
        setattr(message, field.name, self.value(inspect.type_info(field.type), length))

    def _twice(self, items: list[Any]) -> list[Any]:
        """The items, sometimes with one of them repeated."""
        if len(items) > 1 and self.random.random() < 0.2:
            items[-1] = items[0]
        return items

    def _around(self, length: int) -> int:
        return length if self.random.random() < 0.97 else length + self.random.choice((-1, 1)) * (length > 0)

    def value(self, kind: inspect.Type, length: int) -> Any:
        """A value of that type, or nearly of that type."""
        random = self.random
        if isinstance(kind, inspect.IntType):
            return self.integer()
        if isinstance(kind, inspect.FloatType):
            return random.choice(ODD_FLOATS) if random.random() < 0.05 else random.choice((0.0, 1.0, 0.25, 3.5))
        if isinstance(kind, inspect.StrType):
            return random.choice(ODD_TEXTS if random.random() < 0.2 else self.texts)
        if isinstance(kind, inspect.BoolType):
            return random.random() < 0.5
        if isinstance(kind, inspect.BytesType):
            return random.choice((b"", b"x", b"y" * 100))
        if isinstance(kind, inspect.NoneType):
            return None
        if isinstance(kind, inspect.ListType):
            return self._twice([self.value(kind.item_type, random.choice((0, 1, 2))) for _ in range(self._around(length))])
        if isinstance(kind, inspect.TupleType):
            return tuple([self.value(item, length) for item in kind.item_types])
        if isinstance(kind, inspect.DictType):
            return {self.value(kind.key_type, 1): self.value(kind.value_type, 1) for _ in range(random.choice((0, 1)))}
        if isinstance(kind, inspect.UnionType):
            return self.value(random.choice(kind.types), length)
        if isinstance(kind, inspect.StructType):
            return self.message(kind.cls)
        return random.choice((None, 1, "a", 1.5, [], {}))
