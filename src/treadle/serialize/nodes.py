"""Nodes of dask graphs as calls: a function that many tasks share, and the few bytes that are a task's own.

A task's own arguments are a list of *parts*, one for each argument, of builtin types only so that it pickles and loads fast:

- an ``int`` stands for the value of the dependency at that position in the row's ``dependencies``;
- a tuple with one item stands for that constant;
- a list stands for something nested: a kind, then its parts. For a call these are the function, the positional parts, and the
  parts by name or None. For a constant that is copied for each call, which occurs in fused tasks only, it is the constant.

A fused chain of tasks (``_execute_subgraph``) becomes a function, a ``Subgraph``: planned once, called often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple, _execute_subgraph

LIST: Final = 0
TUPLE: Final = 1
SET: Final = 2
DICT: Final = 3
CALL: Final = 4
COPY: Final = 5

_KINDS: Final[dict[type, int]] = {List: LIST, Tuple: TUPLE, Set: SET, Dict: DICT}


class Unusual(Exception):
    """The node is of a kind that cannot be written as parts: it travels as a whole."""


def parts_of(args: Sequence[Any], places: dict[Any, int]) -> list[Any]:
    """The parts that stand for these arguments. ``places``: position by key; new keys are added to it. Raises Unusual."""
    return [part_of(argument, places) for argument in args]


def part_of(value: Any, places: dict[Any, int]) -> Any:
    if isinstance(value, TaskRef):
        return places.setdefault(value.key, len(places))
    if not isinstance(value, GraphNode):
        return (value,)
    kind = type(value)
    if kind is Alias:
        return places.setdefault(value.target, len(places))
    if kind is DataNode:
        return (value.value,)
    if kind is Task:
        named = {name: part_of(item, places) for name, item in value.kwargs.items()} if value.kwargs else None
        return [CALL, value.func, parts_of(value.args, places), named]
    number = _KINDS.get(kind)
    if number is None:
        raise Unusual(kind)
    return [number, *parts_of(value.args, places)]


def is_direct(parts: list[Any], count: int) -> bool:
    """Whether the parts are exactly the values of the ``count`` dependencies, in order."""
    return parts == _IN_ORDER[:count] if count < len(_IN_ORDER) else parts == list(range(count))


_IN_ORDER: Final = list(range(8))


def evaluate(parts: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The arguments that the parts stand for."""
    return [values[part] if type(part) is int else part[0] if type(part) is tuple else _nested(part, values) for part in parts]


def evaluate_named(parts: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(parts, evaluate(list(parts.values()), values), strict=True))


def _nested(part: list[Any], values: Sequence[Any]) -> Any:
    kind = part[0]
    if kind == CALL:
        _, function, args, named = part
        return function(*evaluate(args, values), **evaluate_named(named, values) if named else {})
    if kind == COPY:
        return _copied(part[1])
    items = evaluate(part[1:], values)
    if kind == LIST:
        return items
    if kind == TUPLE:
        return tuple(items)
    if kind == SET:
        return set(items)
    return dict(zip(items[::2], items[1::2], strict=True))


# -------------------------------------------------------------------------------------------------- fused tasks


def is_fused(node: Task) -> bool:
    """Whether the node is a fused chain: the first three arguments of its call are those of a ``Subgraph``."""
    return node.func is _execute_subgraph and len(node.args) >= 3 and not node.kwargs and type(node.args[0]) is dict


