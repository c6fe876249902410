"""Forget all tasks at once, as a restart does."""

from __future__ import annotations

from treadle.scheduler.transitions import quarantine
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.queue import TaskQueue
from treadle.scheduler.transitions.records import FORGOTTEN, NO_CLIENTS, NO_TASKS, NO_WORKERS, ClientState, WorkerState
from treadle.scheduler.transitions.rules.forgotten import drop_function, forget_group
from treadle.scheduler.transitions.state import ClusterState


def forget_everything(state: ClusterState, out: Outbox) -> None:
    """All tasks are gone: workers are told to drop them, nobody wants any. Says nothing to clients."""
    for task, recipients in state.replicating.items():
        for worker in recipients:
            worker.receiving.pop(task, None)
            out.drop_id(task.id, worker)
    quarantine.forget_all(state)
    for worker in state.workers.values():
        for task in worker.has_what:
            out.drop(task, worker)
        for task in worker.processing:
            out.abandon(task, worker)
        _empty_worker(state, worker)
    for client in state.clients.values():
        _empty_client(client)
    _empty_client(state.fire_and_forget)
    state.published.clear()
    for task in state.tasks.values():
        state.story.note(task.key, task.state, FORGOTTEN)
        state.counts[task.state] -= 1
        state.counts[FORGOTTEN] += 1
        task.group.alive -= 1
        task.state = FORGOTTEN
        task.dependencies = NO_TASKS
        task.dependents = NO_TASKS
        task.live_dependents = 0
        task.waiters = 0
        task.later_dependents = 0
        task.who_wants = NO_CLIENTS
        task.who_has = NO_WORKERS
        task.processing_on = None
        task.payload = None
        task.buffers = None
        if task.function is not None:
            task.function.ntasks -= 1
    state.tasks.clear()
    state.by_id.clear()
    state.renamed.clear()
    state.former_ids.clear()
    for group in list(state.groups.values()):
        forget_group(state, group)
    state.unrunnable.clear()
    state.placeable.clear()
    state.announcements.clear()
    state.recovery.forget_all(state, out)
    state.queue = TaskQueue(state.turn_clock)
    state.queues.clear()
    state.to_serve.clear()
    for candidates in state.candidates.values():
        candidates.live = 0
    state.total_nbytes = 0
    state.todo_tasks.clear()
    state.todo_finish.clear()
    for function in list(state.functions.values()):
        if function.ntasks == 0 and not function.held:
            drop_function(state, function, out)


def _empty_worker(state: ClusterState, worker: WorkerState) -> None:
    worker.processing.clear()
    worker.executing.clear()
    worker.long_running.clear()
    worker.taking_back.clear()
    worker.occupancy = 0.0
    worker.has_what.clear()
    worker.nbytes = 0
    worker.announced.clear()
    worker.actors.clear()
    worker.waiting_lines.clear()
    for name in worker.used_resources:
        worker.used_resources[name] = 0.0
    state.touch(worker)


def _empty_client(client: ClientState) -> None:
    client.wants_what.clear()
    client.aliases.clear()
    client.alias_ids.clear()
    client.expecting.clear()
