"""Every exception that a user can meet, and the two that say whose fault a failure is."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from concurrent.futures import CancelledError as CancelledError
from dataclasses import dataclass
from datetime import datetime
from textwrap import indent
from typing import Any

TimeoutError = asyncio.TimeoutError  # noqa: A001  (dask.distributed's interface has this name; it is the builtin TimeoutError)


class InvariantError(AssertionError):
    """A bug of treadle: the state contradicts itself. The text contains the story of the tasks involved."""


class CoreFailedError(RuntimeError):
    """A core (of the scheduler, a worker or this client) failed on a request: a bug of treadle. The text contains the story."""


class PeerProtocolError(Exception):
    """The other party broke the protocol. Its connection is dropped; everybody else goes on."""


class CommClosedError(OSError):
    """The connection is closed, or was closed while something was under way."""


class AuthenticationError(CommClosedError):
    """The two parties do not share the cluster's secret. The text says how to give both the same one."""


class VersionError(CommClosedError):
    """The two parties speak different versions of the protocol."""


class ClosedClientError(RuntimeError):
    """The client is closed and cannot send any more."""


class FutureCancelledError(CancelledError):
    """The future was cancelled: ``key``, ``reason`` and the user's ``msg``."""

    def __init__(self, key: Any, reason: str | None = None, msg: str | None = None) -> None:
        self.key = key
        self.reason = reason or "unknown"
        self.msg = msg
        super().__init__(key, self.reason, msg)

    def __str__(self) -> str:
        text = f"{self.key} cancelled for reason: {self.reason}."
        return f"{text}\n{self.msg}" if self.msg else text


class FuturesCancelledError(CancelledError):
    """Several futures were cancelled: ``error_groups`` has a FutureCancelledError for each."""

    def __init__(self, error_groups: Sequence[FutureCancelledError]) -> None:
        self.error_groups = list(error_groups)
        super().__init__(self.error_groups)

    def __str__(self) -> str:
        return f"{len(self.error_groups)} futures cancelled:\n" + "\n".join(f"  {error}" for error in self.error_groups)


class RedefinedKeyWarning(UserWarning):
    """A key was given to a task although it already stands for another task. Whoever asks for the key gets the other task's result."""


class RedefinedKeyError(ValueError):
    """As ``RedefinedKeyWarning``, when the config key ``treadle.client.redefined-keys`` is ``error``."""


class JournalError(RuntimeError):
    """The journal cannot be read or written. The text names the file or directory, the reason and the way out."""


@dataclass(frozen=True)
class Death:
    """How a worker ended while it executed a task. ``when``: seconds since the epoch, 0 if unknown.

    ``exitcode``: negative for a signal; None when nobody saw the end (the worker has no nanny, or the nanny is gone as well).
    ``reason``: why the nanny killed the worker, or the evidence that it ran out of memory; empty if neither.
    ``stderr``: the last lines that the worker process wrote to its stderr.
    """

    worker: str
    name: str
    host: str
    pid: int
    when: float
    exitcode: int | None = None
    out_of_memory: bool = False
    reason: str = ""
    stderr: str = ""

    @property
    def how(self) -> str:
        """In words: ``was killed by SIGKILL (out of memory)``."""
        if self.exitcode is None:
            return f"was lost: {self.reason}" if self.reason else "was lost; nobody saw how"
        if self.exitcode >= 0:
            words = f"ended with exit code {self.exitcode}"
        else:
            try:
                words = f"was killed by {signal.Signals(-self.exitcode).name}"
            except ValueError:
                words = f"was killed by signal {-self.exitcode}"
        if self.out_of_memory:
            return f"{words} (out of memory: {self.reason})" if self.reason else f"{words} (out of memory)"
        return f"{words} (by its nanny: {self.reason})" if self.reason else words

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.when).isoformat(" ", "seconds") + ": " if self.when else ""
        text = f"{when}worker {self.name!r} at {self.worker} (process {self.pid} on {self.host}) {self.how}"
        if self.stderr.strip():
            text += "; it wrote last:\n" + indent(self.stderr.rstrip(), "  | ")
        return text


class KilledWorker(Exception):
    """A task was executing while several workers died in turn; it is not tried again. ``deaths`` has a record of each."""

    def __init__(self, task: Any, last_worker: str, allowed_failures: int, deaths: Sequence[Death] = ()) -> None:
        self.task = task
        self.last_worker = last_worker
        self.allowed_failures = allowed_failures
        self.deaths = list(deaths)
        super().__init__(task, last_worker, allowed_failures, self.deaths)

    def __str__(self) -> str:
        deaths = self.allowed_failures + 1
        on = "1 worker when it died:" if deaths == 1 else f"{deaths} workers when they died, the last one being"
        text = (
            f"Task {self.task!r} was executing on {on} {self.last_worker}. It is not tried again; "
            "the config key distributed.scheduler.allowed-failures says how often a task is tried again after such a death."
        )
        for number, death in enumerate(self.deaths, 1):
            text += f"\n{number}. {death}"
        return text


class NoValidWorkerError(Exception):
    """No worker that may run the task came in time: ``task``, its ``restrictions``, and how long it waited, in seconds."""

    def __init__(self, task: Any, restrictions: str, waited_s: float) -> None:
        self.task = task
        self.restrictions = restrictions
        self.waited_s = waited_s
        super().__init__(task, restrictions, waited_s)

    def __str__(self) -> str:
        return f"Task {self.task!r} waited {self.waited_s:g} s for a worker that may run it ({self.restrictions}); none came."


class NoWorkerError(Exception):
    """No worker at all came in time: ``task``, and how long it waited, in seconds."""

    def __init__(self, task: Any, waited_s: float) -> None:
        self.task = task
        self.waited_s = waited_s
        super().__init__(task, waited_s)

    def __str__(self) -> str:
        return f"Task {self.task!r} waited {self.waited_s:g} s for a worker; none came."


class Reschedule(Exception):
    """Raise this in a task to have the task run again, on another worker if there is one."""


class WorkerStartTimeoutError(TimeoutError):
    """Fewer workers than expected arrived in time."""

    def __init__(self, available: int, expected: int, timeout: float) -> None:
        self.available, self.expected, self.timeout = available, expected, timeout
        super().__init__(available, expected, timeout)

    def __str__(self) -> str:
        return f"Only {self.available}/{self.expected} workers arrived after {self.timeout:g} s"