class Subgraph:
    """Several tasks that run as one: the value of ``outkey`` in ``nodes``, called with the values of ``inkeys``.

    ``nodes`` are planned at the first call. A call raises what the nodes raise.
    """

    __slots__ = ("_plan", "inkeys", "nodes", "outkey")

    def __init__(self, nodes: dict[Any, GraphNode], outkey: Any, inkeys: tuple[Any, ...]) -> None:
        self.nodes = nodes
        self.outkey = outkey
        self.inkeys = inkeys
        self._plan: list[tuple[list[Any], list[int]]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Subgraph, (self.nodes, self.outkey, self.inkeys)

    def __call__(self, *inputs: Any) -> Any:
        plan = self._plan
        if plan is None:
            plan = self._plan = self._planned()
        values: list[Any] = [*inputs, *[None] * len(plan)]
        if not plan:  # the result is one of the inputs
            return inputs[self.inkeys.index(self.outkey)]
        result: Any = None
        for slot, (parts, last_uses) in enumerate(plan, len(inputs)):
            (result,) = evaluate(parts, values)
            values[slot] = result
            for used in last_uses:
                values[used] = None
        return result

    def _planned(self) -> list[tuple[list[Any], list[int]]]:
        """([part], slots whose value is not needed after this task) for each task that the result needs, dependencies first."""
        places: dict[Any, int] = {key: position for position, key in enumerate(self.inkeys)}
        steps: list[list[Any]] = []
        for key in self._needed(places):
            node = self.nodes[key]
            own = dict(places)
            steps.append([_unshared(part_of(node, own))])
            if len(own) > len(places):
                raise KeyError(f"the fused task {self.outkey!r} needs {list(own)[len(places) :]}, which the graph does not contain")
            places[key] = len(places)
        last: dict[int, int] = {}
        for at, parts in enumerate(steps):
            for slot in _slots(parts):
                last[slot] = at
        return [(parts, [slot for slot, last_at in last.items() if last_at == at]) for at, parts in enumerate(steps)]

    def _needed(self, given: Mapping[Any, int]) -> list[Any]:
        """The keys that the result needs, dependencies before dependents, the result last."""
        ordered: dict[Any, None] = {}
        stack: list[tuple[Any, bool]] = [(self.outkey, False)]
        while stack:
            key, complete = stack.pop()
            if complete:
                ordered[key] = None
            elif key not in ordered and key not in given:
                stack.append((key, True))
                stack.extend([(dependency, False) for dependency in sorted(self.nodes[key].dependencies, key=str)])
        return list(ordered)


def _unshared(part: Any) -> Any:
    """The part, changed so that no two calls get the same container of constants."""
    if type(part) is tuple:
        return [COPY, part[0]] if _has_container(part[0]) else part
    if type(part) is not list or part[0] == COPY:
        return part
    if part[0] != CALL:
        return [part[0], *[_unshared(item) for item in part[1:]]]
    _, function, args, named = part
    return [CALL, function, [_unshared(item) for item in args], {name: _unshared(item) for name, item in named.items()} if named else None]


def _has_container(value: Any) -> bool:
    kind = type(value)
    return kind is list or kind is dict or kind is set or (kind is tuple and any([_has_container(item) for item in value]))


def _copied(value: Any) -> Any:
    """The value with copies of its lists, dicts and sets, at every depth."""
    kind = type(value)
    if kind is list:
        return [_copied(item) for item in value]
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is set:
        return set(value)
    return tuple([_copied(item) for item in value]) if kind is tuple else value


def _slots(parts: Sequence[Any]) -> list[int]:
    """The positions that these parts read."""
    slots: list[int] = []
    for part in parts:
        if type(part) is int:
            slots.append(part)
        elif type(part) is list:
            if part[0] == CALL:
                slots += _slots([*part[2], *(part[3] or {}).values()])
            elif part[0] != COPY:
                slots += _slots(part[1:])
    return slots


class Renamed:
    """A graph node whose dependencies have other keys in the node than in the cluster. Called, like a node, with values by key."""

    __slots__ = ("_names", "_node")

    def __init__(self, node: GraphNode, names: dict[Any, Any]) -> None:
        self._node = node
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return Renamed, (self._node, self._names)

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        return self._node({self._names.get(key, key): value for key, value in values.items()})


def alias(value: Any) -> Any:
    """The function of a task that is only another name for its dependency."""
    return value


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function of a task whose first argument is the function to call."""
    return function(*args, **kwargs)
