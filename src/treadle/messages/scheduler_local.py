"""Events of the scheduler's core that its shell makes. They never travel."""

from __future__ import annotations

import msgspec


class ConnectionLost(msgspec.Struct, gc=False):
    """The party's stream ended without a goodbye. ``blame``: the tasks that a worker was executing may be the reason."""

    blame: bool = True


class FramesDurable(msgspec.Struct, gc=False):
    """The journal has written the frames of these clients, up to these numbers, to disk."""

    clients: list[int]
    sequences: list[int]


class JournalRead(msgspec.Struct, gc=False):
    """All records of an earlier scheduler were read. Attempts begin above ``first_attempt``, which that one has never reached."""

    first_attempt: int


class WorkerDeath(msgspec.Struct, gc=False):
    """The worker is dead, because its nanny says so or because it was silent for too long. It is removed at once.

    ``exact``: it was executing exactly ``executing`` (ids) under these ``attempts``. ``planned``: it was told to end, and no task is
    to blame. ``died_at``: seconds since the epoch, 0 if unknown. ``reason``: why it was killed, if it was.
    """

    exitcode: int | None = None
    exact: bool = False
    executing: list[int] = []
    attempts: list[int] = []
    planned: bool = False
    out_of_memory: bool = False
    died_at: float = 0.0
    reason: str = ""
    stderr: str = ""


class ReplicateKeys(msgspec.Struct, gc=False):
    """Give the worker with the number ``recipient`` replicas of these tasks, by id, as far as they are in memory."""

    recipient: int
    ids: list[int]


class DropReplicas(msgspec.Struct, gc=False):
    """Drop the replicas of these tasks from the worker with the number ``holder``, as far as others have some."""

    holder: int
    ids: list[int]


class Retire(msgspec.Struct, gc=False):
    """These workers, by number, get no new tasks and give back tasks that they have not begun; ``retiring=False`` ends that."""

    numbers: list[int]
    retiring: bool = True


class Tick(msgspec.Struct, gc=False):
    """Time has passed."""


class Forget(msgspec.Struct, gc=False):
    """Cancel and forget all tasks of all clients, which are told the ``reason``."""

    reason: str
