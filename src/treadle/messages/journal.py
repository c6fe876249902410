"""What a scheduler writes down so that another one can take its place: durable records, in the order of events.

A message here is the body of a record of the file format (``treadle.journal``). The buffers of a ``FrameRecord`` are a client's frame
as it was received: its body, then its buffers. Those of a ``TasksRecord`` are the buffers of its payloads.
Raise ``treadle.journal.format.VERSION`` when you change the meaning of a record, or its fields in any other way than by appending one
with a default.
"""

from __future__ import annotations

import msgspec

from treadle.messages.base import Message, TaskError, TaskOptions, WireKey, WorkerIdentity


class FrameRecord(Message, tag=1):
    """A client's frame, or a part of it, received at ``now`` on the scheduler's clock. The frame rides beside.

    ``more``: further parts of the frame follow, perhaps after other records. A frame with a missing part does not count.
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
    #: The numbers that the worker had before.
    former: list[int]


class WorkerGone(Message, tag=5):
    """The worker left, or was lost."""

    number: int


class MemoryRecord(Message, tag=6):
    """These tasks came to memory on that worker; columns."""

    worker: int
    ids: list[int]
    nbytes: list[int]
    types: list[str]


class ReplicasRecord(Message, tag=7):
    """That worker has replicas of these values, which cannot be computed."""

    worker: int
    ids: list[int]


class ErredRecord(Message, tag=8):
    """The task failed for good, and so did its dependents."""

    id: int
    error: TaskError


class RetriedRecord(Message, tag=11):
    """An attempt of the task failed. It is tried again, and ``left`` further retries remain."""

    id: int
    left: int


class LostRecord(Message, tag=2):
    """No worker has the value any more."""

    id: int


class UnwantedRecord(Message, tag=10):
    """That client (0: fire-and-forget) was told that these values are lost, and no longer wants them."""

    number: int
    ids: list[int]


class ForgottenRecord(Message, tag=9):
    """All tasks were forgotten at once."""

    reason: str


# ---------------------------------------------------------------------------------- only in snapshots


class StateRecord(Message, tag=32):
    """First record of a snapshot: the clock, the last generation, and the highest number of a party."""

    now: float
    generation: float
    highest_number: int


class KnownClient(Message, tag=33):
    """A client in its present state."""

    number: int
    id: str
    versions: dict[str, str]
    #: The snapshot includes the client's frames up to this number.
    received: int
    submission: int
    generation: float
    submitted_at: float
    #: The client was with an earlier scheduler, and may name ids that this one was never told.
    stranger: bool = False


class NamesRecord(Message, tag=40):
    """(an id that a task had before its value was scattered, its id now)."""

    former: list[tuple[int, int]]


class PublishedRecord(Message, tag=41):
    """A published dataset, and the ids of its keys. See ``PublishData``."""

    name: WireKey
    body: bytes
    ids: list[int]


class FunctionsRecord(Message, tag=34):
    """Functions. ``clients``: the number of the client that may name the function again, or 0."""

    ids: list[int]
    names: list[str]
    bodies: list[bytes]
    clients: list[int]


class TasksRecord(Message, tag=35):
    """Tasks, dependencies before dependents; columns with one row per task."""

    ids: list[int]
    keys: list[WireKey]
    group_names: list[str]
    #: Indices into ``group_names``.
    groups: list[int]
    priorities: list[tuple[float, float, int]]
    #: 0: the payload is a pickled graph node.
    functions: list[int]
    #: None for data without a recipe.
    payloads: list[bytes | None]
    dependencies: list[list[int]]
    retries: list[int]
    row_options: list[tuple[int, TaskOptions]]
    #: (row, n): the next n buffers beside belong to that row.
    buffers: list[tuple[int, int]]
    #: (row, digest); see ``SubmitTasks``.
    digests: list[tuple[int, bytes]] = []


class HeldRecord(Message, tag=37):
    """These tasks are in memory on that worker; columns."""

    worker: int
    ids: list[int]
    nbytes: list[int]
    types: list[str]


class FailedRecord(Message, tag=38):
    """These tasks are erred because the task ``blame`` failed."""

    ids: list[int]
    error: TaskError
    blame: int


class StartRecord(Message, tag=39):
    """Last record of a snapshot: needed tasks may go on, except ``idle`` ones, which only later chunks will need."""

    idle: list[int]


class WantsRecord(Message, tag=36):
    """The tasks that a client (0: fire-and-forget) wants, its aliases for tasks, and the tasks of which later chunks have dependents."""

    number: int
    ids: list[int]
    #: (the client's id, the scheduler's id).
    aliases: list[tuple[int, int]]
    #: (the client's id, the scheduler's id, number of the submission, dependents still to come).
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
