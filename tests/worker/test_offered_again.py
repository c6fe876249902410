"""A task that is given back and comes again, while its old row is still in the queue."""

from __future__ import annotations

import asyncio
import pickle

from treadle.messages.local import Execute
from treadle.worker.calling import FunctionTable
from treadle.worker.data.store import Store
from treadle.worker.execution import ThreadPool


def spec_of(id: int) -> Execute:
    return Execute(id, f"abs-{id}", 1, 7, pickle.dumps((-id,)), (0.0, 1.0, 3))


def test_a_task_taken_back_and_offered_again_runs_once() -> None:
    async def scene() -> None:
        functions = FunctionTable()
        functions.learn([7], [pickle.dumps(abs)])
        outcomes: list[object] = []
        pool = ThreadPool(1, asyncio.get_running_loop(), outcomes.extend, functions, Store({}), None)
        pool.pause()
        pool.offer([spec_of(1), spec_of(2)])
        assert pool.take_back(1)
        # Equal in priority and id to the row that is still in the queue.
        pool.offer([spec_of(1)])
        pool.resume()
        async with asyncio.timeout(30):
            while len(outcomes) < 2:
                await asyncio.sleep(0.001)
            assert await pool.close(10)
        assert len(outcomes) == 2

    asyncio.run(scene())
