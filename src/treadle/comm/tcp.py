"""``tcp://host:port``: frames over non-blocking sockets that the event loop only watches.

Small frames are read many at a time through a staging area that all comms of a thread share. Large buffers are received
from the kernel directly into their final memory, and sent directly from where they are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import islice

from treadle.comm.framing import Frame, FrameReader, frame_pieces
from treadle.comm.interface import Buffer, ClosedHandler, Comm, CommLimits, FrameHandler, Introduction
from treadle.exceptions import CommClosedError, PeerProtocolError

logger = logging.getLogger(__name__)

STAGING_BYTES = 256 * 1024
#: One wake-up of the loop moves about this many bytes for one comm, so that a busy peer does not starve the others.
_TURN_BYTES = 4 * 1024 * 1024
#: Pieces in one system call; the kernel's own limit is 1024.
_MAX_PIECES = 512
#: A host is given up after this many unanswered retransmissions in a row: some seconds, where a round trip takes milliseconds.
#: The kernel's own limit, a quarter of an hour, is meant for networks that come back. (TCP_USER_TIMEOUT would also end a connection
#: whose process just does not read for a while: it may be busy.)
_MOST_ATTEMPTS = 5
_LOOK_S = 1.0
#: ``close`` waits this long for its frames to be sent, and then this long for the other side to read them.
_DRAIN_S = 5.0
_LINGER_S = 1.0
#: The layout of ``struct tcp_info`` is known on Linux only.
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


class _Staging(threading.local):
    def __init__(self) -> None:
        self.area = bytearray(STAGING_BYTES)
        self.view = memoryview(self.area)


_staging = _Staging()


class _Watch:
    """Checks from time to time, for all comms of a loop, whether the other host still answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.comms: weakref.WeakSet[TcpComm] = weakref.WeakSet()
        self._due = False

    def add(self, comm: TcpComm) -> None:
        self.comms.add(comm)
        if not self._due:
            self._due = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        for comm in list(self.comms):
            comm.look()
        self._due = len(self.comms) > 0
        if self._due:
            self._loop.call_later(_LOOK_S, self._look)


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()


