"""``inproc://host/pid/n``: frames between parties of one process, passed by reference, also between the event loops of two threads."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from treadle.comm.addressing import local_host, parse_address, unparse_address
from treadle.comm.framing import Frame, frame_pieces
from treadle.comm.handshake import SECRET_ADVICE, SESSION_BYTES
from treadle.comm.interface import (
    Backend,
    Buffer,
    ClosedHandler,
    Comm,
    CommHandler,
    CommLimits,
    FrameHandler,
    Introduction,
    Listener,
    RefusalHandler,
)
from treadle.exceptions import AuthenticationError, CommClosedError, PeerProtocolError

logger = logging.getLogger(__name__)

SCHEME = "inproc"
#: Frames that one comm delivers in one turn of the loop.
_TURN_FRAMES = 256

_numbers = itertools.count(1)
_listeners: dict[str, InprocListener] = {}
_listeners_lock = threading.Lock()


def _new_address() -> str:
    return unparse_address(SCHEME, f"{local_host()}/{os.getpid()}/{next(_numbers)}")


def _call(target: asyncio.AbstractEventLoop, own: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> bool:
    """Have the loop ``target`` call ``function`` soon; False when that loop is closed."""
    try:
        if target is own:
            target.call_soon(function, *args)
        else:
            target.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


class InprocComm(Comm):
    """One end of a pair. The two ends share a lock, which guards what both touch: inboxes, ends, wake-ups."""

    _other: InprocComm
    by_reference = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: threading.Lock,
        local_address: str,
        peer_address: str,
        peer: Introduction,
        limits: CommLimits,
    ) -> None:
        self.local_address = local_address
        self.peer_address = peer_address
        self.peer = peer
        self._loop = loop
        self._lock = lock
        self._limits = limits
        #: Frames from the other end with their sizes, not yet delivered.
        self._inbox: deque[tuple[Frame, int]] = deque()
        self._inbox_bytes = 0
        #: Whether the other end has stopped sending.
        self._other_ended = False
        #: Whether a call of ``_deliver`` is scheduled.
        self._wake_pending = False
        self._other_waits = False
        self._on_frame: FrameHandler | None = None
        self._on_closed: ClosedHandler | None = None
        self._drain_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._paused = False
        self._closed = False
        self._finished = False
        self._notified = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<InprocComm {self.local_address} -> {self.peer_address} {'closed' if self._closed else 'open'}>"

    # ------------------------------------------------------------------------------------------- receiving

    def start(self, on_frame: FrameHandler, on_closed: ClosedHandler) -> None:
        if self._on_frame is not None:
            raise RuntimeError("the comm was started already")
        self._on_frame, self._on_closed = on_frame, on_closed
        if self._finished:
            self._loop.call_soon(self._notify)
        else:
            self._schedule(self)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._schedule(self)

    def _schedule(self, caller: InprocComm) -> None:
        """Schedule ``_deliver`` in this end's loop, unless it is scheduled already."""
        with self._lock:
            if self._wake_pending or self._finished:
                return
            self._wake_pending = True
        if not _call(self._loop, caller._loop, self._deliver) and caller is not self:
            caller._finish(CommClosedError(f"{caller.peer_address} is gone: its event loop is closed"))

    def _deliver(self) -> None:
        with self._lock:
            self._wake_pending = False
        on_frame = self._on_frame
        if on_frame is None:
            return
        try:
            for _ in range(_TURN_FRAMES):
                if self._paused or self._closed:
                    break
                with self._lock:
                    if not self._inbox:
                        break
                    (body, buffers), size = self._inbox.popleft()
                    self._inbox_bytes -= size
                on_frame(body, buffers)
        except PeerProtocolError as error:
            self._finish(error)
        except Exception as error:
            logger.exception("a frame from %s could not be handled; the connection is closed", self.peer_address)
            self._finish(error)
        with self._lock:
            more = bool(self._inbox) and not self._paused and not self._closed
            ended = self._other_ended and not self._inbox
            other_waits, self._other_waits = self._other_waits, False
        if other_waits:
            _call(self._other._loop, self._loop, self._other._wake_drained)
        if more:
            self._schedule(self)
        elif ended and not self._paused:
            self._finish(None)

    # --------------------------------------------------------------------------------------------- sending

    def send(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> None:
        _, size = frame_pieces(body, buffers, self._limits)  # checks the caps, which hold for every transport
        other = self._other
        with self._lock:
            if self._closed or other._finished:
                return
            other._inbox.append(((body, list(buffers)), size))
            other._inbox_bytes += size
            if other._wake_pending:
                return
        other._schedule(self)

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._finished else self._other._inbox_bytes

    async def drained(self, below_bytes: int = 0) -> None:
        with self._lock:
            if self._closed or self._other._finished:
                raise self._closed_error()
            if self._other._inbox_bytes <= below_bytes:
                return
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._drain_waiters.append((below_bytes, waiter))
            self._other._other_waits = True
        await waiter

    def _wake_drained(self) -> None:
        unsent = self.unsent_bytes
        waiting = []
        for below_bytes, waiter in self._drain_waiters:
            if waiter.done():
                continue
            if unsent <= below_bytes:
                waiter.set_result(None)
            else:
                waiting.append((below_bytes, waiter))
        self._drain_waiters = waiting
        with self._lock:
            self._other._other_waits = bool(waiting)
            missed = bool(waiting) and self._other._inbox_bytes <= max(below for below, _ in waiting)
        if missed:  # the other end delivered after ``unsent`` was read and before the flag was set
            self._loop.call_soon(self._wake_drained)

    # --------------------------------------------------------------------------------------------- closing

    @property
    def closed(self) -> bool:
        return self._closed

    def _closed_error(self) -> CommClosedError:
        return CommClosedError(f"the connection to {self.peer_address} is closed" + (f": {self._error}" if self._error else ""))

    async def close(self) -> None:
        # Frames that were sent are in the other end's inbox and stay there.
        self._finish(None)
        await asyncio.sleep(0)  # so that on_closed has been called when this returns

    def abort(self) -> None:
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        """End both directions and schedule ``on_closed``; only the first call has an effect."""
        with self._lock:
            self._closed = True
            if self._finished:
                return
            self._finished = True
            self._error = error
            self._inbox.clear()
            self._inbox_bytes = 0
            self._other._other_ended = True
        waiters, self._drain_waiters = self._drain_waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        self._other._schedule(self)
        if self._on_closed is not None:
            self._loop.call_soon(self._notify)

    def _notify(self) -> None:
        if self._notified or self._on_closed is None:
            return
        self._notified = True
        self._on_closed(self._error)


class InprocListener(Listener):
    """A name that other parties of the process connect to."""

    def __init__(
        self, address: str, handler: CommHandler, session: bytes, secret: bytes, limits: CommLimits, refused: RefusalHandler
    ) -> None:
        self.listen_address = self.contact_address = address
        self.loop = asyncio.get_running_loop()
        self.session = session
        self.secret = secret
        self.limits = limits
        self.refused = refused
        self._handler = handler
        self._stopped = False

    async def stop(self) -> None:
        self._stopped = True
        with _listeners_lock:
            if _listeners.get(self.listen_address) is self:
                del _listeners[self.listen_address]

    def accept(self, comm: Comm) -> None:
        """Hand over a comm whose secret is right. Called in the listener's loop."""
        if self._stopped:
            comm.abort()
            return
        try:
            self._handler(comm)
        except Exception:
            logger.exception("the connection of %s could not be accepted", comm.peer_address)
            comm.abort()


async def listen(
    address: str, handler: CommHandler, session: bytes, secret: bytes, limits: CommLimits, refused: RefusalHandler
) -> Listener:
    """Listen on ``address``; plain ``inproc://`` gets a new name. Raises OSError when the address is in use."""
    _check(session, secret)
    if not parse_address(address)[1]:
        address = _new_address()
    listener = InprocListener(address, handler, session, secret, limits, refused)
    with _listeners_lock:
        if address in _listeners and not _listeners[address].loop.is_closed():
            raise OSError(f"cannot listen on {address}: address already in use")
        _listeners[address] = listener
    return listener


async def connect(address: str, introduction: Introduction, secret: bytes, limits: CommLimits) -> Comm:
    """Raises ConnectionRefusedError when nobody in this process listens there, AuthenticationError when the secrets differ."""
    _check(introduction.session, secret)
    with _listeners_lock:
        listener = _listeners.get(address)
    if listener is None:
        raise ConnectionRefusedError(f"nobody listens on {address} in this process ({os.getpid()})")
    own, loop = _new_address(), asyncio.get_running_loop()
    if not hmac.compare_digest(secret, listener.secret):
        _call(listener.loop, loop, listener.refused, f"refused {own}: it does not know the cluster's secret")
        raise AuthenticationError(f"{address} refused: its secret is not the one that this party has. {SECRET_ADVICE}")
    lock = threading.Lock()
    near = InprocComm(loop, lock, own, address, Introduction(introduction.role, listener.session), limits)
    far = InprocComm(listener.loop, lock, address, own, introduction, listener.limits)
    near._other, far._other = far, near
    if not _call(listener.loop, loop, listener.accept, far):
        raise ConnectionRefusedError(f"nobody listens on {address} any more: its event loop is closed")
    return near


def _check(session: bytes, secret: bytes) -> None:
    if len(session) != SESSION_BYTES:
        raise ValueError(f"a session id has {SESSION_BYTES} bytes, not {len(session)}")
    if not secret:
        raise ValueError("the secret must not be empty")


BACKEND = Backend(listen=listen, connect=connect)
