"""The worker process of a nanny: it takes orders from the channel, runs the worker, and ends with the worker or with the nanny.

This module imports little, so that the process is up soon.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import os
import pickle
import shutil
import signal
import socket
import sys
import traceback
from functools import partial
from importlib import import_module
from typing import Any

from treadle.nanny.channel import EXIT_FAILED, EXIT_RESTART, StartWorker, StopWorker, WorkerFailed, WorkerStarted, receive, send
from treadle.utils import interpreter
from treadle.utils.background import start_thread
from treadle.utils.event_loop import new_event_loop, run
from treadle.utils.execution_record import ExecutionRecord, set_record_of_process
from treadle.utils.logs import configure_logging, follow_log_state
from treadle.utils.main_script import import_main_script
from treadle.utils.standard_streams import flush_standard_streams

#: How many seconds a worker may take to close when its nanny is gone.
ORPHAN_TIMEOUT_S = 5.0


def main(descriptor: int) -> None:
    """The body of the process. ``descriptor`` is its end of the channel. Does not return."""
    # Ctrl-C in a terminal reaches all its processes, but the nanny decides when this one ends.
    # A handler, because subprocesses of tasks would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    channel = socket.socket(fileno=descriptor)
    try:
        start: StartWorker = receive(channel)
    except EOFError:
        os._exit(1)
    sys.path[:] = start.path
    if start.record >= 0:
        set_record_of_process(ExecutionRecord(start.record))
        os.close(start.record)
    interpreter.answer_quickly()
    note = "" if start.main is None else import_main_script(start.main)
    if start.logs is not None:
        follow_log_state(start.logs)
    run(_run_and_exit(channel, start, note), partial(new_event_loop, start.event_loop))


async def _run_and_exit(channel: socket.socket, start: StartWorker, note: str) -> None:
    code = 1
    try:
        code = await _run(channel, start, note)
    except BaseException:
        traceback.print_exc()
    finally:
        # Exits inside the loop and without the interpreter's finalization: both would wait for threads of tasks that never end.
        faulthandler.dump_traceback_later(ORPHAN_TIMEOUT_S, exit=True)
        atexit._run_exitfuncs()
        shutil.rmtree(start.directory, ignore_errors=True)
        flush_standard_streams()
        os._exit(code)


async def _run(channel: socket.socket, start: StartWorker, note: str) -> int:
    """Run the worker until it ends; the exit code."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    orders: list[StopWorker] = []

    def obey(order: StopWorker) -> None:
        orders.append(order)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, obey, StopWorker(ORPHAN_TIMEOUT_S, "SIGTERM", 128 + signal.SIGTERM))
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    # One that nobody can tell to end must not go on: the nanny sees that it has ended, and starts another.
    start_thread("nanny-channel", partial(_listen, channel, loop, obey), lambda name, error: os._exit(1))
    try:
        worker = await _start(start)
    except BaseException as error:
        _tell(channel, _failure(error))
        return 1
    _tell(channel, WorkerStarted(worker.address, str(worker.local_directory), note))
    # Objects that exist now live as long as the process: exclude them from every later collection.
    gc.collect()
    gc.freeze()
    finished = asyncio.ensure_future(worker.finished())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not finished.done():
        order = orders[0]
        # Ends the process whatever hangs, even if it holds the interpreter's lock.
        faulthandler.dump_traceback_later(order.timeout_s + 1, exit=True)
        await worker.close(timeout=order.timeout_s, reason=order.reason)
        faulthandler.cancel_dump_traceback_later()
        return order.exitcode
    if getattr(worker, "failure", None) is not None:
        return EXIT_FAILED
    return EXIT_RESTART if worker.restart_requested else 0


async def _start(start: StartWorker) -> Any:
    """Start the worker and return it. Raises the reason why it cannot run."""
    import dask.config

    with dask.config.config_lock:
        dask.config.config.clear()
        dask.config.config.update(start.config)
    from treadle.config import log_settings

    logs = log_settings()
    configure_logging(logs.loggers, logs.file, logs.format)
    worker_class = load_class(start.worker_class)
    return await worker_class(**pickle.loads(start.arguments))


def load_class(name: str | bytes) -> Any:
    """The class with that dotted name, or in that pickle."""
    if isinstance(name, bytes):
        return pickle.loads(name)
    module, _, qualified = name.rpartition(".")
    return getattr(import_module(module), qualified)


def _listen(channel: socket.socket, loop: asyncio.AbstractEventLoop, obey: Any) -> None:
    """The body of the thread that waits for orders. When the nanny is gone, it ends the process, in good order if possible."""
    try:
        while True:
            order = receive(channel)
            loop.call_soon_threadsafe(obey, order)
    except (EOFError, OSError, RuntimeError):
        faulthandler.dump_traceback_later(ORPHAN_TIMEOUT_S + 1, exit=True)
        try:
            loop.call_soon_threadsafe(obey, StopWorker(ORPHAN_TIMEOUT_S, "the nanny is gone"))
        except RuntimeError:
            os._exit(1)


def _failure(error: BaseException) -> WorkerFailed:
    text = "".join(traceback.format_exception(error))
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = b""
    return WorkerFailed(pickled, text)


def _tell(channel: socket.socket, record: Any) -> None:
    try:
        send(channel, record)
    except OSError:
        pass  # the nanny is gone; the listening thread ends the process
