"""What the operating system knows of a worker process: whether it was stopped, how much memory it has, why it was killed."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import psutil
from dask.utils import format_bytes

#: Share of its limit over which a process that was killed is taken to have run out of memory.
NEAR_LIMIT = 0.95


@dataclass(frozen=True)
class ProcessSight:
    """How a process looks at one moment. ``stopped``: by SIGSTOP or its like, so that it runs no code at all."""

    stopped: bool
    rss_bytes: int


def look_at(pid: int) -> ProcessSight | None:
    """None when there is no such process."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            # A process under a debugger is in "tracing stop", which is not meant here.
            return ProcessSight(process.status() == psutil.STATUS_STOPPED, process.memory_info().rss)
    except psutil.Error:
        return None


def why_out_of_memory(exitcode: int, killed_by_kernel: bool, last_rss_bytes: int, memory_limit: int) -> str:
    """Why a process that its nanny did not kill is taken to have been killed for want of memory; empty if it is not.

    ``last_rss_bytes``: what it had when it was last looked at, 0 if it never was. ``memory_limit``: its own, 0 for none.
    """
    if exitcode != -signal.SIGKILL:
        return ""
    seen = f"last seen with {format_bytes(last_rss_bytes)}" if last_rss_bytes else "never seen alive"
    if killed_by_kernel:
        limit = f"its memory limit is {format_bytes(memory_limit)}" if memory_limit else "it has no memory limit"
        return f"the kernel's out-of-memory killer ended it; it was {seen}, {limit}"
    if memory_limit > 0 and last_rss_bytes >= NEAR_LIMIT * memory_limit:
        return f"it was {seen}, over {NEAR_LIMIT:.0%} of its memory limit of {format_bytes(memory_limit)}"
    return ""
