"""The inventory of a worker that comes back to a scheduler, and what the worker does with the answer. No I/O, no clock."""

from __future__ import annotations

from typing import Final

from treadle.messages.worker_scheduler import Inventory, TaskErred
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import (
    EXECUTING,
    FETCH,
    FLIGHT,
    LONG_RUNNING,
    MEMORY,
    MISSING,
    NO_ATTEMPT,
    WorkerTask,
)
from treadle.worker.transitions.state import LocalState

#: How long a report to the scheduler, by this worker or by a client, may be on its way, in seconds; and how many failures are kept.
RECENTLY_S: Final = 60.0
MOST_ERRORS: Final = 200
#: How many of its former numbers a worker remembers.
MOST_NUMBERS: Final = 32


def note_error(state: LocalState, row: TaskErred) -> None:
    """Keep the report of a failure for a while, because it may get lost with the stream."""
    errors = state.recent_errors
    errors.append((state.story.now, row))
    if len(errors) > MOST_ERRORS:
        del errors[: MOST_ERRORS // 2]


def forget_errors(state: LocalState) -> None:
    """Reports of long ago have arrived, or the scheduler has asked by now."""
    errors = state.recent_errors
    late = 0
    while late < len(errors) and errors[late][0] + RECENTLY_S <= state.story.now:
        late += 1
    del errors[:late]


def note_put(state: LocalState, id: int) -> None:
    """Note a value that a client has handed over. The client will report it to the scheduler, perhaps later than this worker does."""
    state.recent_puts.pop(id, None)
    state.recent_puts[id] = state.story.now


def end_puts(state: LocalState, out: WorkerOutbox) -> None:
    """Announce values that were handed over a while ago to the scheduler. It orders them to be dropped if nobody wants them because
    their client died before it reported them."""
    puts = state.recent_puts
    while puts:
        first = next(iter(puts))
        until = puts[first] + RECENTLY_S
        if until > state.story.now:
            if out.wake_at == 0.0 or out.wake_at > until:
                out.wake_at = until
            return
        del puts[first]
        task = state.tasks.get(first)
        if task is not None and task.state == MEMORY:
            announce_again(state, first, out)


def announce_again(state: LocalState, id: int, out: WorkerOutbox) -> None:
    """Announce a value that the scheduler may know already. If it has just ordered the value to be dropped, ``drop_keys`` will report
    the drop after this announcement."""
    out.replica_added(id)
    state.reannounced.add(id)


def take_number(state: LocalState, number: int) -> None:
    """The scheduler uses this number for the worker from now on."""
    former = state.former_numbers
    if state.number not in (0, number):
        former.append(state.number)
        del former[:-MOST_NUMBERS]
    state.number = number


def inventory(state: LocalState, now: float) -> Inventory:
    """All that this worker has and does, except the functions, which the shell adds."""
    found = Inventory([], [], [], [], [], [], [], [], [], [], [], [], [], list(state.peers), "")
    found.status = "paused" if state.paused else "running"
    found.number = state.number
    found.former = list(state.former_numbers)
    types: dict[str, int] = {}
    for task in state.tasks.values():
        now_state = task.state
        if now_state == MEMORY:
            found.ids.append(task.id)
            found.keys.append(task.key)
            found.nbytes.append(task.nbytes)
            number = types.get(task.type_name, -1)
            if number < 0:
                number = types[task.type_name] = len(types)
            found.types.append(number)
        elif task.attempt != NO_ATTEMPT:
            found.assigned.append(task.id)
            found.assigned_keys.append(task.key)
            found.attempts.append(task.attempt)
            found.stages.append(2 if now_state == LONG_RUNNING else 1 if now_state == EXECUTING else 0)
        elif now_state == FETCH or now_state == FLIGHT or now_state == MISSING:
            found.fetching.append(task.id)
    found.type_names.extend(types)
    for id, when in state.recent_puts.items():
        if when > now - RECENTLY_S:
            found.fresh.append(id)
    for when, row in state.recent_errors:
        if when > now - RECENTLY_S:
            found.erred.append(row)
    return found


def keys_renumbered(state: LocalState, ids: list[int], canonical: list[int], out: WorkerOutbox) -> list[int]:
    """The scheduler has other ids for these values than the scheduler before it.

    Returns the old ids of superfluous values: another task here has the new id already, so nobody will ask for them.
    """
    superfluous: list[int] = []
    for row in range(len(ids)):
        if ids[row] == canonical[row]:
            continue
        task = state.tasks.get(ids[row])
        if task is None or task.state != MEMORY:
            # The value was lost meanwhile, and the loss was reported under the old id.
            other = state.tasks.get(canonical[row])
            if other is None or other.state != MEMORY:
                out.replica_dropped(canonical[row])
        elif not _renumber(state, task, canonical[row], out):
            superfluous.append(ids[row])
    return superfluous


def _renumber(state: LocalState, task: WorkerTask, id: int, out: WorkerOutbox) -> bool:
    """Give a task a new id. False if another task has it already."""
    old = task.id
    other = state.tasks.get(id)
    if other is not None:
        if other.state != MEMORY:
            out.replica_dropped(id)
        return False
    del state.tasks[old]
    task.id = id
    state.tasks[id] = task
    state.reannounced.discard(old)
    # Do not wait for a request that was made under the old id.
    task.remote = None
    if old in out.store:
        out.store[id] = out.store.pop(old)
    out.replica_renamed(id)
    if old in state.recent_puts:
        state.recent_puts[id] = state.recent_puts.pop(old)
    return True
