"""What a scheduler writes down so that another one can take its place: durable records, in the order of what happened.

A record here is the body of a record of the file format (``treadle.journal``). Beside a ``FrameRecord`` stands the frame of a client as it
was received: its body, then its buffers. ``TasksRecord`` is followed by the buffers of its payloads.
To change a meaning, or a field other than by appending one with a default, raise ``treadle.journal.format.VERSION``.
"""

from __future__ import annotations

import msgspec

from treadle.messages.base import Message, TaskError, TaskOptions, WireKey, WorkerIdentity


class FrameRecord(Message, tag=1):
    """A client said this, at ``now`` on the scheduler's clock. The frame, or a part of one, rides beside.

    ``more``: other parts follow, and records between them; what is in front of a missing part was not written.
    """

    number: int
    now: float
    more: bool = False


class ClientGone(Message, tag=3):
    """The client left, or did not come back."""

    number: int


class WorkerRecord(Message, tag=4):
    """A worker joined. See ``RegisterWorker``."""

    number: int
    identity: WorkerIdentity
    #: Numbers that it had before.
    former: list[int]


class WorkerGone(Message, tag=5):
    """The worker left, or was lost."""

    number: int


class MemoryRecord(Message, tag=6):
    """These came to memory on that worker; columns."""

    worker: int
    ids: list[int]
    nbytes: list[int]
    types: list[str]


class ReplicasRecord(Message, tag=7):
    """That worker has copies of these, which nobody can compute."""

    worker: int
    ids: list[int]


class ErredRecord(Message, tag=8):
    """The task failed for good; so did what depends on it."""

    id: int
    error: TaskError


class RetriedRecord(Message, tag=11):
    """An attempt at the task failed. It is tried again, and so many more times."""

    id: int
    left: int


class LostRecord(Message, tag=2):
    """Nobody has the value any more."""

    id: int


class UnwantedRecord(Message, tag=10):
    """That client (0: what is to be done and forgotten) was told that these are lost, and wants them no longer."""

    number: int
    ids: list[int]


class ForgottenRecord(Message, tag=9):
    """Everything was forgotten at once."""

    reason: str


# ---------------------------------------------------------------------------------- only in snapshots


class StateRecord(Message, tag=32):
    """First of a snapshot: the clock, the last generation, and the highest number of a party."""

    now: float
    generation: float
    highest_number: int


class KnownClient(Message, tag=33):
    """A client, as it stands."""

    number: int
    id: str
    versions: dict[str, str]
    #: Its frames up to this number are taken into account.
    received: int
    submission: int
    generation: float
    submitted_at: float
    #: It served an earlier scheduler, and may name what this one was never told.
    stranger: bool = False


class NamesRecord(Message, tag=40):
    """(id that a task had before its value was scattered, its id)."""

    former: list[tuple[int, int]]


class PublishedRecord(Message, tag=41):
    """A published dataset, and the ids of its keys. See ``PublishData``."""

    name: WireKey
    body: bytes
    ids: list[int]


class FunctionsRecord(Message, tag=34):
    """Functions; ``clients``: the number of the client that may name it again, or 0."""

    ids: list[int]
    names: list[str]
    bodies: list[bytes]
    clients: list[int]


class TasksRecord(Message, tag=35):
    """Tasks, dependencies before dependents; columns, a row a task."""

    ids: list[int]
    keys: list[WireKey]
    group_names: list[str]
    #: Index into ``group_names``.
    groups: list[int]
    priorities: list[tuple[float, float, int]]
    #: 0: a pickled graph node.
    functions: list[int]
    #: None: data without a recipe.
    payloads: list[bytes | None]
    dependencies: list[list[int]]
    retries: list[int]
    row_options: list[tuple[int, TaskOptions]]
    #: (row, n): the next n buffers beside belong to that row.
    buffers: list[tuple[int, int]]
    #: (row, digest); see ``SubmitTasks``.
    digests: list[tuple[int, bytes]] = []


class HeldRecord(Message, tag=37):
    """These are in memory on that worker; columns."""

    worker: int
    ids: list[int]
    nbytes: list[int]
    types: list[str]


class FailedRecord(Message, tag=38):
    """These are erred, for what the task ``blame`` has met."""

    ids: list[int]
    error: TaskError
    blame: int


class StartRecord(Message, tag=39):
    """Last of a snapshot: all is told, what is needed may go on, but for what was idle though later chunks will need it."""

    idle: list[int]


class WantsRecord(Message, tag=36):
    """What a client wants (0: what is to be done and forgotten), what else it calls it, and what it will say more of."""

    number: int
    ids: list[int]
    #: (its id, the id).
    aliases: list[tuple[int, int]]
    #: (its id, the id, number of its submission, dependents still to come).
    expecting: list[tuple[int, int, int, int]]


JournalRecord = (
    FrameRecord
    | ClientGone
    | WorkerRecord
    | WorkerGone
    | MemoryRecord
    | ReplicasRecord
    | ErredRecord
    | RetriedRecord
    | LostRecord
    | UnwantedRecord
    | ForgottenRecord
    | StateRecord
    | KnownClient
    | FunctionsRecord
    | NamesRecord
    | PublishedRecord
    | TasksRecord
    | WantsRecord
    | HeldRecord
    | FailedRecord
    | StartRecord
)

encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(JournalRecord).decode
