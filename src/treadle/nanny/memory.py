"""Kill a worker process that exceeds its memory limit, before the system runs out of memory and kills any process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dask.utils import format_bytes

from treadle.nanny.process import WorkerProcess

logger = logging.getLogger(__name__)


async def guard_memory(current: Callable[[], WorkerProcess | None], limit_bytes: int, fraction: float, interval_s: float) -> None:
    """Every ``interval_s`` seconds, for ever, kill the ``current`` process if it uses more than ``fraction`` of ``limit_bytes``."""
    while True:
        await asyncio.sleep(interval_s)
        process = current()
        sight = process.look() if process is not None else None
        if process is None or sight is None or sight.rss_bytes <= fraction * limit_bytes:
            continue
        reason = (
            f"it used {format_bytes(sight.rss_bytes)} of memory, over {fraction:.0%} of its limit of {format_bytes(limit_bytes)} "
            "(distributed.worker.memory.terminate)"
        )
        logger.warning("Worker process %s is killed: %s", process.pid, reason)
        await process.kill(0, reason, out_of_memory=True)
