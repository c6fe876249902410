"""Rules for values that are needed here and are elsewhere: fetch, flight, missing. No I/O, no clock."""

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
    """A task here, or the scheduler, wants the value: see to it that it comes."""
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
    # FLIGHT: it comes. Assigned here: it is computed, and the holders are kept for when that fails.


def name_holders(state: LocalState, task: WorkerTask, remote: Remote, named: Holders) -> None:
    """The scheduler's word replaces what was known. Those unknown here have left, and this worker cannot fetch from itself."""
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
    """To be requested from one of its holders; MISSING when none is left."""
    remote = remote_of(task)
    if remote.peer != NO_PEER:
        # Requested before, given up, and wanted again while the request is still under way.
        move(state, task, FLIGHT)
        return
    prune_holders(state, remote)
    if not remote.holders:
        to_missing(state, task, out)
        return
    move(state, task, FETCH)
    enqueue(state, task)


def to_missing(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """No known peer has it: say so, and wait for the scheduler's word."""
    move(state, task, MISSING)
    report_missing(state, task, out)


def report_missing(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    remote = remote_of(task)
    for number in remote.tried:
        if number == state.number:
            # The scheduler believes that it is here: first strike that off.
            out.replica_dropped(task.id)
        out.missing(task.id, number)
    remote.tried = []


def prune_holders(state: LocalState, remote: Remote) -> None:
    """Forget holders that left."""
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
    """That peer does not have it, or cannot be reached."""
    remote = remote_of(task)
    if number in remote.holders:
        remote.holders.remove(number)
    if number not in remote.tried:
        remote.tried.append(number)


def lose(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """Its value went, or its assignment ended. Kept as a value to fetch when a task here needs it, forgotten else.

    Called for a task with no open assignment. While the executor or a request holds it, it stays as CANCELLED.
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
    """Nobody here wants it."""
    if task.in_executor or (task.remote is not None and task.remote.peer != NO_PEER):
        if task.state != CANCELLED:
            move(state, task, CANCELLED)
        return
    move(state, task, FORGOTTEN)


def forget_orders(state: LocalState) -> None:
    """The scheduler welcomes this worker: copies that it wants kept here, it orders anew."""
    for task in list(state.tasks.values()):
        remote = task.remote
        if remote is None or not remote.wanted:
            continue
        remote.wanted = False
        if not task.dependents and (task.state == FETCH or task.state == FLIGHT or task.state == MISSING):
            to_cancelled(state, task)


def settle(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """Something that held a CANCELLED task let go of it."""
    if task.state == CANCELLED:
        if task.dependents:
            lose(state, task, out)
        else:
            to_cancelled(state, task)
