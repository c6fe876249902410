"""Graphs come in: tasks are made from the columns of a submission, in order, and what can start starts."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import DefineFunctions, KeysRedefined, SubmitTasks
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    FORGOTTEN,
    NO_ACCOUNT,
    NO_TASKS,
    RELEASED,
    STRANGER,
    WAITING,
    ClientState,
    Expected,
    FunctionState,
    TaskGroup,
    TaskPrefix,
    TaskState,
)
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.state import ClusterState
from treadle.scheduler.transitions.wants import alias, check_keys, find_task, forget_aliases, is_of_before, want
from treadle.utils.buffers import buffers_by_row
from treadle.utils.keys import group_of, is_key, key_from_wire, prefix_of

#: What clients are told of rows that were refused because their keys stand for other tasks.
REDEFINED: Final = "key of another task"
REDEFINED_TEXT: Final = (
    "The key stands for another task already. Choose another key, or release what holds that one first: futures of any client, "
    "published datasets, and tasks that need it."
)


#: Names that are kept apart; tasks with further ones share a record. People who name each task make as many names as tasks.
MOST_PREFIXES: Final = 1000
MOST_GROUPS: Final = 10_000
OTHERS: Final = "(others)"
#: Prefixes that are looked at to find one that is not in use.
MOST_LOOKED_AT: Final = 3


def define_functions(state: ClusterState, client: ClientState, message: DefineFunctions) -> None:
    ids, names, bodies = message.ids, message.names, message.bodies
    if not len(ids) == len(names) == len(bodies):
        raise PeerProtocolError("DefineFunctions: columns of different lengths")
    if len(set(ids)) != len(ids):
        raise PeerProtocolError("DefineFunctions: an id stands twice")
    for id, body in zip(ids, bodies, strict=True):
        known = state.functions.get(id)
        if id >> 32 != client.number or (known is not None and client.origin != STRANGER and known.body != body):
            raise PeerProtocolError(f"DefineFunctions: id {id} is not this client's to give")
    for id, name, body in zip(ids, names, bodies, strict=True):
        function = state.functions.get(id)
        if function is None:
            function = FunctionState(id, name, body)
            state.functions[id] = function
        else:
            # It was defined by this client before it was given up, and tasks of others call it still; or the client was told that
            # it had been given up, by a scheduler that has not lived to write that down.
            function.held = True
        client.functions[id] = function


def get_prefix(state: ClusterState, name: str) -> TaskPrefix:
    """The record of that name. When there are too many, one that nobody uses goes; when all are in use, it is one for all others."""
    prefix = state.prefixes.get(name)
    if prefix is None:
        if len(state.prefixes) >= MOST_PREFIXES and name != OTHERS and not _drop_unused_prefix(state):
            return get_prefix(state, OTHERS)
        prefix = TaskPrefix(name, state.limits.default_task_durations_s.get(name, -1.0))
        prefix.is_shared = name == OTHERS
        state.prefixes[name] = prefix
    return prefix


def _drop_unused_prefix(state: ClusterState) -> bool:
    for looked, prefix in enumerate(state.prefixes.values()):
        if prefix.ngroups == 0:
            del state.prefixes[prefix.name]
            return True
        if looked == MOST_LOOKED_AT:
            break
    # Those that were looked at are in use: the next look begins behind them.
    for name in list(islice(state.prefixes, MOST_LOOKED_AT)):
        state.prefixes[name] = state.prefixes.pop(name)
    return False


def get_group(state: ClusterState, name: str, key: Any) -> TaskGroup:
    """The group of that name, or, when there are very many, one for all others; ``key`` is of one of its tasks."""
    group = state.groups.get(name)
    if group is None:
        if len(state.groups) >= MOST_GROUPS and name != OTHERS:
            return get_group(state, OTHERS, OTHERS)
        prefix = get_prefix(state, prefix_of(key))
        prefix.ngroups += 1
        group = TaskGroup(name, prefix)
        state.groups[name] = group
    return group


def submit_tasks(state: ClusterState, client: ClientState, message: SubmitTasks, frames: list[Any], out: Outbox) -> None:
    """The rows of one ``SubmitTasks``; ``frames`` are the buffers of its payloads. Nothing changes when it is malformed."""
    check_columns(state, client, message, frames)
    ids: list[int] = message.ids
    generation = _generation(state, client, message)
    account = client.account
    if message.parent is not None:
        parent = state.tasks.get(key_from_wire(message.parent))
        if parent is not None:
            account = parent.account
    user_priority = -float(message.priority)
    options: TaskOptions | None = message.options
    special: dict[int, TaskOptions] = dict(message.row_options) if message.row_options else {}
    buffers = buffers_by_row(message.buffers, frames)
    digests: dict[int, bytes] = dict(message.digests) if message.digests else {}
    keys: list[Any] = message.keys
    functions: list[int] = message.functions
    payloads: list[bytes] = message.payloads
    dependencies: list[list[int]] | None = message.dependencies
    ranks: list[int] | None = message.ranks
    first_rank: int = message.first_rank
    named_group: str | None = message.group
    group: TaskGroup | None = None
    last_head: Any = None
    rows: list[TaskState | None] = []
    fresh: list[TaskState] = []
    broken: dict[int, None] = {}
    aliased: list[TaskState] = []
    redefined: list[int] = []
    for row in range(len(ids)):
        key = keys[row]
        if type(key) is list:
            key = key_from_wire(key)
        id = ids[row]
        task = state.tasks.get(key)
        if task is not None and (task.has_recipe or (task.state != RELEASED and task not in state.awaited)):
            # Another submission came first with this key: its definition stands.
            if digests and row in digests and task.digest and digests[row] != task.digest:
                redefined.append(id)
                if message.strict:
                    rows.append(None)
                    continue
            if id != task.id:
                alias(client, id, task, out)
                aliased.append(task)
            rows.append(task)
            continue
        if client.origin == STRANGER and functions[row] and functions[row] not in state.functions:
            # Only the earlier scheduler knew it.
            broken[id] = None
            rows.append(None)
            continue
        needs = NO_TASKS
        if dependencies is not None and dependencies[row]:
            found = find_dependencies(state, client, dependencies[row])
            if found is None:
                broken[id] = None
                rows.append(None)
                continue
            needs = found
        row_options = special.get(row, options) if special else options
        priority = user_priority
        if row_options is not None and row_options.priority:
            priority -= row_options.priority
        rank = first_rank + row if ranks is None else ranks[row]
        if task is None:
            if group is None or named_group is None:
                # Neighbours are mostly of one group: its name is derived anew only when the key's head changes.
                head = key[0] if type(key) is tuple and key else None
                if group is None or head is None or head != last_head:
                    group = get_group(state, named_group if named_group is not None else group_of(key), key)
                    last_head = head
            task = TaskState(id, key, group, (priority, generation, rank))
            task.account = account
            add_task(state, task)
            fresh.append(task)
        else:
            # Known as lost data; now somebody brings a recipe.
            alias(client, id, task, out)
            aliased.append(task)
            if task in state.awaited:
                # To wait for what it needs, of which nothing was known.
                move(state, task, RELEASED, out)
                state.recommend(task, WAITING)
        if row_options is not None:
            task.options = row_options
            task.retries = row_options.retries
        function = state.functions[functions[row]] if functions[row] else None
        if function is not None:
            task.function = function
            function.ntasks += 1
        task.payload = payloads[row]
        if digests and row in digests:
            task.digest = digests[row]
        if buffers:
            task.buffers = buffers.get(row)
        if needs:
            link(task, needs)
        rows.append(task)
    complete = _expect_later(client, message, rows)
    if broken:
        _cancel_broken(client, message, broken, out)
    if redefined:
        _tell_redefined(client, message, redefined, out)
    _start(state, client, message, rows, fresh, out)
    for task in complete:
        # When all that this chunk needs has started, which keeps it; broken dependents, or those that are done already, do not.
        # Not before: with several generations in a chunk it takes several recommendations until the first one is needed.
        state.todo_last.append(task)
        forget_aliases(client, task)
    for task in aliased:
        forget_aliases(client, task)


def add_task(state: ClusterState, task: TaskState) -> None:
    """A new task, released."""
    task.attempt = state.first_attempt
    if task.account is NO_ACCOUNT:
        task.account = state.no_account
    state.tasks[task.key] = task
    state.by_id[task.id] = task
    task.group.alive += 1
    state.counts[RELEASED] += 1
    state.total_submitted += 1


def link(task: TaskState, needs: list[TaskState]) -> None:
    """``task`` depends on ``needs``."""
    task.dependencies = needs
    group = task.group
    for dependency in needs:
        if dependency.from_data or dependency.payload is None:
            task.from_data = True
        if dependency.live_dependents == 0:
            dependency.dependents = [task]
        else:
            dependency.dependents.append(task)
        dependency.live_dependents += 1
        if dependency.group not in group.dependencies and dependency.group is not group:
            group.dependencies[dependency.group] = None
            dependency.group.dependents[group] = None


def find_dependencies(state: ClusterState, client: ClientState, ids: list[int]) -> list[TaskState] | None:
    """The tasks of ``ids``, each once; None when one is no longer known (it was cancelled meanwhile)."""
    found: list[TaskState] = []
    for id in ids:
        task = find_task(state, client, id)
        if task is None:
            return None
        found.append(task)
    if len(found) > 1 and client.aliases:
        # Two ids may be one task.
        return list(dict.fromkeys(found))
    return found


def check_columns(state: ClusterState, client: ClientState, message: SubmitTasks, frames: list[Any]) -> None:
    """Raises PeerProtocolError for a submission that contradicts itself; before anything was changed."""
    length = len(message.ids)
    for column in (message.keys, message.functions, message.payloads, message.dependencies, message.ranks, message.later_dependents):
        if column is not None and len(column) != length:
            raise PeerProtocolError(f"SubmitTasks: a column of {len(column)} rows beside {length} ids")
    number = client.number
    for row, id in enumerate(message.ids):
        if id >> 32 != number or (id in state.by_id and not is_of_before(state, client, id, message.keys[row])):
            raise PeerProtocolError(f"SubmitTasks: id {id} is not this client's to give")
    if len(set(message.ids)) != length:
        raise PeerProtocolError("SubmitTasks: an id stands twice")
    for function in message.functions:
        if function and function not in state.functions and client.origin != STRANGER:
            raise PeerProtocolError(f"SubmitTasks: function {function} was not defined")
    for row, _options in message.row_options or ():
        if not 0 <= row < length:
            raise PeerProtocolError(f"SubmitTasks: options for row {row} of {length}")
    count = 0
    for row, digest in message.digests or ():
        if not 0 <= row < length or not digest:
            raise PeerProtocolError(f"SubmitTasks: a digest of {len(digest)} bytes for row {row} of {length}")
    for row, number_of_buffers in message.buffers or ():
        if not 0 <= row < length or number_of_buffers < 0:
            raise PeerProtocolError(f"SubmitTasks: buffers for row {row} of {length}")
        count += number_of_buffers
    if count != len(frames):
        raise PeerProtocolError(f"SubmitTasks: {len(frames)} buffers came, {count} were announced")
    check_keys(message)
    if message.parent is not None and not is_key(message.parent):
        raise PeerProtocolError(f"SubmitTasks: {message.parent!r} cannot be a key")
    for number_of_dependents in message.later_dependents or ():
        if number_of_dependents < 0:
            raise PeerProtocolError(f"SubmitTasks: {number_of_dependents} dependents in later chunks")


def _generation(state: ClusterState, client: ClientState, message: SubmitTasks) -> float:
    """Later submissions come after earlier ones, unless they follow closely; those of a running task come before its own."""
    if message.submission == client.submission:
        return client.generation
    if message.parent is not None:
        parent = state.tasks.get(key_from_wire(message.parent))
        if parent is not None:
            client.submission = message.submission
            client.generation = parent.priority[1] - 0.1
            return client.generation
    if state.now - client.submitted_at > message.fifo_timeout_s:
        state.generation += 1.0
        client.generation = state.generation
    elif client.generation != state.generation:
        client.generation = state.generation
    client.submitted_at = state.now
    client.submission = message.submission
    return client.generation


def _expect_later(client: ClientState, message: SubmitTasks, rows: list[TaskState | None]) -> list[TaskState]:
    """Book the dependents that later chunks bring, and those that this one has brought, broken or known already as they may be.

    Returns the tasks that have all their dependents now.
    """
    complete: list[TaskState] = []
    expecting = client.expecting
    if expecting and message.dependencies is not None:
        for needs in message.dependencies:
            for id in needs:
                expected = expecting.get(id)
                # Another submission that refers to the row, meanwhile, is not what was announced.
                if expected is None or expected.submission != message.submission:
                    continue
                expected.task.later_dependents -= 1
                expected.count -= 1
                if expected.count == 0:
                    del expecting[id]
                    complete.append(expected.task)
    if message.later_dependents is not None:
        for row, count in enumerate(message.later_dependents):
            task = rows[row]
            if count and task is not None:
                task.later_dependents += count
                expecting[message.ids[row]] = Expected(task, message.submission, count)
    return complete


def _cancel_broken(client: ClientState, message: SubmitTasks, broken: dict[int, None], out: Outbox) -> None:
    """Rows whose dependencies are gone never become tasks; who wants them is told."""
    wanted = message.ids if message.wanted is None else message.wanted
    out.cancelled(client, [id for id in wanted if id in broken], "lost dependencies", None)


def _tell_redefined(client: ClientState, message: SubmitTasks, ids: list[int], out: Outbox) -> None:
    """These are other tasks than those that their keys stand for."""
    if message.strict:
        out.cancelled(client, ids, REDEFINED, REDEFINED_TEXT)
    elif client.number:
        out.to_client(client).add(KeysRedefined(ids))


def _start(
    state: ClusterState, client: ClientState, message: SubmitTasks, rows: list[TaskState | None], fresh: list[TaskState], out: Outbox
) -> None:
    """Note who wants what; then start the new tasks that somebody needs, and drop those that nobody does."""
    eager: bool = message.eager
    if message.wanted is None:
        for task in rows:
            if task is not None:
                want(state, client, task, out)
                if eager:
                    task.eager = True
    else:
        for id in message.wanted:
            task = find_task(state, client, id)
            if task is not None:
                want(state, client, task, out)
                if eager:
                    task.eager = True
    for task in fresh:
        # What a client wants has been recommended above.
        if task.state == RELEASED and not task.who_wants:
            needed = task.live_dependents > 0 or task.later_dependents > 0
            state.recommend(task, WAITING if needed else FORGOTTEN)
