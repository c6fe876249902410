"""Rules for assignments: a task waits for the values that it needs, or is ready at once. No I/O, no clock."""

from __future__ import annotations

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import Holders, TaskOptions
from treadle.messages.local import Execute
from treadle.messages.worker_scheduler import ComputeTasks
from treadle.utils.buffers import buffers_by_row
from treadle.utils.keys import key_from_wire
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import (
    LONG_RUNNING,
    MEMORY,
    NO_ATTEMPT,
    READY,
    WAITING,
    Priority,
    WorkerTask,
)
from treadle.worker.transitions.rules.fetch import need
from treadle.worker.transitions.rules.ready import to_ready
from treadle.worker.transitions.rules.released import end_assignment
from treadle.worker.transitions.state import LocalState, add_task, move


def compute_tasks(state: LocalState, message: ComputeTasks, buffers: list[object], out: WorkerOutbox) -> None:
    """Take new assignments. Raises PeerProtocolError, with nothing changed, when the columns do not fit together."""
    holders = _holders_by_id(message)
    _check(state, message, holders, len(buffers))
    options: dict[int, TaskOptions] = {}
    if message.row_options is not None:
        options = dict(message.row_options)
    row_buffers = buffers_by_row(message.buffers, buffers)
    ids, keys, attempts, functions = message.ids, message.keys, message.attempts, message.functions
    payloads, priorities, dependencies = message.payloads, message.priorities, message.dependencies
    eager: set[int] = set()
    if message.eager is not None:
        eager.update(message.eager)
    tasks = state.tasks
    for row in range(len(ids)):
        id = ids[row]
        task = tasks.get(id)
        is_new = task is None
        if task is None:
            task = add_task(state, id, key_from_wire(keys[row]))
        spec = Execute(id, task.key, attempts[row], functions[row], payloads[row], priorities[row])
        if options or row_buffers:
            spec.buffers = row_buffers.get(row)
            _set_options(task, spec, options.get(row))
        if eager:
            spec.eager = row in eager
        if is_new:
            task.attempt = attempts[row]
            task.spec = spec
            if dependencies is not None and dependencies[row]:
                _attach(state, task, dependencies[row], holders, out)
            if task.waiting_on:
                move(state, task, WAITING)
            else:
                to_ready(state, task, out)
        else:
            _assign_again(state, task, spec, [] if dependencies is None else dependencies[row], holders, out)


def _check(state: LocalState, message: ComputeTasks, holders: dict[int, Holders], buffers: int) -> None:
    count = len(message.ids)
    dependencies = message.dependencies
    if not (
        len(message.keys) == len(message.attempts) == len(message.functions) == len(message.payloads) == len(message.priorities) == count
        and (dependencies is None or len(dependencies) == count)
    ):
        raise PeerProtocolError("ComputeTasks has columns of different lengths")
    if dependencies is not None:
        for row in dependencies:
            for id in row:
                if id not in holders and id not in state.tasks:
                    raise PeerProtocolError(f"ComputeTasks names a dependency {id} without saying what it is")
    named = 0
    if message.buffers is not None:
        for at, size in message.buffers:
            if not 0 <= at < count or size < 0:
                raise PeerProtocolError(f"ComputeTasks names buffers of row {at} of {count}")
            named += size
    if named != buffers:
        raise PeerProtocolError(f"ComputeTasks announces {named} buffers but came with {buffers}")


def _holders_by_id(message: ComputeTasks) -> dict[int, Holders]:
    holders: dict[int, Holders] = {}
    if message.holders is not None:
        for named in message.holders:
            holders[named.id] = named
    return holders


def _set_options(task: WorkerTask, spec: Execute, options: TaskOptions | None) -> None:
    if options is None:
        return
    spec.executor = options.executor
    if options.resources:
        task.needs = tuple([(name, float(amount)) for name, amount in sorted(options.resources.items())])


def _attach(state: LocalState, task: WorkerTask, ids: list[int], holders: dict[int, Holders], out: WorkerOutbox) -> None:
    """Note the values that the task needs, and have them fetched."""
    spec = task.spec
    if spec is None:
        return
    priority: Priority = spec.priority
    dependencies: list[WorkerTask] = []
    keys: list[object] = []
    missing: list[WorkerTask] = []
    for id in ids:
        named = holders.get(id)
        dependency = state.tasks.get(id)
        if dependency is None:
            if named is None:
                raise PeerProtocolError(f"unknown dependency {id}")
            dependency = add_task(state, id, key_from_wire(named.key))
        if dependency.dependents is None:
            dependency.dependents = {}
        elif task in dependency.dependents:
            continue
        dependency.dependents[task] = None
        dependencies.append(dependency)
        keys.append(dependency.key)
        if dependency.state != MEMORY:
            missing.append(dependency)
    task.dependencies = dependencies
    task.waiting_on = len(missing)
    spec.dependencies = keys
    for dependency in missing:
        need(state, dependency, holders.get(dependency.id), priority, out)


def _assign_again(
    state: LocalState, task: WorkerTask, spec: Execute, ids: list[int], holders: dict[int, Holders], out: WorkerOutbox
) -> None:
    """Assign a task that is known here: with an older attempt, as a value, or given up and still executing."""
    if task.state == MEMORY:
        # The value was computed or fetched before. Nothing ran for this attempt, so start and stop are 0.
        out.finished(task.id, spec.attempt, task.nbytes, task.type_name, 0.0, 0.0)
        return
    was_assigned = task.attempt != NO_ATTEMPT
    if was_assigned and not task.in_executor:
        # The values that it needs may have other ids by now.
        end_assignment(state, task)
        was_assigned = False
    task.attempt = spec.attempt
    if was_assigned:
        if task.spec is not None:
            spec.dependencies = task.spec.dependencies
        task.spec = spec
    else:
        task.spec = spec
        if ids:
            _attach(state, task, ids, holders, out)
        if task.in_executor:
            # The task runs on, and is reported under the new attempt.
            move(state, task, task.reached)
        elif not task.waiting_on:
            to_ready(state, task, out)
        elif task.state != WAITING:
            move(state, task, WAITING)
    if task.in_executor and task.state != READY:
        out.started(task.id, task.attempt)
        if task.state == LONG_RUNNING:
            out.seceded(task.id, task.attempt)
