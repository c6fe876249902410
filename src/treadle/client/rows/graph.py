"""dask graphs -> a table of rows in the order in which they are sent. Pure but for what dask does when it materialises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from graphlib import CycleError
from typing import Any

import dask
from dask._expr import Expr, HLGExpr, _HLGExprSequence
from dask._task_spec import Alias, GraphNode, convert_legacy_graph
from dask.base import get_annotations
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.typing import no_default

from treadle.client.futures import Future
from treadle.client.rows.digests import GraphDigests
from treadle.client.rows.keys import check_key
from treadle.client.rows.naming import chosen_among, doubtful_among, is_generated, private_keys
from treadle.client.rows.order import order
from treadle.utils.keys import Key


class Table:
    """A graph that was reduced to what is needed for some keys, in the order of its ranks."""

    def __init__(
        self,
        nodes: dict[Key, Any],
        annotations: Mapping[Key, dict[str, Any]],
        external: dict[Key, None],
    ) -> None:
        #: Nodes by key, dependencies before dependents.
        self.nodes = nodes
        #: Annotations by key, for keys that have any; callables were called.
        self.annotations = annotations
        #: Keys that nodes depend on and that are no nodes of it: tasks that the client knows already.
        self.external = external
        #: What nodes are called outside of this graph, where that is something else.
        self.names: dict[Key, Key] = {}
        #: Nodes that stand for wanted keys, where these are others.
        self.stands_for: dict[Key, Key] = {}
        #: Digests of nodes that others may see under keys that do not say all of a task.
        self.digests: dict[Key, bytes] = {}
        #: Digests of wanted keys in ``external`` for which the graph has tasks of its own.
        self.redefined: dict[Key, bytes] = {}

    def __len__(self) -> int:
        return len(self.nodes)


def materialize(dsk: Any) -> tuple[dict[Key, Any], dict[str, dict[Key, Any]]]:
    """The nodes of a dict, a HighLevelGraph or an expression, and its annotations: name -> key -> value."""
    if isinstance(dsk, Expr):
        delayed = _of_delayed(dsk)
        if delayed is not None:
            return materialize(delayed)
        graph = dict(dsk.__dask_graph__())
        # After the graph: optimisation may change them.
        return graph, dsk.__dask_annotations__()
    if isinstance(dsk, HighLevelGraph):
        annotations: dict[str, dict[Key, Any]] = {}
        for layer in dsk.layers.values():
            for name, value in (layer.annotations or {}).items():
                by_key = annotations.setdefault(name, {})
                for key in layer:
                    by_key[key] = value(key) if callable(value) else value
        return dsk.to_dict(), annotations
    if isinstance(dsk, Mapping):
        return dict(dsk), {}
    raise TypeError(f"a graph is a dict, a HighLevelGraph or an expression, not {type(dsk).__name__}")


def _of_delayed(expr: Expr) -> HighLevelGraph | None:
    """The graph of Delayed objects and of nothing else, as it is; None for any other expression.

    All that their optimisation does is to leave out what is not needed, which is done here anyway, and there takes time
    that grows with the square of their number.
    """
    from dask.delayed import optimize as optimize_delayed

    operands = list(expr.operands) if isinstance(expr, _HLGExprSequence) else [expr]
    if dask.config.get("optimization.fuse.delayed", False):
        return None
    for operand in operands:
        if not isinstance(operand, HLGExpr) or operand.low_level_optimizer is not optimize_delayed:
            return None
        if not all([type(layer) is MaterializedLayer for layer in operand.hlg.layers.values()]):
            return None
    return HighLevelGraph.merge(*[operand.hlg for operand in operands])


class Outside:
    """What a graph may refer to beside its own tasks."""

    def __init__(self, known: Callable[[Key], bool], futures: dict[Key, Future], digest: Callable[[Key], bytes] = lambda key: b"") -> None:
        #: Whether the client has the key already.
        self.known = known
        #: By key; those that are found in the graph are added.
        self.futures = futures
        #: What stands for the task of a key that the client has, if the key does not say all of it; else nothing.
        self.digest = digest

    def is_doubtful(self, key: Key) -> bool:
        return not is_generated(key) or self.digest(key) != b""

    def has(self, key: Key, node: Any) -> bool:
        """Whether ``node`` may refer to the key."""
        return self.known(key) or key in self.futures or _find_future(key, node, self.futures)


def build_table(dsk: Any, keys: Sequence[Key], outside: Outside, *, named: bool = True) -> Table:
    """What has to be computed for ``keys``, ordered.

    A key that the client has already is not computed again, if it says all of its task. Tasks whose keys do not are called
    otherwise (``Table.names``), but for those of ``keys`` if ``named``: who holds these sees them under the graph's keys. Raises
    ValueError for a dependency that is nowhere or for a cycle, naming the task; TypeError or ValueError for a key that can be none.
    """
    raw, by_name = materialize(dsk)
    for key, value in raw.items():
        if type(key) is not str or not key.isascii():
            check_key(key)
        if isinstance(value, Future):
            outside.futures[value.key] = value
    nodes = convert_legacy_graph(raw)
    needed, external = _cull(nodes, keys, outside, set())
    # Where nothing that is needed is known already, nothing was left out for that.
    chosen = chosen_among(nodes if external else needed)
    foreign = {key for key in external if outside.is_doubtful(key)}
    everything, beyond = needed, external
    if external and (chosen or foreign):
        everything, beyond = _cull(nodes, keys, outside, set(nodes))
        foreign = {key for key in beyond if outside.is_doubtful(key)}
    everything = _ordered(everything, keys)
    if not external and len(chosen) == len(everything):
        doubtful: Set[Key] = everything.keys()
    else:
        doubtful = doubtful_among(everything, chosen, foreign)
    if not doubtful:
        ordered = _ordered(needed, keys) if beyond is not external else everything
        return Table(ordered, _annotations_by_key(by_name, ordered), external)
    present: dict[Key, None] = {}
    if external:
        present = dict.fromkeys([key for key in keys if named and key in doubtful and outside.known(key)])
        wanted = [key for key in dict.fromkeys(keys) if key not in present]
        culled, external = _cull(nodes, wanted, outside, doubtful)
        needed = {key: node for key, node in everything.items() if key in culled}
    else:
        wanted = list(dict.fromkeys(keys))
        needed = dict(everything)
    table = Table(needed, _annotations_by_key(by_name, needed), {**external, **present})
    digest = GraphDigests(everything, doubtful, outside.digest)
    table.redefined = {key: digest(key) for key in present}
    _name(table, doubtful, [key for key in wanted if named], digest)
    return table


class _Kept:
    """In the place of a wanted key: another name for the result of its task."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def __repr__(self) -> str:
        return repr(self.key)


