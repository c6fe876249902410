"""Work goes to who is idle: tasks that were assigned ahead of need are taken back from workers that have too much."""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.candidates import idle_candidate
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placement import TRANSFER_LATENCY_S
from treadle.scheduler.transitions.records import TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: Tasks of one worker that are looked at in one turn.
MOST_LOOKED_AT: Final = 200
#: Workers that are looked at in one turn.
MOST_VICTIMS: Final = 8


def balance(state: ClusterState, out: Outbox) -> None:
    """Ask the most recently found saturated worker to give tasks back, as many as idle threads could run at once.

    One request for each worker at a time; it answers with what had not started yet, and those tasks are placed anew.
    """
    if not state.idle or not state.saturated or state.queue.live:
        return
    free = 0
    for worker in state.idle:
        free += worker.nthreads - len(worker.processing)
        if free >= MOST_LOOKED_AT:
            break
    victims: list[WorkerState] = []
    for victim in state.saturated:
        victims.append(victim)
        if len(victims) == MOST_VICTIMS:
            break
    for victim in victims:
        if free <= 0:
            return
        # To the end of the line: the next turn looks at others.
        del state.saturated[victim]
        state.saturated[victim] = None
        if victim.taking_back:
            continue
        tasks = _spare(state, victim, free)
        if tasks:
            for task in tasks:
                victim.taking_back[task] = None
            out.take_back(victim, tasks)
            free -= len(tasks)


def _spare(state: ClusterState, victim: WorkerState, most: int) -> list[TaskState]:
    """Tasks that would start sooner elsewhere, those assigned last first."""
    bandwidth = state.limits.bandwidth_bytes_per_s
    wait = victim.occupancy / victim.nthreads
    most = min(most, (len(victim.processing) - victim.nthreads) // 2 + 1)
    blocked = len(victim.executing) >= victim.nthreads
    found: list[TaskState] = []
    looked = 0
    for task in reversed(victim.processing):
        looked += 1
        if looked > MOST_LOOKED_AT or len(found) >= most:
            break
        if task in victim.executing or task in victim.long_running or task.actor:
            continue
        if task.candidates is not None and not idle_candidate(state, task.candidates, task):
            continue
        needs = 0
        for dependency in task.dependencies:
            needs += dependency.nbytes
        cost = TRANSFER_LATENCY_S + needs / bandwidth
        # Short tasks are not worth the trip, unless nobody knows when those before them will end.
        if cost < wait and (blocked or cost < 10 * task.estimate_s):
            found.append(task)
            wait -= task.estimate_s / victim.nthreads
    return found
