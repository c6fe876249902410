"""The channel between a nanny and its worker process: pickled records over a socket pair that only the two have.

The nanny sends one ``StartWorker``, later perhaps ``StopWorker``; the process answers ``WorkerStarted`` or ``WorkerFailed``.
The end of the stream means that the other side is gone. Command-line arguments and environment carry none of this, because
other users could read the cluster's secret there.
"""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any

from treadle.utils.logs import LogState
from treadle.utils.main_script import MainScript

_LENGTH = struct.Struct("<Q")

#: Exit code of a worker process that wants to be replaced (EX_TEMPFAIL).
EXIT_RESTART = 75
#: Exit code of a worker process that failed by a bug of treadle, which is to be replaced as well (EX_SOFTWARE).
EXIT_FAILED = 70


@dataclass(frozen=True)
class StartWorker:
    """Everything that the process needs. It loads the pickles after it has set ``path`` and ``config``."""

    path: list[str]
    config: dict[str, Any]
    #: The dotted name of the worker's class, or the pickled class.
    worker_class: str | bytes
    #: Pickled keyword arguments.
    arguments: bytes
    #: The process' own directory. The process removes it in the end; so does the nanny, in case the process could not.
    directory: str
    event_loop: str = "asyncio"
    #: The main script of the nanny's program, for the process to import.
    main: MainScript | None = None
    #: The logging of the nanny's process, which the worker process takes over.
    logs: LogState | None = None
    #: The inherited file descriptor of the execution record; negative if there is none.
    record: int = -1


@dataclass(frozen=True)
class StopWorker:
    """Close the worker and exit, within about ``timeout_s``."""

    timeout_s: float
    reason: str
    exitcode: int = 0


@dataclass(frozen=True)
class WorkerStarted:
    address: str
    local_directory: str
    #: What the user should know about the start.
    note: str = ""


@dataclass(frozen=True)
class WorkerFailed:
    """The worker did not start. ``error`` is the pickled exception, or empty; ``text`` is its text."""

    error: bytes
    text: str


def send(sock: socket.socket, record: Any) -> None:
    """Send a record; blocks until it is sent. Raises OSError when the other side is gone."""
    sock.sendall(pack(record))


def pack(record: Any) -> bytes:
    data = pickle.dumps(record, 5)
    return _LENGTH.pack(len(data)) + data


def receive(sock: socket.socket) -> Any:
    """The next record; blocks. Raises EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_read(sock, _LENGTH.size))
    return pickle.loads(_read(sock, length))


def _read(sock: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = sock.recv(min(length - len(data), 2**20))
        if not part:
            raise EOFError("the other side of the channel is gone")
        data += part
    return bytes(data)
