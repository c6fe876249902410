"""Client and scheduler: which tasks to compute, who wants their values, and what became of them.

Ids: the scheduler gives each client a number in ``ClientWelcome``. The client numbers its tasks and functions
``number << 32 | n`` with n = 1, 2, ... and never uses an id twice. A key travels once, with its id; afterwards
only the id travels. When the scheduler knows the key under another id (another client submitted it first),
it says so in ``KeysAliased`` and uses the other id from then on; the client may use either.

Order: the stream is ordered, so an id may be used as soon as the message that defines it was sent.

Reconnection: a client numbers its frames (``Sent``) and keeps them until the scheduler acknowledges them (``Received``).
A client that comes back states its number in ``RegisterClient``; ``ClientWelcome`` says which frames the scheduler has. The client
sends the missing ones again, and then asks for the state of its keys (``ConfirmKeys``).
"""

from __future__ import annotations

from typing import Any

from treadle.messages.base import (
    Amount,
    Count,
    Finite,
    FunctionRan,
    Heartbeat,
    Id,
    Message,
    Peers,
    PeersGone,
    Rank,
    Refused,
    Reply,
    TaskError,
    TaskOptions,
    WireKey,
)

# --------------------------------------------------------------------------------------- client -> scheduler


class RegisterClient(Message, tag=1):
    """First message of a client on each connection."""

    id: str
    versions: dict[str, str]
    #: The number that the client was given before, if it comes back; 0 if it is new.
    number: Id = 0


class DefineFunctions(Message, tag=2):
    """Functions, pickled, by id. Sent once, before the first task that names them."""

    ids: list[Id]
    names: list[str]
    bodies: list[bytes]


class ForgetFunctions(Message, tag=3):
    """The client will not name these functions again. Tasks that use them keep them."""

    ids: list[Id]


class SubmitTasks(Message, tag=4):
    """A chunk of a graph, a ``map``, or one task: columns with one row per task, dependencies before dependents.

    A row has the id of a function, and a payload with the arguments of this call (see ``treadle.serialize.spec``; the payload may
    refer to the row's dependencies by their position); or function 0, and a pickled graph node as payload.
    The scheduler looks into neither.
    """

    #: The client's number of this submission; all chunks of one graph share it.
    submission: Id
    ids: list[Id]
    keys: list[WireKey]
    functions: list[Id]
    payloads: list[bytes]
    #: The ids that each row depends on, without duplicates; None when no row has any.
    #: A dependency is an earlier row, a task submitted earlier, or an id given to ``AttachKeys`` before.
    dependencies: list[list[Id]] | None = None
    #: Ids of this message that the client wants to keep; None means all rows.
    wanted: list[Id] | None = None
    #: Rank of each row in the whole submission, lower first; None means ``first_rank``, ``first_rank + 1``, ...
    ranks: list[Rank] | None = None
    first_rank: Rank = 0
    #: How many dependents of each row follow in later chunks; None means none. The row's value is kept until they have arrived.
    later_dependents: list[Count] | None = None
    #: The group name of all rows (the part of the key that names the operation); None: derived from each key.
    group: str | None = None
    #: The user's priority, higher first.
    priority: Finite = 0
    #: Submissions that are closer together than this, in seconds, belong to one generation.
    fifo_timeout_s: Amount = 60.0
    #: The options of every row that ``row_options`` does not name.
    options: TaskOptions | None = None
    row_options: list[tuple[Count, TaskOptions]] | None = None
    #: (row, n): the payload of that row is a pickle whose next n out-of-band buffers ride beside this message.
    buffers: list[tuple[Count, Count]] | None = None
    #: The key of the submitting task, if the submission comes from inside a task.
    parent: WireKey | None = None
    #: The client will fetch the values of the wanted rows: small ones are to come with ``KeysInMemory``.
    eager: bool = False
    #: (row, digest of its task) of rows with chosen keys. If such a key is known with another digest, the first task stands, and
    #: the scheduler answers ``KeysRedefined``.
    digests: list[tuple[int, bytes]] | None = None
    #: Cancel such rows, and their dependents, instead.
    strict: bool = False


