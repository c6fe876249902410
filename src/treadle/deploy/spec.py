"""``SpecCluster``: a scheduler and workers made from specifications, all objects on the cluster's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import weakref
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from treadle.comm.security import Security
from treadle.deploy.cluster import Cluster
from treadle.unused_settings import take_dashboard_options
from treadle.utils.background import Background
from treadle.utils.starts import MOST_STARTS, WITHIN_S, Starts
from treadle.utils.status import Status

logger = logging.getLogger(__name__)

#: Seconds for the tasks of a worker that is scaled away to finish; longer tasks run again elsewhere.
_RETIRE_TIMEOUT_S = 30.0

#: ``{"cls": class or dotted name, "options": keyword arguments}``
Spec = Mapping[str, Any]


class SpecCluster(Cluster):
    """A cluster made from specifications: ``scheduler``, ``workers`` (by name), and ``worker`` for those that ``scale`` adds.

    ``cls`` of a worker is called with the scheduler's address, ``name=`` and the options. The object is awaited to start it, and
    has ``close``, ``finished`` and ``status``.
    """

    def __init__(
        self,
        workers: Mapping[Any, Spec] | None = None,
        scheduler: Spec | None = None,
        worker: Spec | None = None,
        *,
        asynchronous: bool = False,
        loop: Any = None,
        security: Security | None = None,
        silence_logs: int | str | None = None,
        name: str | None = None,
        **dashboard_options: Any,
    ) -> None:
        take_dashboard_options(dashboard_options)
        if dashboard_options:
            raise TypeError(f"SpecCluster has no option {', '.join(sorted(dashboard_options))}")
        self.scheduler_spec: dict[str, Any] = dict(scheduler or {"cls": "treadle.scheduler.server.Scheduler", "options": {}})
        self.worker_spec: dict[Any, Spec] = copy.copy(dict(workers or {}))
        self.new_spec = worker
        self.scheduler: Any = None
        #: The running workers (or their nannies), by name. ``_follow_spec`` makes them match ``worker_spec``.
        self.workers: dict[Any, Any] = {}
        self._next_name = 0
        self._reconciling: asyncio.Lock | None = None
        self._background = Background("cluster")
        #: By name: the starts of workers that followed one that failed by a bug of treadle.
        self._starts: dict[Any, Starts] = {}
        self._unsilence = _silence(silence_logs)
        super().__init__(name=name, asynchronous=asynchronous, loop=loop, security=security)
        if not asynchronous:
            try:
                self._loop_runner.sync(self._ensure_started)
            except BaseException:
                self._loop_runner.stop()
                raise

    # ------------------------------------------------------------------------------------------ start and close

    async def _start(self) -> None:
        self._reconciling = asyncio.Lock()
        scheduler_class = _resolve(self.scheduler_spec["cls"])
        self.scheduler = scheduler_class(**self.scheduler_spec.get("options", {}))
        await self.scheduler
        await self._follow_spec()

    async def _close(self, timeout_s: float) -> None:
        self._background.cancel()
        workers, self.workers = list(self.workers.values()), {}
        try:
            outcomes = await asyncio.gather(*(_close_worker(worker, timeout_s) for worker in workers), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    logger.warning("A worker of %s did not close in good order: %s", self.name, outcome)
            if self.scheduler is not None:
                await self.scheduler.close()
        finally:
            self._unsilence()

    # ------------------------------------------------------------------------------------------ scaling

    @property
    def plan(self) -> set[Any]:
        """Names of the workers that the cluster is meant to have."""
        return set(self.worker_spec)

    @property
    def requested(self) -> set[Any]:
        """Names of the workers that were started."""
        return set(self.workers)

    def scale(self, n: int) -> Any:
        """Start or stop workers until there are ``n``. Returns at once (``wait_for_workers`` waits); the awaitable of an asynchronous
        cluster waits itself."""
        if n < 0:
            raise ValueError(f"a cluster cannot have {n} workers; n must be 0 or more")
        return self._respec(self._scale_spec, n)

    def scale_up(self, n: int) -> Any:
        """Start workers until there are at least ``n``."""
        return self._respec(self._scale_spec, max(n, len(self.worker_spec)))

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Stop the workers with these names."""
        return self._respec(self._drop_from_spec, list(workers))

    def _respec(self, change: Any, argument: Any) -> Any:
        if self.status not in (Status.starting, Status.running):
            raise RuntimeError(f"this cluster cannot be scaled: it is {self.status.value}")
        if self.asynchronous:
            change(argument)
            return _Scaling(asyncio.ensure_future(self._follow_spec_or_log()))

        async def change_and_follow() -> None:
            change(argument)
            self._background.spawn("scaling", self._follow_spec())

        self._loop_runner.sync(change_and_follow)
        return None

    def _scale_spec(self, n: int) -> None:
        while len(self.worker_spec) > n:
            # Workers that are not running yet are dropped first, then the youngest.
            idle = [name for name in self.worker_spec if name not in self.workers]
            del self.worker_spec[idle[-1] if idle else next(reversed(self.worker_spec))]
        while len(self.worker_spec) < n:
            self.worker_spec.update(self.new_worker_spec())

    def _drop_from_spec(self, names: list[Any]) -> None:
        for name in names:
            self.worker_spec.pop(name, None)

    def new_worker_spec(self) -> dict[Any, Spec]:
        """The specification of one more worker, by its name."""
        if self.new_spec is None:
            raise ValueError("this cluster cannot grow: it was made without worker=, the specification of workers to add")
        while self._next_name in self.worker_spec or self._next_name in self.workers:
            self._next_name += 1
        name, self._next_name = self._next_name, self._next_name + 1
        return {name: self.new_spec}

    async def _follow_spec_or_log(self) -> None:
        try:
            await self._follow_spec()
        except Exception as error:
            logger.error("%s could not be scaled: %s", self.name, error)
            raise

    async def _follow_spec(self) -> None:
        """Stop the workers that are no longer in ``worker_spec``, and start the missing ones, all at the same time.

        Raises the error of a worker that did not start, and removes that worker from ``worker_spec``.
        """
        assert self._reconciling is not None
        async with self._reconciling:
            leaving = [name for name in self.workers if name not in self.worker_spec]
            await self._retire(leaving)
            surplus = [self.workers.pop(name) for name in leaving if name in self.workers and name not in self.worker_spec]
            missing = {name: spec for name, spec in self.worker_spec.items() if name not in self.workers}
            starting = {name: self._make_worker(name, spec) for name, spec in missing.items()}
            self.workers.update(starting)
            outcomes = await asyncio.gather(
                *(_start_worker(worker) for worker in starting.values()),
                *(_close_worker(worker, 10.0) for worker in surplus),
                return_exceptions=True,
            )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for (name, worker), outcome in zip(starting.items(), outcomes, strict=False):
            if isinstance(outcome, BaseException):
                self._gone(name, worker)
            else:
                self._background.spawn(f"watcher of worker {name}", _watch(weakref.ref(self), name, worker))
        if failures:
            raise failures[0]

    async def _retire(self, names: list[Any]) -> None:
        """Give workers some time to finish their tasks and hand over their values. Those that cannot are closed all the same."""
        if names and hasattr(self.scheduler, "retire_workers"):
            await self.scheduler.retire_workers(names=[str(name) for name in names], close_workers=False, timeout_s=_RETIRE_TIMEOUT_S)

    def _make_worker(self, name: Any, spec: Spec) -> Any:
        options = {"name": name, "security": self.security, **spec.get("options", {})}
        worker = _resolve(spec["cls"])(self.scheduler_address, **options)
        if hasattr(worker, "restart_requested") and hasattr(self.scheduler, "replaced_names"):
            self.scheduler.replaced_names.add(str(options["name"]))
        return worker

    def _gone(self, name: Any, worker: Any) -> None:
        """A worker has ended by itself. If it was told to restart, another takes its place; else the cluster shrinks by one."""
        if self.workers.get(name) is not worker:
            return
        del self.workers[name]
        replaced = name in self.worker_spec and getattr(worker, "restart_requested", False) and self.status is Status.running
        failure = getattr(worker, "failure", None)
        if replaced and failure is not None:
            replaced = self._starts.setdefault(name, Starts()).another(asyncio.get_running_loop().time())
            if not replaced:
                times = MOST_STARTS + 1
                logger.critical("worker %s is not replaced, because it failed %d times within %g s: %s", name, times, WITHIN_S, failure)
        if replaced:
            self._background.spawn(f"replacing worker {name}", self._follow_spec())
            return
        self.worker_spec.pop(name, None)
        if hasattr(self.scheduler, "replaced_names"):
            self.scheduler.replaced_names.discard(str(name))

    # ------------------------------------------------------------------------------------------ what it is

    @property
    def scheduler_address(self) -> str:
        try:
            return str(self.scheduler.address) if self.scheduler is not None else ""
        except ValueError:  # the scheduler has no address before it is started
            return ""

    @property
    def scheduler_info(self) -> dict[str, Any]:
        if self.status is not Status.running:
            return {"type": "Scheduler", "workers": {}}
        info: dict[str, Any] = self._identity() if self.asynchronous else self._loop_runner.sync(self._identity)
        return info

    def _identity(self) -> Any:
        return self.scheduler.identity()

    def _n_workers(self) -> int:
        return 0 if self.scheduler is None else len(self.scheduler.workers)

    def __repr__(self) -> str:
        address = self.scheduler_address or "no scheduler"
        return f"<{type(self).__name__} {self.name!r}: {address}, workers: {len(self.workers)}, status: {self.status.value}>"


