"""What every message shares: compact, ordered, typed. No behaviour."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

#: A task's key as it travels. Text, bytes and numbers travel as they are; tuples arrive as lists and
#: ``treadle.utils.keys.key_from_wire`` makes tuples of them again; nothing else is a key.
WireKey = Any
#: The types below include the range of a number: the decoder refuses a frame with a number out of range, before anybody acts on it.
#: (Comparisons with nan are false, so a number with bounds cannot be nan.)
#: The number of a task, a function, a party or a request.
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
#: A number of things, or of bytes.
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**60)]
#: A place in an order.
Rank = Annotated[int, msgspec.Meta(ge=-(2**60), lt=2**60)]
#: A finite number.
Finite = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]
#: A finite number that is not negative: an amount of something, a time in seconds.
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e100)]
#: An amount that is asked for. (Nothing of something is not asked for.)
Share = Annotated[float, msgspec.Meta(gt=0, le=1e100)]


class Message(msgspec.Struct, array_like=True, gc=False, tag_field="kind"):
    """A thing on the wire. Fields travel by position: append new ones at the end, with a default."""


class TaskError(Message):
    """How a task failed: the pickled exception and traceback, and both as text for parties that cannot unpickle them.

    ``exception`` is empty if it could not be pickled; its text is never empty.
    """

    exception: bytes
    traceback: bytes
    exception_text: str
    traceback_text: str


class TaskOptions(Message):
    """What a user may ask for besides running the task. The defaults ask for nothing."""

    #: Addresses, names or hosts of the workers that may run it; ``None`` means any.
    workers: list[str] | None = None
    #: Whether ``workers`` is a preference (True) or a condition (False).
    allow_other_workers: bool = False
    resources: dict[str, Share] | None = None
    retries: Count = 0
    #: Added to the submission's ``priority``; higher runs first.
    priority: Finite = 0
    actor: bool = False
    #: Name of the worker's executor; ``None`` means the thread pool.
    executor: str | None = None
    #: All other annotations, kept and shown, never interpreted.
    annotations: dict[str, Any] | None = None


class Peer(Message):
    """A worker's number (short, used in messages) and the address where it serves data."""

    number: Id
    address: str


class WorkerIdentity(Message):
    """The facts about a worker that never change. The worker states them once, and all other parties pass them on."""

    id: str
    #: Where it serves data, e.g. ``tcp://127.0.0.1:40001``.
    address: str
    name: str
    host: str
    nthreads: Count
    #: Bytes; 0 means no limit.
    memory_limit: Count
    resources: dict[str, Amount]
    pid: Count
    local_directory: str
    versions: dict[str, str]
    #: Id of the nanny that watches it, if any.
    nanny: str | None = None


class Peers(Message):
    """Sent to a party before the first message that mentions a worker that the party does not know yet."""

    peers: list[Peer]


class PeersGone(Message):
    """These workers left. Numbers are never used again."""

    numbers: list[Id]


class Holders(Message):
    """Where a value can be fetched: the task's id and key, its size in bytes, and the workers that have it."""

    id: Id
    key: WireKey
    nbytes: Count
    workers: list[Id]


class Block(Message):
    """Some values pickled together: ``pickle`` is one pickle of a list of the values of ``ids``.

    Its out-of-band buffers are the next ``buffers`` frames that ride beside the message, in order.
    """

    ids: list[Id]
    pickle: bytes
    buffers: Count = 0


class Reply(Message):
    """The answer to the request with that number. ``value``: plain msgpack, or None with ``beside``: then the next buffer holds it."""

    request: Id
    value: Any
    beside: bool = False


class Refused(Message):
    """The request failed: the name of a builtin or treadle exception, and its text."""

    request: Id
    exception: str
    text: str


class RunFunction(Message):
    """Call ``function(*args, **kwargs)`` outside the schedule. ``payload`` pickles the three.

    Answered by ``FunctionRan`` with the same request, unless ``wait`` is False.
    """

    request: Id
    payload: bytes
    wait: bool = True


class FunctionRan(Message):
    """``payload`` is the pickled result (with ``beside``: the next buffer is), or ``error`` says how the function failed."""

    request: Id
    payload: bytes
    error: TaskError | None = None
    beside: bool = False


class Heartbeat(Message):
    """The sender is alive. ``metrics``: any numbers, by name."""

    metrics: dict[str, Any]
