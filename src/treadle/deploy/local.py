"""``LocalCluster``: a scheduler and workers on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

from dask.system import CPU_COUNT

from treadle.comm.security import Security
from treadle.deploy.spec import SpecCluster
from treadle.unused_settings import take_dashboard_options
from treadle.utils.worker_resources import nprocesses_nthreads as nprocesses_nthreads  # users import it from here

_NANNY = "treadle.nanny.server.Nanny"
_WORKER = "treadle.worker.server.Worker"


class LocalCluster(SpecCluster):
    """A scheduler in this process, and workers: each in a process of its own with a nanny, or in this process too.

    n_workers, threads_per_worker
        By default, together as many threads as there are CPUs.
    processes
        False: the workers run in this process, and the cluster needs no network unless a port is asked for.
    host, scheduler_port, interface, protocol
        Where the scheduler listens; by default on 127.0.0.1 and a free port.
    silence_logs
        The lowest level that the servers in this process log; None or False leaves logging alone.
    security
        A ``Security``, or a dict of its arguments. None makes a new random secret, which clients find in ``cluster.security``.
    worker_class
        The class of the workers, or its dotted name.
    journal
        A directory for what must outlive the scheduler. After ``close``, other processes' clients wait for a cluster with the
        same journal, ``scheduler_port`` and ``security``; ``Client.shutdown`` ends it for good. See ``docs/reliability.md``.
    scheduler_kwargs, worker_kwargs
        More arguments for the scheduler, and for the workers (``memory_limit=``, ``resources=``, ``local_directory=``, ...).
    """

    def __init__(
        self,
        name: str | None = None,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool | None = None,
        loop: Any = None,
        host: str | None = None,
        scheduler_port: int | None = None,
        silence_logs: int | str | None = logging.WARN,
        asynchronous: bool = False,
        security: Security | dict[str, Any] | bool | None = None,
        protocol: str | None = None,
        interface: str | None = None,
        worker_class: Any = None,
        scheduler_kwargs: dict[str, Any] | None = None,
        journal: str | os.PathLike[str] | None = None,
        **worker_kwargs: Any,
    ) -> None:
        # Here, before the servers' loggers are silenced, and once for all servers.
        take_dashboard_options(worker_kwargs)
        scheduler_kwargs = dict(scheduler_kwargs or {})
        take_dashboard_options(scheduler_kwargs)
        _refuse_what_is_not_there(worker_kwargs)
        if processes is None:
            processes = worker_class is None or _is_nanny(worker_class)
        elif not processes and worker_class is not None and _is_nanny(worker_class):
            raise ValueError("processes=False contradicts worker_class, which starts processes; leave out one of them")
        n_workers, threads_per_worker = _sizes(n_workers, threads_per_worker, processes)
        if not processes and not scheduler_port and host is None and interface is None and protocol is None:
            protocol = "inproc"
        if host is None and interface is None and protocol != "inproc":
            host = "127.0.0.1"
        own_security = _security(security)
        listening = {"host": host, "interface": interface, "protocol": protocol, "security": own_security}
        listening = {name: value for name, value in listening.items() if value is not None}
        worker_options = {**listening, "nthreads": threads_per_worker, **worker_kwargs}
        worker: Any = {"cls": worker_class or (_NANNY if processes else _WORKER), "options": worker_options}
        if worker_class is not None and processes and not _is_nanny(worker_class):
            worker = {"cls": _NANNY, "options": {**worker_options, "worker_class": worker_class}}
        scheduler_options = {**listening, "port": scheduler_port or 0, **scheduler_kwargs}
        if journal is not None:
            scheduler_options["journal"] = journal
        super().__init__(
            {number: worker for number in range(n_workers)},
            {"cls": "treadle.scheduler.server.Scheduler", "options": scheduler_options},
            worker,
            asynchronous=asynchronous,
            loop=loop,
            security=own_security,
            silence_logs=silence_logs,
            name=name,
        )


def _sizes(n_workers: int | None, threads_per_worker: int | None, processes: bool) -> tuple[int, int]:
    """(workers, threads of each). Raises ValueError."""
    if threads_per_worker is not None and threads_per_worker < 1:
        raise ValueError(f"threads_per_worker must be 1 or more, got {threads_per_worker}")
    if n_workers is not None and n_workers < 0:
        raise ValueError(f"n_workers must be 0 or more, got {n_workers}")
    if n_workers is None and threads_per_worker is None:
        return nprocesses_nthreads(CPU_COUNT) if processes else (1, CPU_COUNT)
    if n_workers is None:
        assert threads_per_worker is not None
        return (max(1, CPU_COUNT // threads_per_worker) if processes else 1), threads_per_worker
    if threads_per_worker is None:
        threads_per_worker = max(1, CPU_COUNT // n_workers) if n_workers else 1
    return n_workers, threads_per_worker


def _is_nanny(worker_class: Any) -> bool:
    """Whether the class starts a process for its worker. Recognised by its methods, so that nothing has to be imported."""
    return worker_class == _NANNY or hasattr(worker_class, "instantiate")


def _security(security: Security | dict[str, Any] | bool | None) -> Security:
    if security is None or security is True:
        return Security.temporary()
    if isinstance(security, dict):
        return Security(**security)
    if not isinstance(security, Security):
        raise TypeError(f"security must be a Security, got {type(security).__name__}")
    return security


def _refuse_what_is_not_there(worker_kwargs: dict[str, Any]) -> None:
    """Raises NotImplementedError for an option that does not exist yet, TypeError for one that was renamed long ago."""
    for name in ("services", "worker_services", "service_kwargs", "blocked_handlers"):
        if worker_kwargs.pop(name, None):
            raise NotImplementedError(f"LocalCluster does not take {name}=")
    if worker_kwargs.pop("scheduler_sync_interval", 1) != 1:
        raise NotImplementedError("scheduler_sync_interval= has no meaning here: a cluster always shows the current state; leave it out")
    if "ip" in worker_kwargs:
        raise TypeError("LocalCluster does not take ip=; use host=")
    if "start" in worker_kwargs:
        raise TypeError("LocalCluster does not take start=: it always starts at once; leave it out")
