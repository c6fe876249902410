"""What the operating system says of a worker process: whether it is stopped, how much memory it uses, why it was killed."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import psutil
from dask.utils import format_bytes

#: A process that was killed above this share of its memory limit is assumed to have run out of memory.
NEAR_LIMIT = 0.95


@dataclass(frozen=True)
class ProcessSight:
    """A process at one moment. ``stopped``: by SIGSTOP or a similar signal, so that it runs no code at all; not by a debugger."""

    stopped: bool
    rss_bytes: int


def look_at(pid: int) -> ProcessSight | None:
    """The process as it is now; None when it does not exist."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            stopped = process.status() == psutil.STATUS_STOPPED and not is_traced(pid)
            return ProcessSight(stopped, process.memory_info().rss)
    except psutil.Error:
        return None


def is_traced(pid: int) -> bool:
    """Whether a debugger is attached to the process; False where the system does not say."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            return any(line.startswith(b"TracerPid:") and line.split()[1] != b"0" for line in status)
    except OSError:
        return False


class StoppedWatch:
    """Measures how long a worker process has been stopped while its nanny was not. Fed about every ``period_s`` seconds."""

    def __init__(self, limit_s: float | None, period_s: float) -> None:
        self._limit_s = limit_s
        #: If two looks are further apart, the nanny or the machine was stopped as well in between.
        self._gap_s = 2 * period_s + 1.0
        self._last = 0.0
        self._since: float | None = None

    def is_over(self, stopped: bool, now: float) -> bool:
        """Whether the process has been stopped for too long; then the count begins anew. ``stopped``: whether it is at ``now``."""
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
    """Why a process, not killed by its nanny, is assumed to have been killed for want of memory; empty if it is not.

    ``last_rss_bytes``: its memory at the last look, 0 if there was none. ``memory_limit``: in bytes, 0 for none.
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