class AttachKeys(Message, tag=5):
    """The client wants keys that it did not submit itself. Unknown keys are answered by ``KeysCancelled``."""

    ids: list[Id]
    keys: list[WireKey]


class ReleaseKeys(Message, tag=6):
    """The client no longer wants these keys. Neither side uses the ids afterwards."""

    ids: list[Id]


class CancelKeys(Message, tag=7):
    """Release these keys for this client, or for all clients (``force``). Each client that loses a key gets ``KeysCancelled``."""

    ids: list[Id]
    force: bool = False
    reason: str | None = None
    msg: str | None = None


class RetryKeys(Message, tag=8):
    """Run these erred tasks again, and the erred tasks they depend on. Answered by ``KeysPending``."""

    ids: list[Id]


class KeysScattered(Message, tag=9):
    """The client handed these values over to workers (``PutData``) and wants them kept."""

    ids: list[Id]
    keys: list[WireKey]
    #: For each key, the numbers of the workers that took its value.
    workers: list[list[Id]]
    nbytes: list[Count]
    types: list[str]


class Query(Message, tag=10):
    """A question about the current state. Answered by ``Reply`` or ``Refused``; changes nothing.

    Subjects: see ``treadle/scheduler/queries.py``.
    """

    request: Id
    subject: str
    options: dict[str, Any]


class RunOn(Message, tag=11):
    """Run a function (see ``RunFunction``) on ``"workers"``, ``"nannies"`` or the ``"scheduler"``.

    ``workers``: addresses or names; None means all. Answered by ``RanOn``.
    """

    request: Id
    where: str
    payload: bytes
    workers: list[str] | None = None
    wait: bool = True


class Restart(Message, tag=12):
    """Cancel all tasks and restart all workers. Answered by ``Reply`` or ``Refused`` (TimeoutError)."""

    request: Id
    timeout_s: Amount
    wait_for_workers: bool = True


class Shutdown(Message, tag=13):
    """Stop the workers and the scheduler."""


class LeaveClient(Message, tag=14):
    """Last message of a client: all keys that it wanted are released."""


class ClientHeartbeat(Heartbeat, tag=15):
    """See Heartbeat."""


class FireAndForget(Message, tag=16):
    """Run these tasks even if no client wants them. They are released when they are finished or erred."""

    ids: list[Id]


class Sent(Message, tag=17):
    """Last message of a frame: the frame's number, 1, 2, ... Only frames that register or are a heartbeat have none."""

    sequence: Id
    #: The client keeps many bytes of frames, and wants ``Received`` soon.
    urgent: bool = False


class ConfirmKeys(Message, tag=18):
    """The client came back, and wants exactly these keys; keys that it does not name are released. The scheduler answers with the
    state of each key, or ``KeysCancelled`` for those that it does not know as wanted by this client."""

    ids: list[Id]
    #: Keys whose failure the client was told. It keeps the failure even if the scheduler does not know these keys.
    erred: list[Id] = []


class ReattachKeys(Message, tag=19):
    """The client wants these keys from an earlier scheduler. This scheduler is new and may learn of them from workers that come back.

    ``KeysCancelled`` names the keys that no worker has brought after a while.
    """

    ids: list[Id]
    keys: list[WireKey]


class Order(Message, tag=20):
    """A long operation on workers or their data. Answered by ``Reply`` or ``Refused``.

    Subjects and options: see ``treadle/scheduler/orders.py``.
    """

    request: Id
    subject: str
    options: dict[str, Any]


class PublishData(Message, tag=21):
    """Keep an object under a name, and the keys in it, until the name is unpublished.

    Answered by ``Reply``, or by ``Refused`` (KeyError) when the name is taken or a key is unknown.
    """

    request: Id
    name: WireKey
    #: The pickled object, with keys in place of its futures.
    body: bytes
    ids: list[Id]
    #: Replace the object that has the name now.
    override: bool = False
    #: The message is sent again because its answer was lost with a stream: the same dataset under the name is no conflict.
    again: bool = False


