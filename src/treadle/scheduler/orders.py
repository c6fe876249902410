"""Long operations that clients order: retire, replicate, rebalance. Each takes its steps (``policies.steps``), which the core is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from treadle.messages.scheduler_local import Retire
from treadle.scheduler.admin import Admin
from treadle.scheduler.policies.rebalancer import Rebalancing, Replication, takers
from treadle.scheduler.policies.retirement import Retirement
from treadle.scheduler.policies.sizing import idle_to_close
from treadle.scheduler.policies.steps import LOOK_S, Operation, is_here
from treadle.scheduler.queries import find_worker, worker_info
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import MEMORY, TaskState, WorkerState
from treadle.utils.keys import key_from_wire

logger = logging.getLogger(__name__)

#: How long a worker that was emptied may take to close, and after what time it is told so again.
CLOSE_S: Final = 60.0
ASK_AGAIN_S: Final = 2.0


class Orders:
    """``tell`` hands local events to the core."""

    def __init__(self, core: Transitions, admin: Admin, tell: Callable[[Any], None]) -> None:
        self._core = core
        self._admin = admin
        self._tell = tell

    async def obey(self, subject: str, options: dict[str, Any]) -> Any:
        """What a client asks for by an ``Order``: the answer as plain data. Raises ValueError, TypeError, KeyError, TimeoutError."""
        if subject == "retire_workers":
            return await self.retire(**options)
        if subject == "restart_workers":
            return await self._admin.restart_workers(**options)
        if subject == "replicate":
            return await self.replicate(**options)
        if subject == "rebalance":
            return await self.rebalance(**options)
        raise ValueError(f"the scheduler cannot {subject!r}")

    async def _carry_out(self, operation: Operation) -> None:
        """Step by step, until it is done. Raises what a step raises."""
        loop = asyncio.get_running_loop()
        while True:
            for order in operation.step(loop.time()):
                self._tell(order)
            if operation.done:
                return
            await asyncio.sleep(LOOK_S)

    # ---------------------------------------------------------------------------------------------- retire

    async def retire(
        self,
        workers: list[str] | None = None,
        names: list[Any] | None = None,
        n: int | None = None,
        close_workers: bool = True,
        memory_ratio: float | None = None,
        minimum: int = 0,
        target: int | None = None,
        timeout_s: float | None = None,
        reason: str = "retire",
        restart: bool = False,
    ) -> dict[str, Any]:
        """Have workers finish what they execute and hand their values to others, then close them: what each was, by address.

        Which: ``workers`` (addresses or names), ``names``, or those that ``idle_to_close`` says. One that cannot be emptied stays.
        Tasks that execute longer than ``timeout_s`` run elsewhere.
        """
        if workers is not None or names is not None:
            wanted = [str(name) for name in [*(workers or ()), *(names or ())]]
            chosen = [worker for name in wanted if (worker := find_worker(self._core, name)) is not None]
        else:
            ratio = 2.0 if memory_ratio is None else memory_ratio
            chosen = idle_to_close(self._core.state, n, ratio, minimum, target)
        leaving = dict.fromkeys(chosen)
        identities = {worker.address: worker_info(self._core, worker) for worker in leaving}
        if not leaving:
            return {}
        self._tell(Retire([worker.number for worker in leaving]))
        retirement = Retirement(self._core.state, leaving, timeout_s, asyncio.get_running_loop().time())
        try:
            await self._carry_out(retirement)
        except asyncio.CancelledError:
            self._tell(Retire([worker.number for worker in leaving], retiring=False))
            raise
        kept = retirement.kept
        for worker, why in kept.items():
            logger.warning("worker %s does not retire: %s", worker.address, why)
        self._tell(Retire([worker.number for worker in kept], retiring=False))
        retired = [worker for worker in leaving if worker not in kept]
        if close_workers:
            retired = await self._close(retired, reason, restart)
        return {worker.address: identities[worker.address] for worker in retired}

    async def _close(self, workers: list[WorkerState], reason: str, restart: bool) -> list[WorkerState]:
        """Have them end; those that did. One that does not, in ``CLOSE_S``, goes on to work."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked_at = -inf
        while here := [worker for worker in workers if is_here(self._core.state, worker)]:
            now = loop.time()
            if now - began > CLOSE_S:
                for worker in here:
                    logger.warning("worker %s was emptied, and does not close: it goes on", worker.address)
                self._tell(Retire([worker.number for worker in here], retiring=False))
                break
            if now - asked_at > ASK_AGAIN_S:
                # Again, because a connection that breaks may take the order with it.
                asked_at = now
                for worker in here:
                    self._admin.close_worker(worker.number, reason, restart)
            await asyncio.sleep(LOOK_S)
        return [worker for worker in workers if worker not in here]

    # ------------------------------------------------------------------------------------- replicate, rebalance

    def _tasks(self, keys: Iterable[Any] | None) -> list[TaskState]:
        tasks = self._core.tasks
        if keys is None:
            return [task for task in tasks.values() if task.state == MEMORY]
        return [task for key in keys if (task := tasks.get(key_from_wire(key))) is not None]

    def _chosen(self, workers: list[str] | None) -> list[WorkerState]:
        if workers is None:
            return takers(self._core.state)
        return list(dict.fromkeys(self._admin.find(name) for name in workers))

    async def replicate(self, keys: list[Any], n: int | None = None, workers: list[str] | None = None, branching_factor: int = 2) -> None:
        """Have copies of these on ``n`` of those workers, all of them by default."""
        chosen = self._chosen(workers)
        count = len(chosen) if n is None else n
        if count < 1 or branching_factor < 1:
            raise ValueError("replicate makes at least one copy (n), and a holder serves at least one (branching_factor)")
        now = asyncio.get_running_loop().time()
        await self._carry_out(Replication(self._core.state, self._tasks(keys), count, chosen, branching_factor, now))

    async def rebalance(self, keys: list[Any] | None = None, workers: list[str] | None = None) -> None:
        """Move values so that the workers have about the same number of bytes. KeyError: some were lost, or could not be moved."""
        if keys is not None:
            lost = [key for key in keys if (task := self._core.tasks.get(key_from_wire(key))) is None or task.state != MEMORY]
            if lost:
                raise KeyError(f"not in memory: {lost}")
        now = asyncio.get_running_loop().time()
        await self._carry_out(Rebalancing(self._core.state, self._tasks(keys), self._chosen(workers), now))
