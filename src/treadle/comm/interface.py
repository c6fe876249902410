"""What every transport offers: ``Comm``, ``Listener`` and ``Connector``. Frames in, frames out, in order.

A frame is a body (encoded messages) and any number of buffers that ride beside it. All methods are called from the
event loop's thread. Receiving is by callback, so that a server can gather what arrived in one turn of its loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
#: Called for each frame: its body, and its buffers (each one its own memory, writable unless the transport passes it by reference).
FrameHandler: TypeAlias = Callable[[Buffer, list[Buffer]], None]
#: Called exactly once, when the comm is closed by either side: None after ``close``/``abort`` here or an orderly end
#: there, else the error.
ClosedHandler: TypeAlias = Callable[[Exception | None], None]


class Role(IntEnum):
    """What the connecting party is; decides the two message unions that are spoken."""

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
    #: Frames stay in the process: the other end gets the very objects that are sent as buffers.
    by_reference: bool = False
    #: What the other party said of itself in the handshake. On the connecting side: the listener's session id, and its own role.
    peer: Introduction

    @abstractmethod
    def start(self, on_frame: FrameHandler, on_closed: ClosedHandler) -> None:
        """Begin to deliver frames. Frames that arrived before are delivered in order, none in this call itself."""

    @abstractmethod
    def send(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> None:
        """Queue a frame and return at once. Buffers are not copied and must not change until they are sent.

        Silently drops the frame when the comm is closed (``on_closed`` tells).
        Raises ValueError when the frame is over the cap.
        """

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes queued and not yet given to the system."""

    @abstractmethod
    async def drained(self, below_bytes: int = 0) -> None:
        """Wait until ``unsent_bytes <= below_bytes``. Raises CommClosedError when the comm closes first."""

    @abstractmethod
    def pause(self) -> None:
        """Deliver no more frames until ``resume``; the sender is slowed down by the transport."""

    @abstractmethod
    def resume(self) -> None: ...

    @property
    @abstractmethod
    def closed(self) -> bool: ...

    @abstractmethod
    async def close(self) -> None:
        """Send what is queued (for at most some seconds), then close. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once. Idempotent."""


#: Called with each comm that has authenticated itself. It calls ``comm.start`` before it returns, or aborts it.
CommHandler: TypeAlias = Callable[[Comm], None]
#: Called with one line about each connection that was refused.
RefusalHandler: TypeAlias = Callable[[str], None]


class Listener(ABC):
    #: Where it listens (``tcp://0.0.0.0:8786``), and what others should connect to (``tcp://10.0.0.3:8786``).
    listen_address: str
    contact_address: str

    @abstractmethod
    async def stop(self) -> None:
        """Accept no more. Comms that are open stay open."""


@dataclass(frozen=True)
class CommLimits:
    """Bounds that hold before anything is decoded. Bytes and seconds."""

    max_body_bytes: int = 2**30
    max_buffer_bytes: int = 2**40
    max_buffers: int = 2**20
    handshake_timeout_s: float = 10.0
    #: Connections that have not authenticated themselves yet.
    max_unauthenticated: int = 256
    #: When there are as many, one of the host that has most of them makes room; for another of that host only after this long.
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
