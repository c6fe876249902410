"""Tables that were large give their memory back when most of what was in them has gone."""

from __future__ import annotations

import sys

from treadle.messages.worker_scheduler import TasksFinished
from treadle.testing.scheduler_scene import SchedulerScene

MANY = 6_000
LEFT = 100


def test_tables_shrink_when_most_tasks_are_let_go_of() -> None:
    scene = SchedulerScene(validate=False, prefetch_limit=MANY, prefetch_time_s=100.0, default_task_durations_s={"x": 0.0001})
    scene.workers("w1", nthreads=1)
    scene.client("c")
    keys = [f"x-{at}" for at in range(MANY)]
    scene.submit(" ".join(keys))
    ids = [scene.task_id(key) for key in keys]
    scene.event("w1", TasksFinished(ids, [1] * MANY, [28] * MANY, [0] * MANY, ["int"], [0.0] * MANY, [0.0001] * MANY))
    state = scene.core.state
    worker, client = next(iter(state.workers.values())), next(iter(state.clients.values()))

    def lengths() -> list[int]:
        return [len(table) for table in (state.tasks, state.by_id, worker.has_what, client.wants_what)]

    def sizes() -> list[int]:
        return [sys.getsizeof(table) for table in (state.tasks, state.by_id, worker.has_what, client.wants_what)]

    assert lengths() == [MANY] * 4
    full = sizes()
    for start in range(0, MANY - LEFT, 100):
        scene.release(*keys[start : start + 100])
    assert lengths() == [LEFT] * 4
    assert all(now < before / 4 for now, before in zip(sizes(), full, strict=True))
    scene.core.validate()
