"""What the commands share: logging, the pid file, and a clean end on SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click

from treadle.config import event_loop_kind, log_settings
from treadle.unused_settings import begin
from treadle.utils.event_loop import new_event_loop, run
from treadle.utils.standard_streams import flush_standard_streams


class Server(Protocol):
    """What a command runs: a scheduler, a worker or a nanny."""

    #: Why the server has ended, if not in good order.
    failure: str | None

    async def finished(self) -> None: ...
    async def close(self) -> Any: ...


def run_command(start: Callable[[], Coroutine[Any, Any, list[Any]]], *, pid_file: str | None, what: str) -> None:
    """Start servers, run them until they are finished or a signal arrives, close them, and end the process.

    Does not return. The exit code is 0 after an orderly end, else 1; a failed start prints one line.
    """
    code = 1
    try:
        logging.basicConfig(level=logging.INFO, format=log_settings().format, stream=sys.stderr)
        begin(what)
        with _pid_file(pid_file):
            code = run(_serve(start), partial(new_event_loop, event_loop_kind()))
    except Exception as error:
        _complain(what, error)
    except KeyboardInterrupt:
        code = 130
    flush_standard_streams()
    # Not sys.exit, which would wait for threads of tasks that never end.
    os._exit(code)


async def _serve(start: Callable[[], Coroutine[Any, Any, list[Any]]]) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    caught: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        if caught:
            os._exit(1)  # the second signal: end now, whatever hangs
        caught.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    stopped = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(start())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return 0
    servers = starting.result()
    finished = asyncio.ensure_future(_all(server.finished() for server in servers))
    await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if caught:
        logging.getLogger("treadle").info("%s: closing", caught[0].name)
    finished.cancel()
    # A server that failed has logged the reason itself.
    failed = any(server.failure is not None for server in servers)
    await _all(server.close() for server in servers)
    return 1 if failed else 0


async def _all(awaitables: Any) -> None:
    await asyncio.gather(*awaitables)


async def start_all(servers: list[Any]) -> list[Any]:
    """Start all servers at the same time. Raises the first failure after the others are closed."""

    async def start_one(server: Awaitable[Any]) -> Any:
        return await server

    try:
        return await _gather_or_cancel([start_one(server) for server in servers])
    except BaseException:
        await asyncio.gather(*(server.close() for server in servers), return_exceptions=True)
        raise


async def _gather_or_cancel(coroutines: list[Any]) -> list[Any]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    """Keep a file with the process id while the command runs."""
    if path is None:
        yield
        return
    Path(path).write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if int(Path(path).read_text()) == os.getpid():
                os.unlink(path)


def _complain(what: str, error: Exception) -> None:
    """Report an error: one line if users can do something about it, else a traceback."""
    expected = (OSError, ValueError, TypeError, NotImplementedError, ImportError, RuntimeError)
    if not isinstance(error, expected):
        logging.getLogger("treadle").error("%s failed", what, exc_info=error)
    click.echo(f"{what}: {str(error) or type(error).__name__}", err=True)


def without_scheme(address: str) -> str:
    """``127.0.0.1:8786`` of ``tcp://127.0.0.1:8786``, as people write an address."""
    return address.removeprefix("tcp://")
