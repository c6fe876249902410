"""Keep one worker process running: replace it if it crashes, not if it was told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from treadle.nanny.channel import EXIT_FAILED, EXIT_RESTART
from treadle.nanny.process import WorkerProcess
from treadle.utils.background import Background, FailureHandler
from treadle.utils.starts import MOST_STARTS, WITHIN_S, Starts

logger = logging.getLogger(__name__)

#: A process that lived this many seconds was healthy and is replaced at once. Pauses are for processes that cannot even start to work.
_HEALTHY_S = 1.0
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 30.0


class Supervisor:
    """Starts, watches and replaces the process of a nanny.

    ``make`` makes a process without starting it. ``died(process, exit code, planned)`` is called when a process has ended, before
    it is replaced; ``planned``: it was told to end. ``ended`` is called when somebody else has told the process to close (exit
    code 0); then there is no process any more.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[WorkerProcess]],
        *,
        start_timeout_s: float,
        died: Callable[[WorkerProcess, int, bool], None],
        ended: Callable[[], None],
        failed: FailureHandler,
    ) -> None:
        self._make = make
        self._start_timeout_s = start_timeout_s
        self._died = died
        self._ended = ended
        #: Held while a process is started or stopped.
        self._lock = asyncio.Lock()
        #: The current process: running, starting, or crashed and about to be replaced.
        self.process: WorkerProcess | None = None
        self._failed = failed
        self._background = Background("nanny", failed)
        #: The starts of worker processes that followed one that failed by a bug of treadle.
        self._starts = Starts()
        self._watch: asyncio.Task[None] | None = None
        self._born = 0.0
        self._backoff_s = 0.0
        self._closed = False

    async def start(self) -> None:
        """Start a process if none runs. Raises the reason why the worker cannot run; then no process is left."""
        async with self._lock:
            if self.process is None or not self.process.is_alive():
                self._forget()
                await self._start()

    async def stop(self, timeout_s: float, reason: str) -> None:
        """End the process, by force after ``timeout_s`` seconds. It is not replaced."""
        async with self._lock:
            await self._stop(timeout_s, reason)

    async def restart(self, stop_timeout_s: float, reason: str) -> None:
        """End the process and start another. Raises as ``start``."""
        async with self._lock:
            await self._stop(stop_timeout_s, reason)
            await self._start()

    async def close(self, timeout_s: float, reason: str) -> None:
        """As ``stop``, even while a process is starting. No other process can be started afterwards."""
        self._closed = True
        await self._stop(timeout_s, reason)
        async with self._lock:  # a start that was under way has noticed
            await self._stop(timeout_s, reason)

    def _forget(self) -> tuple[WorkerProcess | None, asyncio.Task[None] | None]:
        """Stop watching the current process: (the process, the task that watched it)."""
        process, self.process = self.process, None
        watch, self._watch = self._watch, None
        return process, watch

    async def _stop(self, timeout_s: float, reason: str) -> None:
        process, watch = self._forget()
        if process is not None and process.pid is not None:
            was_alive = process.is_alive()
            code = await process.kill(timeout_s, reason)
            if was_alive:
                self._died(process, code, True)
        if watch is not None:
            watch.cancel()

    async def _start(self) -> None:
        """To be called with the lock held."""
        process = await self._make()
        if self._closed:
            process.discard()
            raise RuntimeError("the nanny is closed")
        self.process = process
        try:
            await process.start(self._start_timeout_s)
        except TimeoutError as error:
            self.process = None
            raise TimeoutError(f"the worker process did not come up within {self._start_timeout_s:g} s") from error
        except BaseException:
            self.process = None
            raise
        self._born = asyncio.get_running_loop().time()
        if self.process is process:
            self._watch = self._background.spawn(f"watcher of worker process {process.pid}", self._see_its_end(process))

    async def _see_its_end(self, process: WorkerProcess) -> None:
        """Wait until the process ends; then report its end, and replace it if it crashed."""
        code = await process.wait()
        if self.process is not process:
            return  # ``stop`` has ended it
        # A process that asks to be replaced was told to end, unless it accuses a task.
        planned = code == 0 or (code == EXIT_RESTART and not process.accused)
        self._died(process, code, planned)
        if code == 0:
            self.process = None
            self._ended()
            return
        now = asyncio.get_running_loop().time()
        if code == EXIT_FAILED and not self._starts.another(now):
            self._failed("worker", RuntimeError(f"it failed {MOST_STARTS + 1} times within {WITHIN_S:g} s:\n{process.stderr}".rstrip()))
            return
        if code != EXIT_RESTART:
            logger.warning("Worker process %s %s; another one is started", process.pid, describe_exit(code, process.kill_reason))
        lived_s = now - self._born
        if code == EXIT_RESTART or lived_s > _HEALTHY_S:
            self._backoff_s = 0.0
        while self.process is process:
            if self._backoff_s:
                await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
            async with self._lock:
                if self.process is not process:
                    return
                try:
                    await self._start()
                    return
                except Exception as error:
                    if self._closed:
                        return
                    logger.error("No other worker process could be started; next try in %g s: %s", self._backoff_s, error)
                    self.process = process


def describe_exit(code: int, reason: str = "") -> str:
    """``died with exit code 1``, ``was killed by SIGKILL: it used too much memory``."""
    if code >= 0:
        return f"died with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (f": {reason}" if reason else "")
