"""Rules that bring a task to memory: its value is on a worker."""

from __future__ import annotations

from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import MEMORY, PROCESSING, RELEASED, WAITING, TaskState, WorkerState, is_needed
from treadle.scheduler.transitions.rules.common import add_replica, move
from treadle.scheduler.transitions.state import ClusterState


def to_memory(
    state: ClusterState, task: TaskState, worker: WorkerState, nbytes: int, type_name: str, out: Outbox, value: bytes = b""
) -> None:
    """``worker`` made the value, or was given it by a client. ``nbytes`` is its size in bytes.

    ``value``: its pickle, for those who want it at once.
    """
    move(state, task, MEMORY, out)
    task.nbytes = nbytes
    task.type_name = type_name
    add_replica(state, task, worker)
    if state.recorder is not None:
        state.recorder.in_memory(task, worker)
    if task.suspicious > 0:
        # It can be done without killing anybody.
        task.suspicious = 0
        state.deaths.pop(task, None)
    if task.actor:
        worker.actors[task] = None
    if task.live_dependents > 0:
        for dependent in task.dependents:
            if dependent.state == WAITING:
                dependent.waiting_on -= 1
                if dependent.waiting_on == 0:
                    state.recommend(dependent, PROCESSING)
    if task.who_wants:
        out.in_memory(task, worker, value)
        forget_fire_and_forget(state, task)
    if not is_needed(task):
        state.recommend(task, RELEASED)


def forget_fire_and_forget(state: ClusterState, task: TaskState) -> None:
    """What was only to be done is done."""
    virtual = state.fire_and_forget
    if virtual.wants_what and task in virtual.wants_what:
        del virtual.wants_what[task]
        task.who_wants = [client for client in task.who_wants if client is not virtual]