def _name(table: Table, doubtful: Set[Key], named: Sequence[Key], digest: Callable[[Key], bytes]) -> None:
    """Call the doubtful ones otherwise, but for ``named``."""
    nodes = table.nodes
    names = table.names = private_keys(nodes if len(doubtful) == len(nodes) else [key for key in nodes if key in doubtful])
    named = [key for key in named if key in names]
    inner = _with_dependents(nodes, named)
    for key in named:
        if key not in inner:
            del names[key]
            table.digests[key] = digest(key)
            continue
        # Somebody else's task may have that key. What depends on it here must not get that one's result.
        kept = _Kept(key)
        nodes[kept] = Alias(kept, key)
        names[kept] = key
        table.stands_for[key] = kept
        table.digests[kept] = digest(key)
        if key in table.annotations:
            annotations = dict(table.annotations)
            annotations[kept] = annotations[key]
            table.annotations = annotations


def _with_dependents(nodes: Mapping[Key, Any], keys: Iterable[Key]) -> set[Key]:
    """Those of ``keys`` that nodes depend on. ``nodes``: dependencies before dependents."""
    left = set(keys)
    found: set[Key] = set()
    for key in reversed(list(nodes)):
        if not left:
            break
        found.update(left.intersection(nodes[key].dependencies))
        left.discard(key)
    return found


