"""A distributed task scheduler for dask graphs, with the interface of dask.distributed.

    from treadle import Client
    client = Client()               # starts workers on this machine
    client.submit(pow, 2, 10).result()

Names are loaded when they are first used, so that ``import treadle`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from treadle.plugins.registry import register_factory
from treadle.version import __version__ as __version__

if TYPE_CHECKING:
    from treadle.client.as_completed import as_completed as as_completed
    from treadle.client.client import Client as Client
    from treadle.client.current import default_client as default_client
    from treadle.client.futures import Future as Future
    from treadle.client.waiting import fire_and_forget as fire_and_forget
    from treadle.client.waiting import futures_of as futures_of
    from treadle.client.waiting import wait as wait
    from treadle.client.worker_client import get_client as get_client
    from treadle.client.worker_client import local_client as local_client
    from treadle.client.worker_client import worker_client as worker_client
    from treadle.comm.security import Security as Security
    from treadle.deploy.local import LocalCluster as LocalCluster
    from treadle.deploy.spec import SpecCluster as SpecCluster
    from treadle.diagnostics.progress import progress as progress
    from treadle.exceptions import CancelledError as CancelledError
    from treadle.exceptions import KilledWorker as KilledWorker
    from treadle.exceptions import Reschedule as Reschedule
    from treadle.exceptions import TimeoutError as TimeoutError
    from treadle.nanny.server import Nanny as Nanny
    from treadle.scheduler.server import Scheduler as Scheduler
    from treadle.utils.status import Status as Status
    from treadle.worker.execution import get_worker as get_worker
    from treadle.worker.execution import rejoin as rejoin
    from treadle.worker.execution import secede as secede
    from treadle.worker.server import Worker as Worker

    #: Whether the loaded cores are compiled.
    compiled: bool


_HOMES = {
    "treadle.client.as_completed": ["as_completed"],
    "treadle.client.client": ["Client"],
    "treadle.client.current": ["default_client"],
    "treadle.client.futures": ["Future"],
    "treadle.client.waiting": ["fire_and_forget", "futures_of", "wait"],
    "treadle.client.worker_client": ["get_client", "local_client", "worker_client"],
    "treadle.comm.security": ["Security"],
    "treadle.deploy.local": ["LocalCluster"],
    "treadle.deploy.spec": ["SpecCluster"],
    "treadle.diagnostics.progress": ["progress"],
    "treadle.exceptions": ["CancelledError", "KilledWorker", "Reschedule", "TimeoutError"],
    "treadle.nanny.server": ["Nanny"],
    "treadle.scheduler.server": ["Scheduler"],
    "treadle.utils.status": ["Status"],
    "treadle.worker.execution": ["get_worker", "rejoin", "secede"],
    "treadle.worker.server": ["Worker"],
}
_home_of = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CancelledError",
    "Client",
    "Future",
    "KilledWorker",
    "LocalCluster",
    "Nanny",
    "Reschedule",
    "Scheduler",
    "Security",
    "SpecCluster",
    "Status",
    "TimeoutError",
    "Worker",
    "as_completed",
    "compiled",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_worker",
    "local_client",
    "progress",
    "rejoin",
    "secede",
    "wait",
    "worker_client",
]


def __getattr__(name: str) -> Any:
    if name == "compiled":
        value: Any = import_module("treadle.utils.interpreter").is_compiled()
    elif name in _home_of:
        value = getattr(import_module(_home_of[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _local_cluster(*args: Any, **kwargs: Any) -> Any:
    """The cluster that ``Client()`` without an address starts. The client's room cannot import one."""
    return import_module("treadle.deploy.local").LocalCluster(*args, **kwargs)


def _client(*args: Any, **kwargs: Any) -> Any:
    """The client for tasks on a worker that has had no client before."""
    return import_module("treadle.client.client").Client(*args, **kwargs)


def _worker_opened(worker: Any) -> None:
    """Called by each worker when it starts: from now on its tasks may compute."""
    import_module("treadle.client.current").worker_opened(worker)


register_factory("local-cluster", _local_cluster)
register_factory("client", _client)
register_factory("worker-opened", _worker_opened)
