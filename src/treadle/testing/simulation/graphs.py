"""Random graphs, what they should compute by dask's synchronous scheduler, and the rows of a submission."""

from __future__ import annotations

import random
from typing import Any, Literal

import dask
from dask._task_spec import Task, TaskRef

from treadle.testing.simulation.functions import broken, combine, leaf

Shape = Literal["random", "chain", "layers", "reduction", "independent"]
SHAPES: tuple[Shape, ...] = ("random", "chain", "layers", "reduction", "independent")


class Universe:
    """All tasks that the clients of one simulation may submit: each key means the same thing to everybody."""

    def __init__(self, source: random.Random, size: int, shape: Shape, broken_share: float, scattered: int) -> None:
        #: key -> keys it depends on, dependencies before dependents.
        self.needs: dict[Any, list[Any]] = {}
        #: Keys that have no recipe: a client brings their values.
        self.scattered: dict[Any, int] = {}
        #: Keys whose own function raises.
        self.broken: set[Any] = set()
        self._numbers: dict[Any, int] = {}
        for number in range(scattered):
            key = f"data-{number}"
            self.needs[key] = []
            self.scattered[key] = leaf(number, salt=7)
        keys: list[Any] = []
        for number in range(size):
            key = _key(source, number)
            self._numbers[key] = number
            self.needs[key] = _dependencies(source, shape, keys, number, size)
            if self.scattered and source.random() < 0.2:
                self.needs[key].append(source.choice(list(self.scattered)))
            if source.random() < broken_share:
                self.broken.add(key)
            keys.append(key)
        self.keys = keys
        #: key -> all that it depends on, at any depth, and itself.
        self.ancestors: dict[Any, set[Any]] = {}
        for key, needs in self.needs.items():
            self.ancestors[key] = {key}.union(*[self.ancestors[need] for need in needs])
        self.expected = self._compute()

    def _compute(self) -> dict[Any, int]:
        """What dask's synchronous scheduler makes of every key that can be computed."""
        graph: dict[Any, Any] = dict(self.scattered)
        possible = [key for key in self.keys if not self.ancestors[key] & self.broken]
        graph.update({key: self.node(key) for key in possible})
        values = dask.get(graph, possible) if possible else ()
        return dict(zip(possible, values, strict=True)) | self.scattered

    def is_call(self, key: Any) -> bool:
        """Whether it travels as a function and its arguments; the others travel as graph nodes."""
        return not self.needs[key] and key not in self.broken

    def call(self, key: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        number = self._numbers[key]
        return ((number,), {"salt": 3}) if number % 3 == 0 else ((number,), {})

    def node(self, key: Any) -> Any:
        number = self._numbers[key]
        if self.is_call(key):
            args, kwargs = self.call(key)
            return Task(key, leaf, *args, **kwargs)
        function = broken if key in self.broken else combine
        return Task(key, function, number, *[TaskRef(need) for need in self.needs[key]])

    def closure(self, targets: list[Any], known: set[Any]) -> list[Any]:
        """All that the targets need and that is not known yet, dependencies before dependents."""
        wanted: set[Any] = set()
        stack = list(targets)
        while stack:
            key = stack.pop()
            if key in wanted or key in known:
                continue
            wanted.add(key)
            stack.extend(self.needs[key])
        return [key for key in self.needs if key in wanted]


def _key(source: random.Random, number: int) -> Any:
    kind = number % 4
    if kind == 0:
        return f"inc-{number}"
    if kind == 1:
        return ("array-0123456789abcdef", number, 0)
    return f"{source.choice(('sum', 'load', 'merge'))}-{number}"


def _dependencies(source: random.Random, shape: Shape, keys: list[Any], number: int, size: int) -> list[Any]:
    if not keys or shape == "independent":
        return []
    if shape == "chain":
        return [keys[-1]] if number % 7 else []
    if shape == "reduction":
        return keys[2 * (number - size // 2) : 2 * (number - size // 2) + 2] if number >= size // 2 else []
    if shape == "layers":
        width = max(2, size // 4)
        layer = number // width
        below = keys[(layer - 1) * width : layer * width] if layer else []
        return source.sample(below, min(len(below), source.randint(1, 3)))
    return source.sample(keys, min(len(keys), source.choice((0, 0, 1, 1, 2, 3))))