class TcpComm(Comm):
    """One connected and authenticated socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        local_address: str,
        peer_address: str,
        peer: Introduction,
        limits: CommLimits,
    ) -> None:
        self.local_address = local_address
        self.peer_address = peer_address
        self.peer = peer
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._limits = limits
        self._reader = FrameReader(limits)
        #: Frames that were read and not yet delivered, in order.
        self._frames: deque[Frame] = deque()
        #: Set at the end of the stream, to the error or None: the comm ends with it once all of ``_frames`` are delivered.
        self._end: tuple[Exception | None] | None = None
        self._queue: deque[Buffer] = deque()
        self._unsent = 0
        self._write_error: OSError | None = None
        self._drain_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._on_frame: FrameHandler | None = None
        self._on_closed: ClosedHandler | None = None
        self._error: Exception | None = None
        self._paused = False
        self._reading = self._writing = self._delivering = False
        #: No more frames are delivered or accepted; set by ``close``, and when the socket is closed.
        self._closed = False
        self._socket_closed = False
        self._notified = False
        self._peer_ended: asyncio.Future[None] | None = None
        if _TCP_INFO is not None:
            watch = _watches.get(loop)
            if watch is None:
                watch = _watches[loop] = _Watch(loop)
            watch.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<TcpComm {self.local_address} -> {self.peer_address} {state}>"

    # ------------------------------------------------------------------------------------------- receiving

    def start(self, on_frame: FrameHandler, on_closed: ClosedHandler) -> None:
        if self._on_frame is not None:
            raise RuntimeError("the comm was started already")
        self._on_frame, self._on_closed = on_frame, on_closed
        if self._socket_closed:
            self._loop.call_soon(self._notify)
        else:
            self._watch()

    def pause(self) -> None:
        self._paused = True
        self._watch()

    def resume(self) -> None:
        self._paused = False
        if (self._frames or self._end) and not self._closed:
            self._loop.call_soon(self._deliver)
        self._watch()

    def _watch(self) -> None:
        """Watch the socket if and only if frames are wanted and none is left to deliver, or ``close`` waits for the end of the stream."""
        if self._socket_closed:
            return
        wanted = self._peer_ended is not None or (
            self._on_frame is not None and not (self._paused or self._frames or self._end or self._closed)
        )
        if wanted and not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._fd)
        self._reading = wanted

    def _on_readable(self) -> None:
        """One turn of reading. A large part is read on for a while, because each call returns only what the kernel holds."""
        if not self._reading:
            return
        if self._peer_ended is not None:
            self._discard()
            return
        frames: list[Frame] = []
        budget = _TURN_BYTES
        try:
            while budget > 0:
                count = self._read(frames)
                if not count:
                    self._end = (self._end_of_stream(),)
                    break
                budget -= count
                if frames or self._reader.target is None:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except PeerProtocolError as error:
            self._end = (error,)
        except OSError as error:
            self._end = (self._lost(self._write_error or error),)
        except MemoryError as error:
            self._end = (CommClosedError(f"no memory for a frame from {self.peer_address}: {error}"),)
        self._frames.extend(frames)
        if self._frames or self._end:
            self._deliver()

    def _read(self, frames: list[Frame]) -> int:
        """Make one system call and append the frames that it completes. Returns the number of bytes, 0 at the end of the stream."""
        staging = _staging
        reader = self._reader
        target = reader.target
        if target is not None:
            count = self._sock.recvmsg_into([target, staging.view])[0]
        else:
            rest = reader.rest
            if rest:
                staging.area[: len(rest)] = rest
            count = self._sock.recv_into(staging.view[len(rest) :] if rest else staging.view)
        if count:
            reader.received(count, staging.area, frames)
        return count

    def _end_of_stream(self) -> Exception | None:
        if self._write_error is not None:
            return self._lost(self._write_error)
        if not self._reader.between_frames:
            return CommClosedError(f"{self.peer_address} closed the connection in the middle of a frame")
        return None

    def _lost(self, error: OSError) -> CommClosedError:
        lost = CommClosedError(f"the connection to {self.peer_address} is lost: {error.strerror or error}")
        lost.__cause__ = error
        return lost

    def _deliver(self) -> None:
        """Deliver the frames that were read, until somebody pauses or closes the comm; then end the comm if the stream has ended."""
        if self._delivering:
            return
        frames, on_frame = self._frames, self._on_frame
        assert on_frame is not None
        self._delivering = True
        try:
            while frames and not (self._paused or self._closed):
                body, buffers = frames.popleft()
                on_frame(body, buffers)
        except PeerProtocolError as error:
            self._finish(error)
        except Exception as error:
            logger.exception("a frame from %s could not be handled; the connection is closed", self.peer_address)
            self._finish(error)
        finally:
            self._delivering = False
        if self._end and not (frames or self._paused or self._closed):
            self._finish(self._end[0])
        self._watch()

    # --------------------------------------------------------------------------------------------- sending

    def send(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> None:
        pieces, size = frame_pieces(body, buffers, self._limits)
        if self._closed or self._write_error is not None:
            return
        if not self._queue:
            try:
                sent = self._sock.sendmsg(pieces[:_MAX_PIECES])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._writing_failed(error)
                return
            if sent == size:
                return
            size -= sent
            self._queue.extend(pieces)
            self._skip(sent)
        else:
            self._queue.extend(pieces)
        self._unsent += size
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._on_writable)

    def _skip(self, count: int) -> None:
        """Remove bytes that were sent from the front of the queue."""
        queue = self._queue
        while queue:
            length = len(queue[0])
            if count < length:
                if count:
                    queue[0] = memoryview(queue[0])[count:]
                return
            count -= length
            queue.popleft()

    def _on_writable(self) -> None:
        if not self._writing:
            return
        budget = _TURN_BYTES
        try:
            while self._queue and budget > 0:
                sent = self._sock.sendmsg(list(islice(self._queue, _MAX_PIECES)))
                self._skip(sent)
                self._unsent -= sent
                budget -= sent
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._writing_failed(error)
            return
        if not self._queue:
            self._stop_writing()
        if self._drain_waiters:
            self._wake_drained()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _writing_failed(self, error: OSError) -> None:
        """The other side is gone. Its last frames may still be unread, so the reading side ends the comm."""
        self._write_error = error
        self._queue.clear()
        self._unsent = 0
        self._stop_writing()
        self._fail_waiters(self._lost(error))

    @property
    def unsent_bytes(self) -> int:
        return self._unsent

    async def drained(self, below_bytes: int = 0) -> None:
        if self._closed:
            raise self._closed_error()
        await self._drained(below_bytes)

    async def _drained(self, below_bytes: int) -> None:
        if self._write_error is not None:
            raise self._lost(self._write_error)
        if self._unsent <= below_bytes:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._drain_waiters.append((below_bytes, waiter))
        await waiter

    def _wake_drained(self) -> None:
        waiting = []
        for below_bytes, waiter in self._drain_waiters:
            if waiter.done():
                continue
            if self._unsent <= below_bytes:
                waiter.set_result(None)
            else:
                waiting.append((below_bytes, waiter))
        self._drain_waiters = waiting

    def _fail_waiters(self, error: CommClosedError) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def look(self) -> None:
        """Close the comm if the other host has stopped answering."""
        if self._socket_closed:
            return
        assert _TCP_INFO is not None
        try:
            # The third byte of struct tcp_info counts retransmissions. An answer of the other host's kernel resets it.
            attempts = self._sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 8)[2]
        except OSError:
            return
        if attempts >= _MOST_ATTEMPTS:
            self._finish(CommClosedError(f"the connection to {self.peer_address} is lost: the host does not answer"))

    # --------------------------------------------------------------------------------------------- closing

    @property
    def closed(self) -> bool:
        return self._closed

    def _closed_error(self) -> CommClosedError:
        return CommClosedError(f"the connection to {self.peer_address} is closed" + (f": {self._error}" if self._error else ""))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._frames.clear()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._drained(0)
            # Closing a socket with unread data would reset the connection, and the frames sent last would be lost.
            self._sock.shutdown(socket.SHUT_WR)
            self._peer_ended = self._loop.create_future()
            self._watch()
            async with asyncio.timeout(_LINGER_S):
                await self._peer_ended
        except OSError:  # also TimeoutError and CommClosedError, which derive from it
            pass
        finally:
            self._finish(None)
        await asyncio.sleep(0)  # so that on_closed has been called when this returns

    def _discard(self) -> None:
        """Read and drop data until the other side has closed, too."""
        assert self._peer_ended is not None
        try:
            ended = not self._sock.recv_into(_staging.view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ended = True
        if ended and not self._peer_ended.done():
            self._peer_ended.set_result(None)
            self._loop.remove_reader(self._fd)

    def abort(self) -> None:
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        """Close the socket and schedule ``on_closed``; only the first call has an effect."""
        self._closed = True
        if self._socket_closed:
            return
        self._socket_closed = True
        self._error = error
        self._frames.clear()
        self._queue.clear()
        self._unsent = 0
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)
        self._stop_writing()
        self._sock.close()
        watch = _watches.get(self._loop)
        if watch is not None:
            watch.comms.discard(self)
        self._fail_waiters(self._closed_error())
        if self._peer_ended is not None and not self._peer_ended.done():
            self._peer_ended.set_result(None)
        if self._on_closed is not None:
            self._loop.call_soon(self._notify)

    def _notify(self) -> None:
        if self._notified or self._on_closed is None:
            return
        self._notified = True
        self._on_closed(self._error)
