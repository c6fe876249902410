"""A subprocess whose end can be awaited on any event loop, whichever event loop policy is installed.

asyncio's own subprocesses ask the policy for a child watcher, and the policy of another loop (``uvloop.install()``) has none for
asyncio's loops.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import IO, Any

from treadle.utils.background import Background, start_thread


class ChildProcess:
    """Started by the constructor, on the running loop. No await comes in between, so the process never runs without an owner."""

    def __init__(self, arguments: list[str], **options: Any) -> None:
        """``options`` are those of ``subprocess.Popen``. Raises what ``Popen`` raises."""
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(arguments, **options)
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._transports: list[asyncio.BaseTransport] = []
        self._connecting = Background(f"process {self._process.pid}")
        #: What the process writes, if a pipe was asked for; to be read on this loop.
        self.stdout = self._reader(self._process.stdout)
        self.stderr = self._reader(self._process.stderr)
        self._watch_end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until the process has ended; its exit code."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send a signal; does nothing when the process has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Close the pipes, even if somebody else still holds their other ends."""
        self._connecting.cancel()
        for transport in self._transports:
            transport.close()

    def _reader(self, pipe: IO[bytes] | None) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(loop=self._loop)
        if pipe is None:
            reader.feed_eof()
            return reader

        async def connect() -> None:
            transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=self._loop), pipe)
            self._transports.append(transport)

        def failed(name: str, error: BaseException) -> None:
            reader.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        self._connecting.spawn("opening a pipe", connect(), on_failure=failed)
        return reader

    def _watch_end(self) -> None:
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or an old kernel
            start_thread(f"child-{self.pid}", self._wait_in_thread)
        else:
            self._loop.add_reader(descriptor, self._on_end, descriptor)

    def _on_end(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._settle(self._process.wait())

    def _wait_in_thread(self) -> None:
        code = self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._settle, code)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _settle(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)
