"""One worker process as its nanny handles it: start it, read its output, stop it, and find out how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import Any

from treadle.nanny.channel import StartWorker, StopWorker, WorkerFailed, WorkerStarted, pack
from treadle.nanny.oom import OomKills
from treadle.nanny.watch import ProcessSight, look_at, why_out_of_memory
from treadle.utils.background import Background
from treadle.utils.child_process import ChildProcess
from treadle.utils.execution_record import ExecutionRecord, make_descriptor
from treadle.utils.standard_streams import stdout_for_child

logger = logging.getLogger(__name__)

#: How many lines of its stderr are kept for a report of its death.
STDERR_LINES = 20
#: Where this package is. The parent may have imported it from a path that the child gets only later, through the channel.
_ROOT = str(Path(__file__).resolve().parents[2])
_COMMAND = "import sys; sys.path.append(sys.argv[2]); from treadle.nanny.child import main; main(int(sys.argv[1]))"
_MAX_RECORD_BYTES = 2**24
#: Notes about the start of worker processes that were logged already.
_notes: set[str] = set()


class WorkerProcess:
    """A new interpreter that runs one worker. All methods are called from the event loop's thread.

    The process ends when the nanny's process ends, for any reason: it notices that its channel is closed.
    """

    def __init__(self, start: StartWorker, *, environment: dict[str, str], directory: Path, memory_limit: int = 0) -> None:
        """``directory`` is the process' own and is removed with its content after the process. ``memory_limit``: bytes, 0 for none."""
        self._start = start
        self._environment = environment
        self._directory = directory
        self._memory_limit = memory_limit
        self._process: ChildProcess | None = None
        self._channel: asyncio.StreamWriter | None = None
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._watch: asyncio.Task[int] | None = None
        self._record: ExecutionRecord | None = None
        self._oom_kills = OomKills()
        self._last_rss_bytes = 0
        self.worker_address: str | None = None
        self.local_directory: str | None = None
        #: Set when the process has ended: (id, attempt) of the tasks that it was executing.
        self.executing: list[tuple[int, int]] = []
        #: Whether ``executing`` lists one task only, which was accused as the reason of the end.
        self.accused = False
        #: Seconds since the epoch.
        self.ended_at = 0.0
        #: Why the process was killed, by its nanny or for want of memory, if known; and whether memory was the reason.
        self.kill_reason = ""
        self.out_of_memory = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.returncode if self._process is not None else None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def stderr(self) -> str:
        """The last lines it wrote to its stderr."""
        return "".join(self._stderr)

    def look(self) -> ProcessSight | None:
        """What the operating system says of the process; None when it does not run."""
        sight = look_at(self.pid) if self.pid is not None and self.is_alive() else None
        if sight is not None and self.pid is not None:
            # Keeps the last figure that is not 0: a process that is about to end has given its memory back.
            self._last_rss_bytes = sight.rss_bytes or self._last_rss_bytes
            self._oom_kills.look(self.pid, monotonic())
        return sight

    async def start(self, timeout_s: float | None) -> None:
        """Start the process; returns when the worker runs. Raises the worker's error, or RuntimeError if the process ended.

        Raises TimeoutError after ``timeout_s`` seconds. After any error the process is gone.
        """
        ours, theirs = socket.socketpair()
        record = make_descriptor()
        self._record = ExecutionRecord(record)
        self._oom_kills.look("self", monotonic())  # the child begins in this process' control group
        try:
            # In this thread, not in a helper thread: so the loop cannot stop in between and leave a process without an owner.
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            self._process = ChildProcess(
                [sys.executable, *flags, "-P", "-c", _COMMAND, str(theirs.fileno()), _ROOT],
                pass_fds=(theirs.fileno(), record),
                stdin=subprocess.DEVNULL,
                stdout=stdout_for_child(),
                stderr=subprocess.PIPE,
                env=self._environment,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(record)
        self._watch = asyncio.ensure_future(self._until_end(self._process))
        try:
            reader, self._channel = await asyncio.open_unix_connection(sock=ours)
            self._channel.write(pack(replace(self._start, record=record)))
            async with asyncio.timeout(timeout_s):
                answer = await self._answer(reader)
        except BaseException:
            await self.kill(0)
            raise
        if isinstance(answer, WorkerFailed):
            await self.kill(1)
            raise _error_of(answer)
        self.worker_address, self.local_directory = answer.address, answer.local_directory
        if answer.note and answer.note not in _notes:
            _notes.add(answer.note)  # all worker processes of a program send the same note
            logger.warning("%s", answer.note)

    async def _answer(self, reader: asyncio.StreamReader) -> WorkerStarted | WorkerFailed:
        try:
            length = int.from_bytes(await reader.readexactly(8), "little")
            if length > _MAX_RECORD_BYTES:
                raise RuntimeError(f"the worker process sent a record of {length} bytes")
            return pickle.loads(await reader.readexactly(length))  # type: ignore[no-any-return]
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self.wait()
            why = f" ({self.kill_reason})" if self.kill_reason else ""
            raise RuntimeError(
                f"the worker process ended with exit code {code}{why} before the worker ran\n{self.stderr}".rstrip()
            ) from None

    def discard(self) -> None:
        """Remove the directory of a process that will not be started."""
        shutil.rmtree(self._directory, ignore_errors=True)

    async def wait(self) -> int:
        """Wait until the process has ended, its output is read and its directory is removed; its exit code."""
        assert self._watch is not None
        return await asyncio.shield(self._watch)

    async def kill(self, timeout_s: float, reason: str = "nanny-kill", *, out_of_memory: bool = False) -> int:
        """End the process, by force after ``timeout_s`` seconds. Returns the exit code. Idempotent."""
        process = self._process
        assert process is not None
        if timeout_s > 0 and process.returncode is None and self._channel is not None:
            self._channel.write(pack(StopWorker(timeout_s, reason)))
            try:
                async with asyncio.timeout(timeout_s):
                    return await self.wait()
            except TimeoutError:
                logger.info("Worker process %d did not end within %g s; it is killed", process.pid, timeout_s)
        if process.returncode is None:
            self.kill_reason, self.out_of_memory = reason, out_of_memory
            process.send_signal(signal.SIGKILL)
        return await self.wait()

    async def _until_end(self, process: ChildProcess) -> int:
        pump = Background(f"worker process {process.pid}").spawn("reading its stderr", self._pump(process.stderr))
        code = await process.wait()
        self.ended_at = time()
        if not self.kill_reason:
            lately = self._oom_kills.lately(monotonic())
            self.kill_reason = why_out_of_memory(code, lately, self._last_rss_bytes, self._memory_limit)
            self.out_of_memory = bool(self.kill_reason)
        if self._record is not None:
            self.executing, self.accused = self._record.executing(), self._record.accused
            self._record.close()
            self._record = None
        # A subprocess of a task may still hold the pipe, so wait only a moment for the rest of the output.
        await asyncio.wait({pump}, timeout=1)
        pump.cancel()
        process.close()
        if self._channel is not None:
            self._channel.close()
        await _remove(self._directory)
        return code

    async def _pump(self, stream: asyncio.StreamReader) -> None:
        """Copy the process' stderr to ours, and keep its last lines."""
        while data := await stream.read(2**16):
            text = data.decode(errors="replace")
            self._remember(text)
            if sys.stderr is not None:
                try:
                    sys.stderr.write(text)
                    sys.stderr.flush()
                except (OSError, ValueError):
                    pass  # our own stderr is closed

    def _remember(self, text: str) -> None:
        lines = text.splitlines(keepends=True)
        if lines and self._stderr and not self._stderr[-1].endswith("\n"):
            self._stderr[-1] = (self._stderr[-1] + lines.pop(0))[-1000:]
        self._stderr.extend(line[-1000:] for line in lines)


async def _remove(directory: Path) -> None:
    try:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    except RuntimeError:
        # This process is about to end and can start no thread. Blocking the loop harms nobody any more.
        shutil.rmtree(directory, ignore_errors=True)


def child_environment(pre_spawn: dict[str, Any], user: dict[str, Any]) -> dict[str, str]:
    """The environment of a worker process: this process' environment, ``pre_spawn`` for what is missing there, ``user`` over both."""
    environment = {name: str(value) for name, value in pre_spawn.items() if value is not None}
    # The same text must have the same hash in all workers, or partitioning by hash goes wrong.
    environment.setdefault("PYTHONHASHSEED", "6640")
    environment.update(os.environ)
    environment.update({name: str(value) for name, value in user.items() if value is not None})
    # The secret goes through the channel: others can read the environment of a process, and tasks' subprocesses inherit it.
    environment.pop("TREADLE_SECRET", None)
    environment.pop("DASK_TREADLE__SECURITY__SECRET", None)
    return environment


def _error_of(failure: WorkerFailed) -> BaseException:
    """The exception, with the remote traceback as its cause."""
    try:
        error = pickle.loads(failure.error) if failure.error else RuntimeError(failure.text.strip().splitlines()[-1])
    except Exception:
        error = RuntimeError(failure.text.strip())
    if not isinstance(error, Exception):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__cause__ = RuntimeError(f"in the worker process:\n{failure.text}")
    return error
