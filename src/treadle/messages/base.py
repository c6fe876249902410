"""What every message shares: compact, ordered, typed. No behaviour."""

from __future__ import annotations

from typing import Any

import msgspec

#: A task's key as it travels. ``str`` and numbers as they are; tuples arrive as lists and become tuples
#: again in ``treadle.utils.keys.key_from_wire``; nothing else is a key.
WireKey = Any


class Message(msgspec.Struct, array_like=True, gc=False, tag_field="kind"):
    """A thing on the wire. Fields travel by position: append new ones at the end, with a default."""


class TaskError(Message):
    """How a task failed: the pickled exception and traceback, and both as text for those who cannot unpickle.

    ``exception`` may be empty (it could not be pickled); the text never is.
    """

    exception: bytes
    traceback: bytes
    exception_text: str
    traceback_text: str


class TaskOptions(Message):
    """What a user may ask of a task beside running it. Defaults ask for nothing."""

    #: Addresses, names or hosts of the workers that may run it; ``None`` means any.
    workers: list[str] | None = None
    #: Whether ``workers`` is a wish (True) or a condition (False).
    allow_other_workers: bool = False
    resources: dict[str, float] | None = None
    retries: int = 0
    #: Added to the submission's ``priority``; higher runs first.
    priority: float = 0
    actor: bool = False
    #: Name of the worker's executor; ``None`` means the thread pool.
    executor: str | None = None
    #: All other annotations, kept and shown, never interpreted.
    annotations: dict[str, Any] | None = None


class Peer(Message):
    """A worker's number (short, used in messages) and the address where it serves data."""

    number: int
    address: str


class Peers(Message):
    """Sent before the first message that mentions these workers to a party that has not met them."""

    peers: list[Peer]


class PeersGone(Message):
    """These workers left. Numbers are never used again."""

    numbers: list[int]


class Holders(Message):
    """Where a value can be fetched: the task's id and key, its size in bytes, and the workers that have it."""

    id: int
    key: WireKey
    nbytes: int
    workers: list[int]


class Block(Message):
    """Some values pickled together: ``pickle`` is one pickle of a list of the values of ``ids``.

    Its out-of-band buffers are the next ``buffers`` frames that ride beside the message, in order.
    """

    ids: list[int]
    pickle: bytes
    buffers: int = 0


class Reply(Message):
    """The answer to the request of that number. ``value`` is plain msgpack."""

    request: int
    value: Any


class Refused(Message):
    """The request failed: the name of a builtin or treadle exception, and its text."""

    request: int
    exception: str
    text: str


class RunFunction(Message):
    """Call ``function(*args, **kwargs)`` outside the schedule. ``payload`` pickles the three.

    Answered by ``FunctionRan`` with the same request, unless ``wait`` is False.
    """

    request: int
    payload: bytes
    wait: bool = True


class FunctionRan(Message):
    """``error`` is None and ``payload`` the pickled result, or ``error`` says how it failed."""

    request: int
    payload: bytes
    error: TaskError | None = None


class Heartbeat(Message):
    """I am alive. ``metrics`` is free-form, numbers by name."""

    metrics: dict[str, Any]
