"""What a nanny and its worker process say to each other: pickled records over a socket pair that only the two have.

The nanny sends one ``StartWorker``, later perhaps ``StopWorker``; the process answers ``WorkerStarted`` or ``WorkerFailed``.
The end of the stream means that the other one is gone. Nothing of this is in arguments or the environment of a process,
where others could read the cluster's secret.
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


@dataclass(frozen=True)
class StartWorker:
    """Everything the process needs. The pickles are opened after ``path`` and ``config`` are in place."""

    path: list[str]
    config: dict[str, Any]
    #: Dotted name of a class, or a pickled one.
    worker_class: str | bytes
    #: Pickled keyword arguments.
    arguments: bytes
    #: Belongs to the process, which removes it in the end; the nanny does so too, in case the process could not.
    directory: str
    event_loop: str = "asyncio"
    #: The program that the nanny belongs to, for the process to import.
    main: MainScript | None = None
    #: What the nanny's process logs, and this one shall log.
    logs: LogState | None = None
    #: Descriptor of the record of what executes, which the process inherits; negative: there is none.
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
    #: What the user should know of the start.
    note: str = ""


@dataclass(frozen=True)
class WorkerFailed:
    """The worker did not start; ``error`` is the exception, pickled, or empty, and ``text`` tells it."""

    error: bytes
    text: str


def send(sock: socket.socket, record: Any) -> None:
    """Blocks until it is sent. Raises OSError when the other side is gone."""
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
