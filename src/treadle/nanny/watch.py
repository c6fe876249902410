"""What the operating system knows of a worker process: whether it was stopped, how much memory it has, whether it ran out of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Share of its limit over which a process that was killed is taken to have run out of memory.
NEAR_LIMIT = 0.95
_CGROUP = Path("/sys/fs/cgroup")
_VMSTAT = Path("/proc/vmstat")


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


def count_oom_kills() -> int:
    """How often the system has killed a process for want of memory, as far as can be known here."""
    found = _counter(_VMSTAT, "oom_kill")
    for name in ("memory.events", "memory/memory.oom_control"):
        found += _counter(_CGROUP / name, "oom_kill")
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in groups:
        _number, controllers, path = line.split(":", 2)
        if path != "/" and controllers == "":
            found += _counter(_CGROUP / path[1:] / "memory.events", "oom_kill")
        elif path != "/" and "memory" in controllers.split(","):
            found += _counter(_CGROUP / "memory" / path[1:] / "memory.oom_control", "oom_kill")
    return found


def _counter(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        word, _, value = line.partition(" ")
        if word == name and value.strip().isdigit():
            return int(value)
    return 0


def was_out_of_memory(exitcode: int, new_oom_kills: int, last_rss_bytes: int, memory_limit: int) -> bool:
    """Whether a process that ended like that was killed for want of memory. ``memory_limit``: its own, 0 for none."""
    if exitcode != -signal.SIGKILL:
        return False
    return new_oom_kills > 0 or (memory_limit > 0 and last_rss_bytes >= NEAR_LIMIT * memory_limit)