class UnpublishData(Message, tag=22):
    """Unpublish a name. Answered by ``Reply``, or by ``Refused`` (KeyError) when nothing has the name."""

    request: Id
    name: WireKey
    again: bool = False


# --------------------------------------------------------------------------------------- scheduler -> client


class ClientWelcome(Message, tag=64):
    """Answer to ``RegisterClient``: the number that prefixes this client's ids."""

    number: Id
    scheduler_id: str
    #: The scheduler knew the client, and has its frames up to ``received``.
    known: bool = False
    received: Id = 0


class KeysInMemory(Message, tag=65):
    """These tasks are finished and their values are on that worker; ``type`` names the type of each value.

    ``values``: pickles of small values, in the order of ``ids``; empty for values that do not come with the message.
    """

    worker: Id
    type: str
    ids: list[Id]
    values: list[bytes] | None = None


class KeysErred(Message, tag=66):
    """These tasks failed, all because of the same error. ``blame`` is the key of the task that raised it."""

    ids: list[Id]
    error: TaskError
    blame: WireKey


class KeysPending(Message, tag=67):
    """These tasks were finished or erred, and are being computed again."""

    ids: list[Id]


class KeysCancelled(Message, tag=68):
    """The scheduler no longer knows these keys. Their ids are not used any more.

    Reasons in use: the user's text, "already forgotten", "scheduler-restart", "lost dependencies", "key of another task", "unknown".
    """

    ids: list[Id]
    reason: str
    msg: str | None = None


class KeysLost(Message, tag=69):
    """The last replica of this data was lost, and it has no recipe to compute it again."""

    ids: list[Id]


class KeysAliased(Message, tag=70):
    """These ids of the client stand for tasks that have another id already. The scheduler uses the ``canonical`` id from now on."""

    ids: list[Id]
    canonical: list[Id]


class KeysRedefined(Message, tag=78):
    """The client submitted other tasks under keys that stand for tasks already. These ids now stand for the first tasks."""

    ids: list[int]


class RanOn(Message, tag=71):
    """(address, result) of each party that ran the function; ``FunctionRan.request`` has no meaning there."""

    request: Id
    results: list[tuple[str, FunctionRan]]


class SchedulerClosing(Message, tag=72):
    """The scheduler stops on purpose and will not come back at this address."""

    reason: str


class ClientReply(Reply, tag=73):
    """See Reply."""


class ClientRefused(Refused, tag=74):
    """See Refused. Request 0 stands for the whole stream, or for the last submission."""


class ClientPeers(Peers, tag=75):
    """See Peers."""


class ClientPeersGone(PeersGone, tag=76):
    """See PeersGone."""


class Received(Message, tag=77):
    """The scheduler has the client's frames up to this number (see ``Sent``); the client need not keep them."""

    sequence: Id


ClientToScheduler = (
    RegisterClient
    | DefineFunctions
    | ForgetFunctions
    | SubmitTasks
    | AttachKeys
    | ReleaseKeys
    | CancelKeys
    | RetryKeys
    | KeysScattered
    | Query
    | RunOn
    | Restart
    | Shutdown
    | LeaveClient
    | ClientHeartbeat
    | FireAndForget
    | Sent
    | ConfirmKeys
    | ReattachKeys
    | Order
    | PublishData
    | UnpublishData
)
SchedulerToClient = (
    ClientWelcome
    | KeysInMemory
    | KeysErred
    | KeysPending
    | KeysCancelled
    | KeysLost
    | KeysAliased
    | KeysRedefined
    | RanOn
    | SchedulerClosing
    | ClientReply
    | ClientRefused
    | ClientPeers
    | ClientPeersGone
    | Received
)
