"""What a worker says it has when it comes back to a scheduler, and what it makes of the answer. No I/O, no clock."""

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

#: How long what was told to the scheduler, or is told by a client, may be on its way: seconds, and so many failures.
RECENTLY_S: Final = 60.0
MOST_ERRORS: Final = 200
#: How many of its former numbers a worker remembers.
MOST_NUMBERS: Final = 32


def note_error(state: LocalState, row: TaskErred) -> None:
    """The report may get lost with the stream: keep it for a while."""
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
    """A client will tell the scheduler of the value, which may not know it yet when it is told by this worker."""
    state.recent_puts.pop(id, None)
    state.recent_puts[id] = state.story.now


def end_puts(state: LocalState, out: WorkerOutbox) -> None:
    """What was put here a while ago is told to the scheduler: it says that nobody wants it when the client has not lived to say that."""
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
            tell_again(state, first, out)


def tell_again(state: LocalState, id: int, out: WorkerOutbox) -> None:
    """The value is here, as the scheduler may know, and may just have it dropped: then it is told that it went, behind this."""
    out.replica_added(id)
    state.told_again.add(id)


def take_number(state: LocalState, number: int) -> None:
    """What the scheduler calls this worker from here on."""
    former = state.former_numbers
    if state.number not in (0, number):
        former.append(state.number)
        del former[:-MOST_NUMBERS]
    state.number = number


def inventory(state: LocalState, now: float) -> Inventory:
    """All that this worker has and does. Functions are the shell's."""
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
    """The scheduler calls these values otherwise than the one before did.

    Returns the ids of those that nobody will ask for: there is something here that has the new name already.
    """
    superfluous: list[int] = []
    for row in range(len(ids)):
        if ids[row] == canonical[row]:
            continue
        task = state.tasks.get(ids[row])
        if task is None or task.state != MEMORY:
            # Lost meanwhile, which was said under the old name.
            other = state.tasks.get(canonical[row])
            if other is None or other.state != MEMORY:
                out.replica_dropped(canonical[row])
        elif not _renumber(state, task, canonical[row], out):
            superfluous.append(ids[row])
    return superfluous


def _renumber(state: LocalState, task: WorkerTask, id: int, out: WorkerOutbox) -> bool:
    """False: it cannot be called so."""
    old = task.id
    other = state.tasks.get(id)
    if other is not None:
        if other.state != MEMORY:
            out.replica_dropped(id)
        return False
    del state.tasks[old]
    task.id = id
    state.tasks[id] = task
    state.told_again.discard(old)
    # What was requested under the old name is not waited for.
    task.remote = None
    if old in out.store:
        out.store[id] = out.store.pop(old)
    out.replica_renamed(id)
    if old in state.recent_puts:
        state.recent_puts[id] = state.recent_puts.pop(old)
    return True
