"""Nanny and scheduler: a nanny obeys orders about its worker process and reports how the process ended."""

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
    """Stop the worker process, then the nanny."""

    reason: str


class RegisterNanny(Message, tag=64):
    """First message of a nanny. Its worker sends the same ``id`` in ``RegisterWorker.nanny``."""

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
    #: The tasks that its threads were executing; if one task caused the end, only that one.
    executing: list[Id] = []
    attempts: list[Count] = []
    #: Seconds since the epoch.
    died_at: Amount = 0.0
    #: Whether the process was told to end: no task is to blame.
    planned: bool = False
    #: Whether the process was killed for want of memory.
    out_of_memory: bool = False
    #: Why the nanny killed the process, or the evidence that memory was the reason; empty if neither.
    reason: str = ""


class NannyRan(FunctionRan, tag=67):
    """See FunctionRan."""


class NannyHeartbeat(Heartbeat, tag=68):
    """See Heartbeat. Metrics: ``pid`` of the worker process; ``alive``: 1 if it exists and is not stopped, however busy it is."""


SchedulerToNanny = NannyWelcome | RestartWorker | NannyRun | CloseNanny
NannyToScheduler = RegisterNanny | WorkerRestarted | WorkerDied | NannyRan | NannyHeartbeat
