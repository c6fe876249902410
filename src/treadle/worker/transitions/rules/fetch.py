"""Rules for values that are needed here and stored elsewhere: fetch, flight, missing. No I/O, no clock."""

from __future__ import annotations

from treadle.messages.base import Holders
from treadle.worker.transitions.gathering import enqueue
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import (
    CANCELLED,
    CONSTRAINED,
    FETCH,
    FLIGHT,
    FORGOTTEN,
    MEMORY,
    MISSING,
    NEW,
    NO_PEER,
    WAITING,
    Priority,
    Remote,
    WorkerTask,
)
from treadle.worker.transitions.state import LocalState, move


def remote_of(task: WorkerTask) -> Remote:
    remote = task.remote
    if remote is None:
        remote = task.remote = Remote()
    return remote


def need(state: LocalState, task: WorkerTask, named: Holders | None, priority: Priority, out: WorkerOutbox) -> None:
    """A task here, or the scheduler, wants the value: have it fetched."""
    if task.state == MEMORY:
        return
    remote = remote_of(task)
    more_urgent = priority < remote.priority
    if more_urgent:
        remote.priority = priority
    if named is not None:
        name_holders(state, task, remote, named)
    if task.state == NEW or task.state == CANCELLED:
        to_fetch(state, task, out)
    elif task.state == MISSING:
        if remote.holders:
            to_fetch(state, task, out)
    elif task.state == FETCH:
        if not remote.holders:
            to_missing(state, task, out)
        elif more_urgent or named is not None:
            enqueue(state, task)
    # FLIGHT: the value is on its way. Assigned here: it is being computed, and the holders are kept in case that fails.


def name_holders(state: LocalState, task: WorkerTask, remote: Remote, named: Holders) -> None:
    """Replace the known holders by those that the scheduler names. Unknown ones have left, and this worker cannot fetch from itself."""
    if task.nbytes == 0:
        task.nbytes = named.nbytes
    remote.holders = []
    remote.tried = []
    for number in named.workers:
        if number in state.peers and number != state.number:
            remote.holders.append(number)
        else:
            remote.tried.append(number)


def to_fetch(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """Have the value requested from one of its holders; the task is MISSING when none is left."""
    remote = remote_of(task)
    if remote.peer != NO_PEER:
        # The value was requested and given up, and is wanted again while the request is still under way.
        move(state, task, FLIGHT)
        return
    prune_holders(state, remote)
    if not remote.holders:
        to_missing(state, task, out)
        return
    move(state, task, FETCH)
    enqueue(state, task)


def to_missing(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """No known peer has the value: report that, and wait for the scheduler to name holders."""
    move(state, task, MISSING)
    report_missing(state, task, out)


def report_missing(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    remote = remote_of(task)
    for number in remote.tried:
        if number == state.number:
            # The scheduler believes that the value is here: correct that first.
            out.replica_dropped(task.id)
        out.missing(task.id, number)
    remote.tried = []


def prune_holders(state: LocalState, remote: Remote) -> None:
    """Remove holders that left."""
    for number in remote.holders:
        if number not in state.peers:
            break
    else:
        return
    known: list[int] = []
    for number in remote.holders:
        if number in state.peers:
            known.append(number)
        else:
            remote.tried.append(number)
    remote.holders = known


def lost_holder(task: WorkerTask, number: int) -> None:
    """The peer does not have the value, or cannot be reached."""
    remote = remote_of(task)
    if number in remote.holders:
        remote.holders.remove(number)
    if number not in remote.tried:
        remote.tried.append(number)


def lose(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """The task's value was lost, or its assignment ended. If a task here needs the value, it is fetched; else the task is forgotten.

    Called for a task without an open assignment. While the executor or a request holds the task, it stays as CANCELLED.
    """
    dependents = task.dependents
    if task.state == MEMORY:
        state.stored_bytes -= task.nbytes
        if dependents:
            for dependent in dependents:
                dependent.waiting_on += 1
                if dependent.state == CONSTRAINED:
                    move(state, dependent, WAITING)
    if dependents or (task.remote is not None and task.remote.wanted):
        to_fetch(state, task, out)
        return
    to_cancelled(state, task)


def to_cancelled(state: LocalState, task: WorkerTask) -> None:
    """Nobody here wants the task."""
    if task.in_executor or (task.remote is not None and task.remote.peer != NO_PEER):
        if task.state != CANCELLED:
            move(state, task, CANCELLED)
        return
    move(state, task, FORGOTTEN)


def forget_orders(state: LocalState) -> None:
    """The scheduler has welcomed this worker: forget which replicas it ordered before, because it will order them again."""
    for task in list(state.tasks.values()):
        remote = task.remote
        if remote is None or not remote.wanted:
            continue
        remote.wanted = False
        if not task.dependents and (task.state == FETCH or task.state == FLIGHT or task.state == MISSING):
            to_cancelled(state, task)


def settle(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """The executor or a request has released a CANCELLED task."""
    if task.state == CANCELLED:
        if task.dependents:
            lose(state, task, out)
        else:
            to_cancelled(state, task)
