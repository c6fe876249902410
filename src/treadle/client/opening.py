"""What a client is told when it is opened: where, how, on which loop. No I/O."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import dask
import msgspec

from treadle.comm.security import Security
from treadle.utils.loop import BackgroundLoop


def security_of(given: Any) -> Security | None:
    """What users may pass as ``security``. Raises TypeError for anything else."""
    if given is None or given is False or isinstance(given, Security):
        return given or None
    if given is True:
        return Security.temporary()
    if isinstance(given, dict):
        return Security(**given)
    raise TypeError(f"security must be a Security object, a dict of its arguments, True or None, got {type(given).__name__}")


def loop_of(cluster: Any) -> Any:
    """A cluster's loop, if it runs in another thread and is its own; None to use the one that all of this process share."""
    loop = getattr(cluster, "loop", None)
    loop = getattr(loop, "asyncio_loop", loop)
    # The shared one is counted by who uses it, so that it lives as long as its last user.
    if not isinstance(loop, asyncio.AbstractEventLoop) or isinstance(loop, BackgroundLoop):
        return None
    return loop if loop.is_running() and _in_other_thread(loop) else None


def _in_other_thread(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is not loop
    except RuntimeError:
        return True


def scheduler_of(address: Any) -> tuple[str, Any]:
    """What users may pass as ``address``: where to connect to, and the cluster object if it is one (it may have no address yet).

    Raises TypeError for anything else, RuntimeError for a cluster that is closed.
    """
    if isinstance(address, str):
        return address, None
    if isinstance(getattr(address, "scheduler_address", None), str):
        if getattr(getattr(address, "status", None), "name", "") in ("closing", "closed", "failed"):
            raise RuntimeError("Trying to connect to an already closed or closing Cluster.")
        return "", address
    if isinstance(getattr(address, "address", None), str):
        return address.address, None
    raise TypeError(f"Scheduler address must be a string or a Cluster instance, got {type(address)}")


def versions() -> dict[str, str]:
    """Of what this process runs that matters to the other parties."""
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "dask": str(dask.__version__),
        "msgspec": msgspec.__version__,
        "treadle": str(getattr(sys.modules["treadle"], "__version__", "")),
    }
