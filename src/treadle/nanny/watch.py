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
    """How a process looks at one moment. ``stopped``: by SIGSTOP or its like, so that it runs no code at all; not by a debugger."""

    stopped: bool
    rss_bytes: int


def look_at(pid: int) -> ProcessSight | None:
    """None when there is no such process."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            stopped = process.status() == psutil.STATUS_STOPPED and not is_traced(pid)
            return ProcessSight(stopped, process.memory_info().rss)
    except psutil.Error:
        return None


def is_traced(pid: int) -> bool:
    """Whether a debugger has attached to it; False where that cannot be seen."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            return any(line.startswith(b"TracerPid:") and line.split()[1] != b"0" for line in status)
    except OSError:
        return False


class StoppedWatch:
    """For how long a worker process has been stopped while its nanny was not. Looked at every ``period_s`` or so."""

    def __init__(self, limit_s: float | None, period_s: float) -> None:
        self._limit_s = limit_s
        #: Between two looks that are so far apart the nanny was stopped as well, or its machine.
        self._gap_s = 2 * period_s + 1.0
        self._last = 0.0
        self._since: float | None = None

    def is_over(self, stopped: bool, now: float) -> bool:
        """``stopped``: how the process looks at the time ``now``. Whether it has been so for too long; then the count begins anew."""
        slept = now - self._last > self._gap_s
        self._last = now
        if not stopped:
            self._since = None
        elif self._since is None or slept:
            self._since = now
        elif self._limit_s is not None and now - self._since >= self._limit_s:
            self._since = None
            return True
        return False


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
