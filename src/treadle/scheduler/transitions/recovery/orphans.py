"""What is left of an earlier scheduler: *orphans*, which workers brought and nobody knows yet, and *awaited* tasks, which clients
want and nobody has brought yet. Both wait for each other for a while. Pure."""

from __future__ import annotations

from typing import Any, Final

from treadle.scheduler.transitions.durations import place, set_long_running
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placement import assign
from treadle.scheduler.transitions.records import (
    ERRED,
    EXECUTING,
    MEMORY,
    NO_WORKER,
    NOT_RUNNING,
    PROCESSING,
    QUEUED,
    RELEASED,
    RUNNING,
    SECEDED,
    STRANGER,
    WAITING,
    ClientState,
    Orphan,
    TaskState,
    WorkerState,
    is_needed,
)
from treadle.scheduler.transitions.rules.common import add_replica, confirm_replica, move
from treadle.scheduler.transitions.rules.erred import own_error
from treadle.scheduler.transitions.rules.memory import to_memory
from treadle.scheduler.transitions.state import RESTORING, STEADY, ClusterState, RecoveryHook

#: Stands for the key of an orphan that is not to be claimed.
NOBODYS: Final = None
#: What clients are told of keys that nobody has brought.
LOST_IN_RESTART: Final = "lost-in-scheduler-restart"
LOST_IN_RESTART_TEXT: Final = (
    "The scheduler does not know this key: it was started anew, or had not seen this client for too long; and no worker that came back "
    "has the value. Submit it again."
)


def accept_value(state: ClusterState, task: TaskState, worker: WorkerState, nbytes: int, type_name: str, out: Outbox) -> bool:
    """``worker`` came back and holds the value of ``task``. Whether that is of use."""
    now = task.state
    if now == MEMORY:
        add_replica(state, task, worker)
        return True
    if now == PROCESSING:
        if task.processing_on is worker:
            state.total_finished += 1
        else:
            # Whoever computes it meanwhile may stop.
            move(state, task, WAITING, out)
        to_memory(state, task, worker, nbytes, type_name, out)
        return True
    if now == WAITING or now == NO_WORKER or now == QUEUED or (now == RELEASED and is_needed(task)):
        to_memory(state, task, worker, nbytes, type_name, out)
        return True
    return False


def adopt(state: ClusterState, task: TaskState, worker: WorkerState, stage: int, attempt: int, out: Outbox) -> bool:
    """``worker`` came back and executes ``task``, which is assigned to nobody: it goes on, as an assignment. Whether it can."""
    if worker.status != RUNNING:
        return False
    if task.state == RELEASED and is_needed(task):
        for dependency in task.dependencies:
            if dependency.state != MEMORY:
                return False
        move(state, task, WAITING, out)
        task.waiting_on = 0
    elif task.state == NO_WORKER:
        move(state, task, WAITING, out)
        task.waiting_on = 0
    elif task.state != QUEUED and (task.state != WAITING or task.waiting_on > 0):
        return False
    if task.has_recipe:
        # The worker takes it for another attempt of what it executes, and reports it as that.
        assign(state, task, worker, out)
        # It may be done with it already: the news of that comes in this turn, perhaps, and nobody wants it any more.
        out.to_worker(worker).seal()
    else:
        move(state, task, PROCESSING, out)
        task.attempt = attempt
        place(state, task, worker)
    note_stage(state, task, worker, stage)
    return True


def note_stage(state: ClusterState, task: TaskState, worker: WorkerState, stage: int) -> None:
    """How far the execution of an assignment is known to be."""
    if stage >= EXECUTING:
        worker.executing[task] = None
    if stage == SECEDED:
        set_long_running(state, task, worker)


# ------------------------------------------------------------------------------------------------ orphans


def is_chosen(task: TaskState) -> bool:
    """Whether something else with its key, that was known before, may be another task's."""
    return task.digest != b"" and task.has_recipe


def keep_orphan(state: ClusterState, key: Any, orphan: Orphan) -> None:
    """Keep it for whoever asks for ``key``; NOBODYS: nobody shall be given it."""
    worker = orphan.worker
    before = worker.orphans.get(orphan.id)
    if before is not None:
        # It came with the worker before, for somebody who may ask for it.
        if key is NOBODYS:
            key = before.key
        _remove_orphan(state, before)
    orphan.key = key
    worker.orphans[orphan.id] = orphan
    rows = state.orphans.get(key)
    if rows is None:
        rows = state.orphans[key] = {}
    rows[orphan] = None
    state.orphans_until = state.now + state.limits.recovery_grace_s


def _remove_orphan(state: ClusterState, orphan: Orphan) -> None:
    """It is claimed, or was lost."""
    orphan.worker.orphans.pop(orphan.id, None)
    rows = state.orphans.get(orphan.key)
    if rows is not None:
        rows.pop(orphan, None)
        if not rows:
            del state.orphans[orphan.key]


