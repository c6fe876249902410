"""Why a task is where it is, in words: for users who ask, and for the watchdog. Reads the core, changes nothing."""

from __future__ import annotations

from typing import Any, Final

from treadle.scheduler.transitions.candidates import is_restricted
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import (
    ERRED,
    MEMORY,
    NO_WORKER,
    PROCESSING,
    QUEUED,
    RELEASED,
    RUNNING,
    STATE_NAMES,
    WAITING,
    TaskState,
    WorkerState,
    names,
)
from treadle.scheduler.transitions.state import HOLDING
from treadle.utils.keys import key_from_wire

#: Dependencies and causes that are named, and tasks that are looked at to find causes.
_MOST_NAMED: Final = 5
_MOST_LOOKED_AT: Final = 10_000


def explain(core: Transitions, options: dict[str, Any]) -> dict[str, Any]:
    """Of the task ``key``: ``state``, ``reasons``, ``id``, ``attempt``, ``worker`` (address), ``since_s``, ``waiting_for`` as (key, state),
    ``causes`` as (key, state, reasons): what it waits for in the end, and ``suspicious``: workers that died while executing it.
    """
    key = key_from_wire(options["key"])
    task = core.tasks.get(key)
    if task is None:
        return {
            "key": options["key"],
            "state": "forgotten",
            "reasons": ["the scheduler does not know it: nobody wants it any more, or it was never submitted"],
            "id": 0,
            "attempt": 0,
            "worker": None,
            "since_s": None,
            "waiting_for": [],
            "causes": [],
            "suspicious": 0,
        }
    waiting_for = [need for need in task.dependencies if need.state != MEMORY] if task.state == WAITING else []
    return {
        "key": options["key"],
        "state": STATE_NAMES[task.state],
        "reasons": reasons(core, task),
        "id": task.id,
        "attempt": task.attempt,
        "worker": None if task.processing_on is None else task.processing_on.address,
        "since_s": _since(core, task),
        "waiting_for": [[need.key, STATE_NAMES[need.state]] for need in waiting_for[:100]],
        "causes": [[cause.key, STATE_NAMES[cause.state], reasons(core, cause)] for cause in causes_of(task)],
        "suspicious": task.suspicious,
    }


def _since(core: Transitions, task: TaskState) -> float | None:
    """Seconds that it has been in its state; None when that is not on record any more."""
    story = core.story(task.key)
    return core.state.now - story[-1][4] if story else None


def causes_of(task: TaskState) -> list[TaskState]:
    """Some tasks at the bottom of what a waiting task waits for: these do not wait for others."""
    found: list[TaskState] = []
    seen = {task}
    stack = [task] if task.state == WAITING else []
    while stack and len(found) < _MOST_NAMED and len(seen) < _MOST_LOOKED_AT:
        for need in stack.pop().dependencies:
            if need.state == MEMORY or need in seen:
                continue
            seen.add(need)
            if need.state == WAITING:
                stack.append(need)
            elif len(found) < _MOST_NAMED:
                found.append(need)
    return found


