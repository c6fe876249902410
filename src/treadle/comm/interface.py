"""What every transport offers: ``Comm``, ``Listener`` and a ``Backend`` that makes them. Frames in, frames out, in order.

A frame is a body (encoded messages) and any number of buffers that ride beside it. All methods are called from the
event loop's thread. A comm delivers frames by callback, so that a server can gather all that arrived in one turn of its loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
#: Called for each frame with its body and its buffers. Each buffer is memory of its own, writable unless the transport
#: passes it by reference.
FrameHandler: TypeAlias = Callable[[Buffer, list[Buffer]], None]
#: Called exactly once, when either side closes the comm: with None after ``close`` or ``abort`` on this side or an orderly end
#: on the other, else with the error.
ClosedHandler: TypeAlias = Callable[[Exception | None], None]


class Role(IntEnum):
    """What the connecting party is. The role decides which two unions of messages the connection carries."""

    CLIENT = 1
    WORKER = 2
    NANNY = 3
    PEER = 4


@dataclass(frozen=True)
class Introduction:
    """Who connects: its role and its session id (16 random bytes that stay the same over reconnections)."""

    role: Role
    session: bytes


class Comm(ABC):
    """One authenticated, ordered, two-way stream of frames."""

    #: Address of this end and of the other, ``scheme://...``.
    local_address: str
    peer_address: str
    #: Whether frames stay in the process: the other end gets the very objects that are sent as buffers.
    by_reference: bool = False
    #: What the other party said of itself in the handshake. On the connecting side: the listener's session id and this side's own role.
    peer: Introduction

    @abstractmethod
    def start(self, on_frame: FrameHandler, on_closed: ClosedHandler) -> None:
        """Begin to deliver frames, those that arrived before this call first. None is delivered during the call itself."""

    @abstractmethod
    def send(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> None:
        """Queue a frame and return at once. Buffers are not copied and must not change until they are sent.

        A closed comm drops the frame silently: ``on_closed`` has reported the end.
        Raises ValueError when the frame is over a cap.
        """

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes that are queued and not yet handed to the system."""

    @abstractmethod
    async def drained(self, below_bytes: int = 0) -> None:
        """Wait until ``unsent_bytes <= below_bytes``. Raises CommClosedError when the comm closes first."""

    @abstractmethod
    def pause(self) -> None:
        """Deliver no more frames until ``resume``; the transport slows the sender down."""

    @abstractmethod
    def resume(self) -> None: ...

    @property
    @abstractmethod
    def closed(self) -> bool: ...

    @abstractmethod
    async def close(self) -> None:
        """Send what is queued, for at most a few seconds, then close. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once. Idempotent."""


#: Called with each comm that has authenticated itself. It calls ``comm.start`` before it returns, or aborts it.
CommHandler: TypeAlias = Callable[[Comm], None]
#: Called with one line about each connection that was refused.
RefusalHandler: TypeAlias = Callable[[str], None]


class Listener(ABC):
    #: Where it listens (``tcp://0.0.0.0:8786``), and where others connect to (``tcp://10.0.0.3:8786``).
    listen_address: str
    contact_address: str

    @abstractmethod
    async def stop(self) -> None:
        """Accept no more connections. Open comms stay open."""


@dataclass(frozen=True)
class CommLimits:
    """Limits that are checked before anything is decoded, in bytes and seconds."""

    max_body_bytes: int = 2**30
    max_buffer_bytes: int = 2**40
    max_buffers: int = 2**20
    handshake_timeout_s: float = 10.0
    #: How many connections may be in their handshake, that is, not authenticated yet.
    max_unauthenticated: int = 256
    #: At that number, a connection of the host that has the most of them makes room for a new one; for a new one of
    #: the same host only after this long.
    handshake_patience_s: float = 0.5


#: (address, handler, my session, secret, limits, refused) -> Listener. Raises OSError with the address in its text (port in use).
ListenFunction: TypeAlias = Callable[[str, CommHandler, bytes, bytes, CommLimits, RefusalHandler], Awaitable[Listener]]
#: (address, introduction, secret, limits) -> Comm.
ConnectFunction: TypeAlias = Callable[[str, Introduction, bytes, CommLimits], Awaitable[Comm]]


@dataclass(frozen=True)
class Backend:
    """A transport, registered by its URI scheme in ``treadle.comm.registry``."""

    listen: ListenFunction
    connect: ConnectFunction