def _cull(nodes: Mapping[Key, Any], keys: Sequence[Key], outside: Outside, own: Set[Key]) -> tuple[dict[Key, Any], dict[Key, None]]:
    """The nodes that ``keys`` need, and what they need of what is known already.

    ``own``: nodes that are needed even though their keys are known.
    """
    needed: dict[Key, Any] = {}
    external: dict[Key, None] = {}
    known = outside.known
    # A stack: without dependencies the order stays that of ``keys``.
    work: list[tuple[Key, Key | None]] = [(key, None) for key in reversed(keys)]
    while work:
        key, dependent = work.pop()
        if key in needed or key in external:
            continue
        node = nodes.get(key)
        if node is None or (known(key) and key not in own):
            if node is None and not outside.has(key, nodes.get(dependent)):
                if dependent is None:
                    raise ValueError(f"the key {key!r} is wanted, but it is neither in the graph nor known to this client")
                raise ValueError(
                    f"missing dependency: task {dependent!r} needs {key!r}, which is neither in the graph nor known to this client"
                )
            external[key] = None
            continue
        needed[key] = node
        for dependency in node.dependencies:
            if dependency not in needed:
                work.append((dependency, key))
    return needed, external


def _find_future(key: Key, node: Any, futures: dict[Key, Future]) -> bool:
    """Whether a node refers to the key by a future, maybe another client's."""
    if isinstance(node, Future):
        futures[node.key] = node
        return bool(node.key == key)
    if isinstance(node, GraphNode):
        parts = [*getattr(node, "args", ()), *getattr(node, "kwargs", {}).values()]
        return any([_find_future(key, part, futures) for part in parts])
    return False


def _ordered(nodes: dict[Key, Any], wanted: Sequence[Key]) -> dict[Key, Any]:
    """Dependencies before dependents, what belongs together close together. Raises ValueError that names a cycle."""
    keys = list(nodes)
    number = {key: position for position, key in enumerate(keys)}
    dependencies = [[number[needed] for needed in node.dependencies if needed in number] for node in nodes.values()]
    if not any(dependencies):
        return nodes
    try:
        ranks = order(dependencies, [number[key] for key in wanted if key in number])
    except CycleError as error:
        names = " -> ".join([repr(keys[position]) for position in error.args[1]])
        raise ValueError(f"Cycle detected in the graph: {names}") from None
    ordered = [0] * len(keys)
    for position, rank in enumerate(ranks):
        ordered[rank] = position
    return {keys[position]: nodes[keys[position]] for position in ordered}


def _annotations_by_key(by_name: Mapping[str, Mapping[Key, Any]], nodes: Mapping[Key, Any]) -> dict[Key, dict[str, Any]]:
    """Annotations of the graph itself, and around the caller (``dask.annotate``) for what has none of that name."""
    around = get_annotations()
    result: dict[Key, dict[str, Any]] = {}
    if around:
        for key in nodes:
            result[key] = {name: value(key) if callable(value) else value for name, value in around.items()}
    for name, values in by_name.items():
        for key, value in values.items():
            if key in nodes and value is not None and value is not no_default:
                result.setdefault(key, {})[name] = value
    return result


def flat_keys(keys: Any) -> list[Key]:
    """Keys out of nested lists. A tuple is a key."""
    return list(flatten(keys)) if isinstance(keys, list) else [keys]


def replace_keys(keys: Any, values: Mapping[Key, Any]) -> Any:
    """Values in the place of keys in nested lists."""
    if isinstance(keys, list):
        return [replace_keys(key, values) for key in keys]
    return values[keys]


def count_dependents(nodes: Mapping[Key, Any], keys: Iterable[Key]) -> dict[Key, int]:
    """How many dependents each node has among ``keys``; nodes that have none are left out."""
    count: dict[Key, int] = {}
    for key in keys:
        for dependency in nodes[key].dependencies:
            if dependency in nodes:
                count[dependency] = count.get(dependency, 0) + 1
    return count
