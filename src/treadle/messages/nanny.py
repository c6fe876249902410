"""Nanny and scheduler: a supervisor takes orders about its worker process and reports what it saw."""

from __future__ import annotations

from treadle.messages.base import Amount, Count, FunctionRan, Heartbeat, Id, Message, RunFunction


class NannyWelcome(Message, tag=1):
    """Answer to ``RegisterNanny``."""

    number: Id
    scheduler_id: str


class RestartWorker(Message, tag=2):
    """End the worker process, by force after ``timeout_s``, and start another. Answered by ``WorkerRestarted``."""

    request: Id
    timeout_s: Amount


class NannyRun(RunFunction, tag=3):
    """See RunFunction."""


class CloseNanny(Message, tag=4):
    """Stop the worker process, then stop."""

    reason: str


class RegisterNanny(Message, tag=64):
    """First message of a nanny. ``id`` is what its worker says in ``RegisterWorker.nanny``."""

    id: str
    name: str
    host: str
    pid: Count


class WorkerRestarted(Message, tag=65):
    """``error`` is empty when the new process was started."""

    request: Id
    error: str


class WorkerDied(Message, tag=66):
    """The worker process ended: its exit code, negative for a signal, and the end of its stderr."""

    pid: Count
    exitcode: int
    stderr: str
    #: What its threads were executing; when the end came from one task, only that.
    executing: list[Id] = []
    attempts: list[Count] = []
    #: Seconds since the epoch.
    died_at: Amount = 0.0
    #: It was told to end, by whoever: nobody is to blame.
    planned: bool = False
    #: It was killed for want of memory.
    out_of_memory: bool = False
    #: Why the nanny has killed it, if it has, or how it is known that memory was the reason.
    reason: str = ""


class NannyRan(FunctionRan, tag=67):
    """See FunctionRan."""


class NannyHeartbeat(Heartbeat, tag=68):
    """See Heartbeat. Metrics: ``pid`` of the worker process, ``alive``: 1 when it is there and not stopped, however busy."""


SchedulerToNanny = NannyWelcome | RestartWorker | NannyRun | CloseNanny
NannyToScheduler = RegisterNanny | WorkerRestarted | WorkerDied | NannyRan | NannyHeartbeat