class _Scaling:
    """What an asynchronous ``scale`` returns: the scaling goes on by itself, and may be awaited."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # so that an exception nobody awaits is not reported

    def __await__(self) -> Any:
        return asyncio.shield(self._task).__await__()


def _resolve(cls: Any) -> Any:
    """The class itself, or the class with that dotted name. Raises ImportError, AttributeError."""
    if isinstance(cls, str):
        module, _, name = cls.rpartition(".")
        return getattr(import_module(module), name)
    return cls


async def _watch(cluster: weakref.ref[SpecCluster], name: Any, worker: Any) -> None:
    """Tell the cluster when a worker closes by itself (the scheduler retired it, or is gone).

    The weak reference does not keep the cluster alive, so that an unclosed cluster is noticed when nobody refers to it any more.
    """
    await worker.finished()
    if (alive := cluster()) is not None:
        alive._gone(name, worker)


async def _start_worker(worker: Any) -> None:
    await worker


async def _close_worker(worker: Any, timeout_s: float) -> None:
    await worker.close(timeout=timeout_s)


def _silence(level: int | str | None) -> Any:
    """Let the servers in this process log only from ``level`` on; returns a function that undoes this."""
    if not level:
        return lambda: None
    log = logging.getLogger("treadle")
    before = log.level
    with contextlib.suppress(ValueError):
        number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
        log.setLevel(max(number, log.getEffectiveLevel()))
    return lambda: log.setLevel(before)
