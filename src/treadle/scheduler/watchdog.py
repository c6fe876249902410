"""Names tasks that make no progress, and why. Looks at a bounded number of tasks at a time; nothing of it is in the way of events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Final

from treadle.scheduler.admin import Admin
from treadle.scheduler.explaining import reasons
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import NO_WORKER, PROCESSING, QUEUED, WAITING, TaskState, WorkerState

logger = logging.getLogger(__name__)

#: Tasks without a worker, workers, and tasks of each worker that are looked at in one go.
_MOST_TASKS: Final = 100
_MOST_WORKERS: Final = 100
_MOST_OF_A_WORKER: Final = 10
#: For a worker to answer.
_ANSWER_S: Final = 10.0


class Watchdog:
    """What waits always waits, in the end, for a task that has no worker, is queued, or was given to a worker: only these are looked at."""

    def __init__(self, core: Transitions, admin: Admin, stuck_after_s: float) -> None:
        self._core = core
        self._admin = admin
        self._stuck_after_s = stuck_after_s
        #: Tasks seen where they are: (state, attempt), and since when; in the order in which they were looked at.
        self._seen: dict[TaskState, tuple[int, int, float]] = {}
        self._named: dict[TaskState, None] = {}
        #: Number of the worker that was looked at last.
        self._last_worker = 0

    async def look(self, now: float) -> None:
        """One look. ``now``: on the clock of the event loop."""
        seen = self._seen
        for task in [task for task, mark in seen.items() if (task.state, task.attempt) != mark[:2]]:
            del seen[task]
            self._named.pop(task, None)
        for task in list(self._candidates()):
            mark = seen.get(task)
            if mark is None:
                seen[task] = (task.state, task.attempt, now)
            elif now - mark[2] >= self._stuck_after_s and task not in self._named:
                await self._examine(task, now - mark[2])
        self._look_for_contradictions()

    def _candidates(self) -> Iterator[TaskState]:
        state = self._core.state
        yield from islice(state.unrunnable, _MOST_TASKS)
        yield from islice(state.suspects, _MOST_TASKS)
        for queue in islice(state.queues.values(), _MOST_TASKS):
            first = queue.peek()
            if first is not None:
                yield first
        if state.has_capacity:
            first = state.queue.peek()
            if first is not None:
                yield first
        for worker in self._next_workers():
            yield from islice(worker.processing, _MOST_OF_A_WORKER)

    def _next_workers(self) -> list[WorkerState]:
        """Others each time, until all have had their turn."""
        numbers = sorted(self._core.state.by_number)
        if len(numbers) > _MOST_WORKERS:
            later = [number for number in numbers if number > self._last_worker]
            numbers = (later + numbers)[:_MOST_WORKERS]
            self._last_worker = numbers[-1]
        return [self._core.state.by_number[number] for number in numbers]

    async def _examine(self, task: TaskState, seconds: float) -> None:
        why: list[str] | None
        if task.state == PROCESSING:
            why = await self._ask_worker(task)
        elif task.state in (NO_WORKER, QUEUED):
            why = reasons(self._core, task)
        else:
            why = None
        if why is not None:
            self._named[task] = None
            logger.warning("the task %r makes no progress for %.3g s: %s", task.key, seconds, "; ".join(why))

    async def _ask_worker(self, task: TaskState) -> list[str] | None:
        """Why a task that was given to a worker does not get on; None when it does."""
        worker, attempt = task.processing_on, task.attempt
        assert worker is not None
        found = reasons(self._core, task)
        if not worker.connected:
            return found
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._admin.ask_worker(worker, task.id)
        except TimeoutError:
            return [*found, f"the worker does not answer within {_ANSWER_S:g} s: something holds its interpreter, or it is stopped"]
        except ConnectionError as error:
            return [*found, f"the worker could not be asked: {error}"]
        if task.state != PROCESSING or task.attempt != attempt or answer.executing_s is not None:
            # It has gone on meanwhile, or it executes, which may take as long as it likes.
            return None
        if answer.state == "ready" and len(worker.processing) > worker.nthreads:
            # It stands behind others that do execute.
            return None
        return [*found, *answer.reasons]

    def _look_for_contradictions(self) -> None:
        """Tasks that wait for others while nothing at all is to be done would wait for ever."""
        state = self._core.state
        counts = state.counts
        if counts[WAITING] and not counts[NO_WORKER] + counts[QUEUED] + counts[PROCESSING] and not state.todo_tasks:
            for task in state.tasks.values():
                if task.state == WAITING and task not in self._named:
                    self._named[task] = None
                    self._seen[task] = (task.state, task.attempt, 0.0)
                    logger.error("the task %r waits for nothing that is under way; its story: %s", task.key, self._core.story(task.key))
                    return
