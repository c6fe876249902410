"""Events of the scheduler's core that never travel: its shell makes them."""

from __future__ import annotations

import msgspec


class ConnectionLost(msgspec.Struct, gc=False):
    """The party's stream is gone without a goodbye. ``blame``: what a worker was executing may be the reason."""

    blame: bool = True


class FramesDurable(msgspec.Struct, gc=False):
    """The journal has these clients' frames up to these numbers on disk."""

    clients: list[int]
    sequences: list[int]


class JournalRead(msgspec.Struct, gc=False):
    """All records of another scheduler are told. Attempts begin above ``first_attempt``: that one has given none so high."""

    first_attempt: int


class WorkerDeath(msgspec.Struct, gc=False):
    """That worker is no more, as its nanny says or because it was silent for too long. It is removed at once.

    ``exact``: it was executing just ``executing`` (ids) as these ``attempts``. ``planned``: it was told to end, nobody is to blame.
    ``died_at``: seconds since the epoch, 0 if unknown. ``reason``: why it was killed by those who watch it, if it was.
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
    """The worker with the number ``recipient`` shall have copies of these tasks, by id, as far as they are in memory."""

    recipient: int
    ids: list[int]


class DropReplicas(msgspec.Struct, gc=False):
    """The worker with the number ``holder`` shall not keep its copies of these tasks, as far as others have some."""

    holder: int
    ids: list[int]


class Retire(msgspec.Struct, gc=False):
    """These workers, by number, take no new tasks, and give back what they have not begun; or (``retiring`` False) go on as others."""

    numbers: list[int]
    retiring: bool = True


class Tick(msgspec.Struct, gc=False):
    """Time has passed."""


class Forget(msgspec.Struct, gc=False):
    """Cancel and forget all tasks of everybody; ``reason`` is what clients are told."""

    reason: str
