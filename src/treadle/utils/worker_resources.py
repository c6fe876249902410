"""How many threads and how much memory workers get: by the user's wish, and by what the machine has."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any

import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

logger = logging.getLogger(__name__)

_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parse_memory_limit(value: Any, nthreads: int, total_cores: int) -> int:
    """The limit in bytes; 0 means no limit.

    ``value``: ``"auto"`` (the worker's share of the machine by its threads), a fraction of the machine (a float up to 1),
    bytes, text such as ``"4GB"``, or 0 or None for no limit. The result is never more than the machine has. Raises ValueError.
    """
    if value is None or value is False or value == 0 or value == "0":
        return 0
    total = system_memory_bytes()
    if value == "auto":
        return int(total * min(1.0, nthreads / total_cores))
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, float) and 0 < value <= 1:
        return int(total * value)
    try:
        wanted = int(parse_bytes(value))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"memory_limit must be 'auto', a fraction, a number of bytes or text such as '4GB', got {value!r}") from error
    if wanted < 0:
        raise ValueError(f"memory_limit must not be negative, got {value!r}")
    if wanted > total:
        logger.warning("memory_limit %s is more than this machine has; it is set to %s", format_bytes(wanted), format_bytes(total))
    return min(wanted, total)


def system_memory_bytes() -> int:
    """The machine's memory in bytes, or less if a container or resource limits allow less."""
    total = int(psutil.virtual_memory().total)
    for name in _CGROUP_FILES:
        try:
            limit = int(Path(name).read_text())
        except (OSError, ValueError):  # the file does not exist, or says "max"
            continue
        if 0 < limit < total:
            total = limit
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_RSS)[1]
        if 0 < hard < total:
            total = hard
    return total


def nprocesses_nthreads(n: int = CPU_COUNT) -> tuple[int, int]:
    """Divide ``n`` threads: (processes, threads of each). No process has more threads than there are processes."""
    processes = n if n <= 4 else min(divisor for divisor in range(1, n + 1) if n % divisor == 0 and divisor >= math.sqrt(n))
    return processes, n // processes