def reasons(core: Transitions, task: TaskState) -> list[str]:
    """Why it is in its state, each in a sentence without an end."""
    state = task.state
    if state == MEMORY:
        shown = ", ".join(worker.address for worker in task.who_has[:_MOST_NAMED])
        return [f"it is finished; {len(task.who_has)} workers have it: {shown}"]
    if state == ERRED:
        text = task.error.exception_text if task.error is not None else "unknown"
        blame = f"what it needs has failed, {task.blame.key!r}" if task.blame is not None and task.blame is not task else "it failed"
        return [f"{blame}: {text}"]
    if state == RELEASED:
        return ["nobody needs it at present"]
    if state == WAITING:
        missing = [need for need in task.dependencies if need.state != MEMORY]
        shown = ", ".join(f"{need.key!r} ({STATE_NAMES[need.state]})" for need in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        return [f"it waits for {len(missing)} of the {len(task.dependencies)} tasks that it depends on: {shown}{more}"]
    found: list[str] = []
    if task.suspicious:
        found.append(f"{task.suspicious} workers died while they executed it")
    if state == NO_WORKER:
        found.extend(_no_worker(core, task))
    elif state == QUEUED:
        found.extend(_queued(core, task))
    elif state == PROCESSING:
        found.extend(_processing(core, task))
    return found


def _no_worker(core: Transitions, task: TaskState) -> list[str]:
    state = core.state
    waited_s = state.now - state.unrunnable.get(task, state.now)
    found = [f"no worker may run it, for {waited_s:.3g} s"]
    if state.phase == HOLDING:
        found.append("the scheduler was started anew and waits for the workers that it knows to come back")
    elif task in state.awaited:
        found.append("a worker that served an earlier scheduler may come with its value")
    elif not state.workers:
        found.append("there are no workers")
    elif not is_restricted(task):
        found.append(f"there are {len(state.workers)} workers, and none takes tasks: {_states_of(list(state.workers.values()))}")
    else:
        found.extend(_restrictions(core, task))
    return found


def _restrictions(core: Transitions, task: TaskState) -> list[str]:
    """Which of its conditions nobody fulfils."""
    state, options = core.state, task.options
    assert options is not None
    found: list[str] = []
    workers = list(state.workers.values())
    if options.workers is not None:
        wanted = set(options.workers)
        workers = [worker for worker in workers if {worker.address, worker.name, worker.host} & wanted]
        if workers:
            found.append(f"it may run on {options.workers} only: {_states_of(workers)}")
        else:
            found.append(f"it may run on {options.workers} only, and none of these is here")
    for name, amount in (options.resources or {}).items():
        most = max((worker.resources.get(name, 0.0) for worker in workers), default=0.0)
        if most < amount:
            found.append(f"it needs {amount:g} of the resource {name!r}, and no worker that may run it has more than {most:g}")
    return found


def _states_of(workers: list[WorkerState]) -> str:
    shown = ", ".join(f"{worker.address} is {_status(worker)}" for worker in workers[:_MOST_NAMED])
    return shown + (f" and {len(workers) - _MOST_NAMED} more" if len(workers) > _MOST_NAMED else "")


def _status(worker: WorkerState) -> str:
    return worker.status if worker.connected else "away: its connection broke, and it may come back"


def _queued(core: Transitions, task: TaskState) -> list[str]:
    state = core.state
    if task in state.suspects:
        worker = state.suspects[task]
        if worker is None:
            return ["it is to be tried with nothing beside it, and waits for its turn to have a worker for itself"]
        busy = names(list(worker.processing)[:_MOST_NAMED])
        return [f"it is to be tried with nothing beside it on {worker.address}, which first finishes {busy}"]
    candidates = task.candidates
    if candidates is not None:
        found = [f"it is ready, one of {candidates.live} that wait for one of the {len(candidates.running)} workers that may run it"]
        kept = [(worker, other) for worker, other in state.reserved.items() if worker in candidates.members]
        if kept:
            shown = ", ".join(f"{worker.address} for {other.key!r}" for worker, other in kept[:_MOST_NAMED])
            found.append(f"{len(kept)} more are kept for tasks that were executing when a worker died: {shown}")
        return found
    if state.has_capacity:
        return [f"it is ready, one of {state.queue.live}, and goes to a worker in the next turn"]
    found = [f"it is ready, one of {state.queue.live} that wait for a free thread; {len(state.running)} workers run and are busy"]
    if state.reserved:
        found.append(f"{len(state.reserved)} workers are kept for tasks that were executing when a worker died")
    return found


def _processing(core: Transitions, task: TaskState) -> list[str]:
    worker = task.processing_on
    assert worker is not None
    state = core.state
    if task in worker.long_running:
        stage = "executing there, outside of the thread pool"
    elif task in worker.executing:
        stage = "executing there"
    else:
        stage = f"one of {len(worker.processing)} tasks there"
    found = [f"it was given to {worker.address} (attempt {task.attempt}) and is {stage}"]
    if not worker.connected:
        found.append(f"the connection of that worker broke {state.now - worker.disconnected_at:.3g} s ago; it may come back")
    elif worker.status != RUNNING:
        found.append(f"that worker is {worker.status}")
    silent_s = state.now - worker.last_seen
    if worker.connected and silent_s > 10:
        found.append(f"that worker has not been heard of for {silent_s:.3g} s")
    if task in worker.taking_back:
        found.append("it was asked back, so that it can run elsewhere")
    return found
