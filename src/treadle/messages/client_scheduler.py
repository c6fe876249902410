"""Client and scheduler: what is to be computed, who wants it, and what became of it.

Ids: the scheduler gives each client a number in ``ClientWelcome``; the client numbers its tasks and functions
``number << 32 | n`` with n = 1, 2, ... and never uses one twice. A key travels once, with its id; afterwards
only the id does. When the key is known already under another id (another client submitted it first),
the scheduler says so in ``KeysAliased`` and uses the other id from there on; the client may use either.

Order: the stream is ordered, so an id may be used as soon as the message that defines it was sent.

Reconnection: frames of a client are numbered (``Sent``), and kept until the scheduler says that it has them (``Received``).
A client that comes back says its number in ``RegisterClient``; ``ClientWelcome`` says what the scheduler has of it. The client
sends what is missing once more, and then asks where everything stands (``ConfirmKeys``).
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
    """First message of a client, on every connection that it makes."""

    id: str
    versions: dict[str, str]
    #: The number that it was given before, when it comes back; 0: it is new.
    number: Id = 0


class DefineFunctions(Message, tag=2):
    """Functions, pickled, by id. Sent once, before the first task that names them."""

    ids: list[Id]
    names: list[str]
    bodies: list[bytes]


class ForgetFunctions(Message, tag=3):
    """The client will not name these ids again; tasks that did keep them."""

    ids: list[Id]


class SubmitTasks(Message, tag=4):
    """A chunk of a graph, a ``map``, or one task; columns, a row a task, dependencies before dependents.

    A row's function is a function id and its payload what is this call's own (see ``treadle.serialize.spec``; it may refer to
    the row's dependencies by their position), or function 0 and a pickled graph node.
    The scheduler looks into neither.
    """

    #: Number of this submission at this client; all chunks of one graph share it.
    submission: Id
    ids: list[Id]
    keys: list[WireKey]
    functions: list[Id]
    payloads: list[bytes]
    #: Ids each row depends on, without duplicates; None when no row has any.
    #: A dependency is an earlier row, an earlier submission, or an id given to ``AttachKeys`` before.
    dependencies: list[list[Id]] | None = None
    #: Ids of this message that the client wants to keep; None means all rows.
    wanted: list[Id] | None = None
    #: Rank of each row in the whole submission, lower first; None means ``first_rank``, ``first_rank + 1``, ...
    ranks: list[Rank] | None = None
    first_rank: Rank = 0
    #: How many dependents of each row follow in later chunks; None means none. Keeps the row alive until then.
    later_dependents: list[Count] | None = None
    #: Group name of every row (the part of the key that names the operation); None: derived from each key.
    group: str | None = None
    #: The user's priority, higher first.
    priority: Finite = 0
    #: Submissions closer together than this are of one generation, seconds.
    fifo_timeout_s: Amount = 60.0
    #: For every row that ``row_options`` does not name.
    options: TaskOptions | None = None
    row_options: list[tuple[Count, TaskOptions]] | None = None
    #: (row, n): the payload of that row is a pickle whose next n out-of-band buffers ride beside this message.
    buffers: list[tuple[Count, Count]] | None = None
    #: Key of the task that submits, when it is submitted from inside a task.
    parent: WireKey | None = None
    #: The client will want the values of the wanted rows here: small ones shall come with ``KeysInMemory``.
    eager: bool = False
    #: (row, digest of its task) of rows whose keys do not say all of their tasks. Where such a key is known with another digest, the
    #: first task stands: ``KeysRedefined``.
    digests: list[tuple[int, bytes]] | None = None
    #: Cancel such rows instead, and what depends on them.
    strict: bool = False


class AttachKeys(Message, tag=5):
    """The client wants keys that it did not submit itself. Unknown ones are answered by ``KeysCancelled``."""

    ids: list[Id]
    keys: list[WireKey]


class ReleaseKeys(Message, tag=6):
    """The client no longer wants these. The ids are dead afterwards, on both sides."""

    ids: list[Id]


class CancelKeys(Message, tag=7):
    """Release for this client, or for everybody (``force``). Answered by ``KeysCancelled`` to each who loses one."""

    ids: list[Id]
    force: bool = False
    reason: str | None = None
    msg: str | None = None


class RetryKeys(Message, tag=8):
    """Run these erred tasks again, and the erred tasks they depend on. Answered by ``KeysPending``."""

    ids: list[Id]


class KeysScattered(Message, tag=9):
    """The client put these values on workers itself (``PutData``) and wants them kept."""

    ids: list[Id]
    keys: list[WireKey]
    #: For each key the numbers of the workers that took it.
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
    """Cancel everything, restart all workers. Answered by ``Reply`` or ``Refused`` (TimeoutError)."""

    request: Id
    timeout_s: Amount
    wait_for_workers: bool = True


class Shutdown(Message, tag=13):
    """Stop the workers and the scheduler."""


class LeaveClient(Message, tag=14):
    """Last message of a client: everything it wanted is released."""


class ClientHeartbeat(Heartbeat, tag=15):
    """See Heartbeat."""


class FireAndForget(Message, tag=16):
    """Keep these running even when no client wants them; released when they are finished or erred."""

    ids: list[Id]


class Sent(Message, tag=17):
    """Last message of a frame, its number: 1, 2, ... All frames have one but those that only register or are a heartbeat."""

    sequence: Id
    #: ``Received`` is wanted soon: the client keeps much.
    urgent: bool = False


class ConfirmKeys(Message, tag=18):
    """The client came back, and these are all the keys it wants. Those that the scheduler does not know as wanted are answered
    by ``KeysCancelled``, and the state of all others is told anew. What it does not name it does not want."""

    ids: list[Id]
    #: Keys whose failure it was told: it keeps that, even if the scheduler does not know them.
    erred: list[Id] = []


class ReattachKeys(Message, tag=19):
    """The client wants these keys of before, and the scheduler is a new one that may come to know them yet: workers say what they hold.

    ``KeysCancelled`` names those that nobody has brought after a while.
    """

    ids: list[Id]
    keys: list[WireKey]


class Order(Message, tag=20):
    """Something to do with workers or their data that takes its time. Answered by ``Reply`` or ``Refused``.

    Subjects and options: see ``treadle/scheduler/orders.py``.
    """

    request: Id
    subject: str
    options: dict[str, Any]


class PublishData(Message, tag=21):
    """Keep an object under a name, and its keys, whoever wants them, until the name is taken back.

    Answered by ``Reply``, or ``Refused`` (KeyError): the name is taken, or a key is not known.
    """

    request: Id
    name: WireKey
    #: The pickled object; the futures in it are keys there.
    body: bytes
    ids: list[Id]
    #: In place of what has the name now.
    override: bool = False
    #: The answer was lost with a stream: the same once more is no other dataset.
    again: bool = False


class UnpublishData(Message, tag=22):
    """Take a name back. Answered by ``Reply``, or ``Refused`` (KeyError): nothing is called so."""

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
    """These are finished and their values are on that worker; ``type`` names the type of each value.

    ``values``: pickles of small values that ride along, in the order of ``ids``; empty for those that do not.
    """

    worker: Id
    type: str
    ids: list[Id]
    values: list[bytes] | None = None


class KeysErred(Message, tag=66):
    """These failed, all for the same error. ``blame`` is the key of the task that raised."""

    ids: list[Id]
    error: TaskError
    blame: WireKey


class KeysPending(Message, tag=67):
    """These were finished or erred and are being computed (again)."""

    ids: list[Id]


class KeysCancelled(Message, tag=68):
    """The scheduler does not know these any more; the ids are dead.

    Reasons in use: the user's text, "already forgotten", "scheduler-restart", "lost dependencies", "key of another task", "unknown".
    """

    ids: list[Id]
    reason: str
    msg: str | None = None


class KeysLost(Message, tag=69):
    """The only copy of this data went away, and there is no recipe to make it again."""

    ids: list[Id]


class KeysAliased(Message, tag=70):
    """These ids of yours are tasks that have another id already; that one is used from now on."""

    ids: list[Id]
    canonical: list[Id]


class KeysRedefined(Message, tag=78):
    """These ids of yours were to be other tasks than those that their keys stand for already, which they are now."""

    ids: list[int]


class RanOn(Message, tag=71):
    """(address, result) for each party that ran it; ``FunctionRan.request`` is of no interest there."""

    request: Id
    results: list[tuple[str, FunctionRan]]


class SchedulerClosing(Message, tag=72):
    """The scheduler stops on purpose and will not come back at this address."""

    reason: str


class ClientReply(Reply, tag=73):
    """See Reply."""


class ClientRefused(Refused, tag=74):
    """See Refused. With request 0 it speaks of the whole stream, or of the last submission."""


class ClientPeers(Peers, tag=75):
    """See Peers."""


class ClientPeersGone(PeersGone, tag=76):
    """See PeersGone."""


class Received(Message, tag=77):
    """The scheduler has the client's frames up to this number (see ``Sent``) and answers for them."""

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
