"""Long operations on workers and their data: retire, restart, replicate, rebalance. Policies plan, the core is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from treadle.messages.scheduler_local import DropReplicas, ReplicateKeys, Retire
from treadle.scheduler.admin import Admin
from treadle.scheduler.policies import moving
from treadle.scheduler.queries import find_worker, worker_info
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import MEMORY, TaskState, WorkerState
from treadle.utils.keys import key_from_wire

logger = logging.getLogger(__name__)

#: How long a worker that was emptied may take to close, and after what time it is told so again.
CLOSE_S: Final = 60.0
ASK_AGAIN_S: Final = 2.0
#: Between two looks at how far something is.
LOOK_S: Final = 0.02
#: Copies that do not come for so long are given up.
NO_PROGRESS_S: Final = 30.0


class Mover:
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
            return await self.restart(**options)
        if subject == "replicate":
            return await self.replicate(**options)
        if subject == "rebalance":
            return await self.rebalance(**options)
        raise ValueError(f"the scheduler cannot {subject!r}")

    def _worker(self, name: Any) -> WorkerState:
        worker = find_worker(self._core, str(name))
        if worker is None:
            known = ", ".join(self._core.workers) or "none at all"
            raise ValueError(f"there is no worker {name!r}; there are {known}")
        return worker

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
            chosen = moving.idle_to_close(self._core.state, n, ratio, minimum, target)
        leaving = dict.fromkeys(chosen)
        identities = {worker.address: worker_info(self._core, worker) for worker in leaving}
        if not leaving:
            return {}
        self._tell(Retire([worker.number for worker in leaving]))
        try:
            kept = await self._empty(list(leaving), timeout_s)
        except asyncio.CancelledError:
            self._tell(Retire([worker.number for worker in leaving], retiring=False))
            raise
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
        while here := [worker for worker in workers if self._is_here(worker)]:
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

    def _is_here(self, worker: WorkerState) -> bool:
        return self._core.state.by_number.get(worker.number) is worker

    async def _empty(self, leaving: list[WorkerState], timeout_s: float | None) -> dict[WorkerState, str]:
        """Until they have nothing that would be lost; those that cannot be emptied, and why."""
        state = self._core.state
        loop = asyncio.get_running_loop()
        started = moved_at = loop.time()
        kept: dict[WorkerState, str] = {}
        before = -1
        while True:
            began = loop.time()
            here = {worker: None for worker in leaving if self._is_here(worker) and worker not in kept}
            overdue = timeout_s is not None and loop.time() - started > timeout_s
            if all((overdue and _is_stripped(worker, here)) or moving.is_empty(worker, here) for worker in here):
                return kept
            moves, stuck = moving.plan_retirement(state, here)
            for recipient, ids in moves:
                self._tell(ReplicateKeys(recipient, ids))
            if stuck:
                kept.update(stuck)
                continue
            left = sum(len(worker.has_what) for worker in here) + len(state.replicating)
            working = any(worker.processing for worker in here) and not overdue
            if left != before or moves or working:
                before, moved_at = left, loop.time()
            elif loop.time() - moved_at > NO_PROGRESS_S:
                kept.update({worker: "its values could not be copied" for worker in here if not _is_stripped(worker, here)})
                continue
            # A look at very many values takes its time; others need the loop, too.
            await asyncio.sleep(max(LOOK_S, 4 * (loop.time() - began)))

    # --------------------------------------------------------------------------------------------- restart

    async def restart(self, workers: list[str], timeout_s: float, raise_for_error: bool = True) -> dict[str, str]:
        """End these workers' processes and start others: ``"OK"``, ``"removed"`` or ``"timed out"`` for each name that was given."""
        chosen = {name: self._worker(name) for name in workers}
        for name, worker in chosen.items():
            if not self._admin.is_replaced(worker):
                raise ValueError(f"the worker {name!r} has no nanny that could restart it")
        outcomes = await asyncio.gather(*(self._admin.restart_worker(worker, timeout_s) for worker in chosen.values()))
        results = dict(zip(chosen, outcomes, strict=True))
        late = [name for name, outcome in results.items() if outcome == "timed out"]
        if late and raise_for_error:
            raise TimeoutError(f"{len(late)} of {len(results)} workers did not restart within {timeout_s:g} s: {', '.join(late)}")
        return results

    # ------------------------------------------------------------------------------------- replicate, rebalance

    def _tasks(self, keys: Iterable[Any] | None) -> list[TaskState]:
        tasks = self._core.tasks
        if keys is None:
            return [task for task in tasks.values() if task.state == MEMORY]
        return [task for key in keys if (task := tasks.get(key_from_wire(key))) is not None]

    def _chosen(self, workers: list[str] | None) -> list[WorkerState]:
        if workers is None:
            return moving.takers(self._core.state)
        return list(dict.fromkeys(self._worker(name) for name in workers))

    async def replicate(self, keys: list[Any], n: int | None = None, workers: list[str] | None = None, branching_factor: int = 2) -> None:
        """Have copies of these on ``n`` of those workers, all of them by default."""
        chosen = self._chosen(workers)
        count = len(chosen) if n is None else n
        if count < 1 or branching_factor < 1:
            raise ValueError("replicate makes at least one copy (n), and a holder serves at least one (branching_factor)")
        loop = asyncio.get_running_loop()
        before, moved_at = -1, loop.time()
        while True:
            tasks = self._tasks(keys)
            here = [worker for worker in chosen if self._is_here(worker)]
            moves, missing = moving.plan_replication(self._core.state, tasks, count, here, branching_factor)
            if not missing:
                return
            for recipient, ids in moves:
                self._tell(ReplicateKeys(recipient, ids))
            if moves or missing != before:
                before, moved_at = missing, loop.time()
            elif loop.time() - moved_at > NO_PROGRESS_S:
                raise TimeoutError(f"{missing} copies did not come within {NO_PROGRESS_S:g} s")
            await asyncio.sleep(LOOK_S)

    async def rebalance(self, keys: list[Any] | None = None, workers: list[str] | None = None) -> None:
        """Move values so that the workers have about the same number of bytes. KeyError: some were lost, or could not be moved."""
        if keys is not None:
            lost = [key for key in keys if (task := self._core.tasks.get(key_from_wire(key))) is None or task.state != MEMORY]
            if lost:
                raise KeyError(f"not in memory: {lost}")
        shifts = moving.plan_rebalance(self._tasks(keys), self._chosen(workers))
        orders: dict[int, list[int]] = {}
        for task, _sender, recipient in shifts:
            orders.setdefault(recipient.number, []).append(task.id)
        for number, ids in orders.items():
            self._tell(ReplicateKeys(number, ids))
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while shifts:
            # What nobody wants any more need not move.
            waiting = [shift for shift in shifts if shift[0].state == MEMORY and shift[2] not in shift[0].who_has]
            waiting = [shift for shift in waiting if self._is_here(shift[2])]
            drops: dict[int, list[int]] = {}
            for task, sender, recipient in shifts:
                if task.state == MEMORY and recipient in task.who_has:
                    drops.setdefault(sender.number, []).append(task.id)
            for number, ids in drops.items():
                self._tell(DropReplicas(number, ids))
            if len(waiting) != len(shifts):
                shifts, moved_at = waiting, loop.time()
            elif loop.time() - moved_at > NO_PROGRESS_S:
                raise KeyError(f"could not be moved: {[task.key for task, _, _ in shifts]}")
            else:
                await asyncio.sleep(LOOK_S)


def _is_stripped(worker: WorkerState, leaving: Any) -> bool:
    """Whether others have its values, whatever it still executes."""
    return all(any(holder not in leaving for holder in task.who_has) for task in worker.has_what)
