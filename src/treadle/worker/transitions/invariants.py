"""What must hold between turns. Scans the whole state, so it is for tests and for ``validate=True``. No I/O, no clock."""

from __future__ import annotations

from treadle.exceptions import InvariantError
from treadle.worker.transitions.records import (
    CANCELLED,
    CONSTRAINED,
    EXECUTING,
    FETCH,
    FLIGHT,
    LONG_RUNNING,
    MEMORY,
    MISSING,
    NO_ATTEMPT,
    NO_PEER,
    READY,
    STATE_NAMES,
    WAITING,
    WorkerTask,
)
from treadle.worker.transitions.state import LocalState

_ASSIGNED = (WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING)


def validate(state: LocalState) -> None:
    """Raises InvariantError, with the story of the task, when the state contradicts itself."""
    counts = [0] * len(STATE_NAMES)
    stored_bytes = 0
    held: dict[str, float] = {}
    for id, task in state.tasks.items():
        counts[task.state] += 1
        _hold(state, task, task.id == id, "its id is the one it is known under")
        _validate_assignment(state, task)
        _validate_edges(state, task)
        _validate_value(state, task)
        if task.state == MEMORY:
            stored_bytes += task.nbytes
        if task.holds is not None:
            for name, amount in task.holds:
                held[name] = held.get(name, 0.0) + amount
    if counts != state.counts:
        raise InvariantError(f"counts of states are {state.counts}, should be {counts}")
    if stored_bytes != state.stored_bytes:
        raise InvariantError(f"stored bytes are {state.stored_bytes}, should be {stored_bytes}")
    for name, amount in state.resources.items():
        if abs(state.available[name] + held.get(name, 0.0) - amount) > 1e-6:
            raise InvariantError(f"of {amount} {name}, {state.available[name]} are free and {held.get(name, 0.0)} are held")
    _validate_budget(state)
    flying = 0
    for peer in state.peers.values():
        flying += peer.flying
    if flying > state.outgoing:
        raise InvariantError(f"{flying} peers are being asked, but only {state.outgoing} requests are under way")


def _hold(state: LocalState, task: WorkerTask, condition: bool, text: str) -> None:
    if not condition:
        raise InvariantError(f"{task!r} violates an invariant: {text}; story: {state.story.of([task.id])}")


def _validate_budget(state: LocalState) -> None:
    wanted = state.requested_bytes
    if state.fetching_bytes != sum(wanted.values()) or len(wanted) > state.outgoing:
        raise InvariantError(f"{state.outgoing} requests ask for {wanted} bytes, booked are {state.fetching_bytes}")


def _validate_assignment(state: LocalState, task: WorkerTask) -> None:
    assigned = task.state in _ASSIGNED
    _hold(state, task, assigned == (task.attempt != NO_ATTEMPT), "it has an attempt iff it is assigned")
    _hold(state, task, assigned == (task.spec is not None), "it has a specification iff it is assigned")
    _hold(state, task, task.in_executor or task.holds is None, "it holds resources only while the executor has it")
    if task.state in (READY, EXECUTING, LONG_RUNNING):
        _hold(state, task, task.in_executor, "the executor has it")
    if task.state in (WAITING, CONSTRAINED):
        _hold(state, task, not task.in_executor, "the executor does not have it")
        _hold(state, task, (task.waiting_on > 0) == (task.state == WAITING), "it waits iff values are missing")


def _validate_edges(state: LocalState, task: WorkerTask) -> None:
    missing = 0
    for dependency in task.dependencies or ():
        _hold(state, task, dependency.dependents is not None and task in dependency.dependents, "its dependencies know it")
        _hold(state, task, state.tasks.get(dependency.id) is dependency, "its dependencies are known")
        missing += dependency.state != MEMORY
    _hold(state, task, task.waiting_on == missing, f"it waits for {missing} values")
    for dependent in task.dependents or ():
        _hold(state, task, dependent.attempt != NO_ATTEMPT, "its dependents are assigned")
        _hold(state, task, task in (dependent.dependencies or ()), "its dependents need it")


def _validate_value(state: LocalState, task: WorkerTask) -> None:
    remote = task.remote
    if task.state in (FETCH, FLIGHT, MISSING):
        _hold(state, task, bool(task.dependents) or (remote is not None and remote.wanted), "somebody here wants it")
    if task.state == FETCH:
        _hold(state, task, remote is not None and bool(remote.holders) and remote.peer == NO_PEER, "it has holders to ask")
    if task.state == FLIGHT:
        _hold(state, task, remote is not None and remote.peer != NO_PEER, "it is requested")
    if task.state == CANCELLED:
        flying = remote is not None and remote.peer != NO_PEER
        _hold(state, task, task.in_executor or flying, "the executor or a request holds it")