def claim(state: ClusterState, task: TaskState, last_chance: bool, out: Outbox) -> bool:
    """``task`` is known and needed. Whether a worker has brought its value, or executes it and goes on with that.

    It can only go on with a task that is ready: others are looked at again when they are (``last_chance``).
    """
    rows = state.orphans.get(task.key)
    if rows is None:
        return False
    found = False
    values: list[Orphan] = []
    executing: list[Orphan] = []
    for orphan in rows:
        (values if orphan.stage == NOT_RUNNING else executing).append(orphan)
    for orphan in values:
        worker = orphan.worker
        if orphan.is_fresh and orphan.id != task.id and task.has_recipe:
            # The client that put it there has not said so yet. What is computed may be released before it does.
            continue
        _remove_orphan(state, orphan)
        if orphan.id != task.id and is_chosen(task):
            out.drop_id(orphan.id, worker)
            continue
        if accept_value(state, task, worker, orphan.nbytes, orphan.type_name, out):
            found = True
            if orphan.id != task.id:
                out.renumber(worker, orphan.id, task.id)
            if not task.has_recipe:
                # It may have been dropped since it was brought.
                confirm_replica(state, worker, [task], out)
        else:
            out.drop_id(orphan.id, worker)
    for orphan in executing:
        worker = orphan.worker
        if not found and orphan.id == task.id:
            if adopt(state, task, worker, orphan.stage, orphan.attempt, out):
                _remove_orphan(state, orphan)
                found = True
                continue
            if not last_chance:
                # It goes on to wait.
                continue
        _remove_orphan(state, orphan)
        out.drop_id(orphan.id, worker)
    return found


def orphan_finished(worker: WorkerState, id: int, nbytes: int, type_name: str) -> bool:
    """``worker`` has finished something that nobody knows. Whether it is to keep the result."""
    orphan = worker.orphans.get(id)
    if orphan is None:
        return False
    orphan.stage = NOT_RUNNING
    orphan.nbytes = nbytes
    orphan.type_name = type_name
    return True


def orphan_ended(state: ClusterState, worker: WorkerState, id: int) -> None:
    """``worker`` is done with something that nobody knows, and has no value to show for it: nobody shall wait for that."""
    orphan = worker.orphans.get(id)
    if orphan is not None and orphan.stage != NOT_RUNNING:
        _remove_orphan(state, orphan)


def forget_orphans(state: ClusterState, worker: WorkerState, but: set[int]) -> None:
    """``worker`` has none any more with other ids."""
    for orphan in list(worker.orphans.values()):
        if orphan.id not in but:
            _remove_orphan(state, orphan)


def expire_orphans(state: ClusterState, out: Outbox, most: int = 0) -> None:
    """Nobody has claimed them. ``most``: so many at a time; 0: all."""
    late: list[Orphan] = []
    for rows in state.orphans.values():
        for orphan in rows:
            late.append(orphan)
            if len(late) == most:
                break
        if len(late) == most:
            break
    for orphan in late:
        _remove_orphan(state, orphan)
        task = state.by_id.get(orphan.id)
        if task is None or task not in orphan.worker.has_what:
            out.drop_id(orphan.id, orphan.worker)


# ------------------------------------------------------------------------------------------------ awaited


def is_recovering(state: ClusterState) -> bool:
    """Whether this scheduler is so young that parties of an earlier one may still come."""
    return state.now - state.started_at < state.limits.recovery_grace_s


def await_value(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """``task`` is released and wanted, and has no recipe: a worker may bring its value."""
    move(state, task, WAITING, out)
    task.waiting_on = 0
    move(state, task, NO_WORKER, out)
    # It is not placeable: there is nothing of it that a worker could run.
    state.unrunnable[task] = state.now
    state.awaited[task] = state.now + state.limits.recovery_grace_s


def give_up(state: ClusterState, client: ClientState, id: int, out: Outbox) -> None:
    """Tell the client that its key is lost."""
    if state.recorder is not None:
        state.recorder.unwanted(client, id)
    out.cancelled(client, [id], LOST_IN_RESTART, LOST_IN_RESTART_TEXT)


def give_up_awaited(state: ClusterState, task: TaskState, out: Outbox) -> list[ClientState]:
    """Nobody has brought the value: clients are told, and tasks that need it fail. Returns who shall want it no longer."""
    del state.awaited[task]
    losers = list(task.who_wants)
    for client in losers:
        give_up(state, client, task.id, out)
    if task.waiters > 0 or task.later_dependents > 0:
        task.error = own_error(RuntimeError(f"{task.key!r}: {LOST_IN_RESTART_TEXT}"))
        task.blame = task
        state.recommend(task, ERRED)
    return losers


# ------------------------------------------------------------------------------------------------ the hook


class Leftovers(RecoveryHook):
    """What the steady path asks, see there."""

    def claim(self, state: ClusterState, task: TaskState, last_chance: bool, out: Outbox) -> bool:
        return claim(state, task, last_chance, out)

    def is_awaited(self, state: ClusterState, task: TaskState, out: Outbox) -> bool:
        if task in state.awaited:
            return True
        if state.phase == STEADY:
            return False
        # What needs it may be there already, on a worker that is not back, or by a record that is still to be told.
        await_value(state, task, out)
        return True

    def may_come(self, state: ClusterState, client: ClientState, task: TaskState, out: Outbox) -> bool:
        # The scheduler before may not have lived to write of those workers.
        expected = state.phase == RESTORING or (is_recovering(state) and (client.origin == STRANGER or state.is_successor))
        if task.state != RELEASED or task.has_recipe or not expected:
            return False
        await_value(state, task, out)
        return True

    def finished(self, worker: WorkerState, id: int, nbytes: int, type_name: str) -> bool:
        return orphan_finished(worker, id, nbytes, type_name)

    def ended(self, state: ClusterState, worker: WorkerState, id: int) -> None:
        orphan_ended(state, worker, id)

    def worker_gone(self, state: ClusterState, worker: WorkerState) -> None:
        forget_orphans(state, worker, set())

    def forget_all(self, state: ClusterState, out: Outbox) -> None:
        state.awaited.clear()
        expire_orphans(state, out)
