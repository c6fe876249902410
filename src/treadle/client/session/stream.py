"""A client's stream to its scheduler: what was received and what is to be sent, a turn of the loop at a time.

User threads change the ledger and append to the outgoing messages under ``lock``; one wake-up of the loop serves all of them.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.client.session.frames import Frame, FunctionCache
from treadle.client.session.ledger import KeyState, Waiter
from treadle.client.session.reconnect import CONNECTION_LOST, Connecting
from treadle.client.session.requests import refusal
from treadle.comm.interface import Buffer, Comm
from treadle.exceptions import CommClosedError, CoreFailedError, PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.beside import count_beside, take_beside
from treadle.messages.client_scheduler import (
    ClientHeartbeat,
    ClientPeers,
    ClientPeersGone,
    ClientRefused,
    ClientReply,
    ClientWelcome,
    KeysRedefined,
    LeaveClient,
    RanOn,
    Received,
    SchedulerClosing,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import check_from_client, decode_scheduler_to_client, encode
from treadle.serialize.errors import dump_error
from treadle.utils.buffers import Buffers
from treadle.utils.keys import Key

logger = logging.getLogger("treadle.client")

#: A thread that submits waits when more than this is unsent, or not acknowledged.
UNSENT_LIMIT_BYTES: Final = 256 * 2**20


class Session(Connecting):
    """The connection of one client. Methods are for the loop's thread unless they say otherwise."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        session: bytes,
        functions: FunctionCache,
        on_status: Callable[[str], None],
        on_redefined: Callable[[list[Key]], None] = lambda keys: None,
        reconnect_grace_s: float = 0.0,
    ) -> None:
        super().__init__(loop, session, functions, on_status, reconnect_grace_s)
        #: From any thread: single submissions, of which more may follow.
        self.submitted = self._pace.submitted
        #: Told keys of this client that stand for tasks of others.
        self._on_redefined = on_redefined
        #: Who waits until no more than so many bytes are unsent or not acknowledged.
        self._drain_waiters: list[tuple[int, asyncio.Future[None]]] = []
        #: States that lost a reference. Appended without a lock, because finalizers run anywhere.
        self._released: deque[KeyState] = deque()
        self._heartbeat: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------ opening and closing

    async def connect(
        self, address: str, *, secret: bytes, timeout_s: float, id: str, versions: dict[str, str], heartbeat_s: float
    ) -> None:
        """Connect and be welcomed. Raises OSError naming the address, AuthenticationError, VersionError."""
        await self._connect(address, secret=secret, timeout_s=timeout_s, id=id, versions=versions)
        self._beat(heartbeat_s)

    def _beat(self, interval_s: float) -> None:
        if self.closed_reason is None:
            if self.connected and self.comm is not None and not self.comm.unsent_bytes:
                self.comm.send(encode([ClientHeartbeat({})]))
            self._heartbeat = self.loop.call_later(interval_s, self._beat, interval_s)

    async def close(self, *, fast: bool = False) -> None:
        """Send what is to be sent, take leave and close. Idempotent."""
        comm = self.comm
        if comm is None or comm.closed or not self.connected:
            self._end("the client is closed")
            if comm is not None:
                comm.abort()
            return
        if fast:
            comm.abort()
        else:
            with self.lock:
                self.outgoing.add(LeaveClient())
                self.closed_reason = "the client is closed"
            self._turn()
            await comm.close()
        self._end("the client is closed")

    def _end(self, reason: str) -> None:
        """Nothing will be heard any more: nobody may wait for it."""
        wake: list[Waiter] = []
        with self.lock:
            self.closed_reason = self.closed_reason or reason
            self.ledger.cancel_all(CONNECTION_LOST, wake)
            wake += self._to_wake
            self._to_wake = []
            self.outgoing.take()
            self.sent.clear()
            self._released.clear()
        self.connected = False
        if self._reconnecting is not None and self._reconnecting is not _current_task():
            self._reconnecting.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        lost = CommClosedError(self.closed_reason)
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(lost)
        self._requests.fail(lost)
        self._tell_drained()
        for waiter in wake:
            waiter.wake()

    def _fail(self, error: BaseException) -> None:
        """Our bug: what is known of keys may contradict itself. All that is pending fails with the story, and the client closes."""
        story = "".join(traceback.format_exception(error)).rstrip()
        way_out = "This is a fault of treadle's: please report it, and make another Client."
        text = f"This client has failed within, and is closed. {way_out}\n{story}"
        logger.critical("%s", text)
        wake: list[Waiter] = []
        with self.lock:
            self.closed_reason = self.closed_reason or f"the client has failed within: {error!r}"
            self.ledger.fail_pending(dump_error(CoreFailedError(text)), wake)
        self._give_up(self.closed_reason)
        self._tell_status("closed")
        for waiter in wake:
            waiter.wake()

    async def ended(self, timeout_s: float) -> None:
        """Wait until the other side has closed the stream, but no longer than that."""
        if self.comm is not None and not self.comm.closed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
            except TimeoutError:
                logger.warning("the scheduler did not close the connection in %g s", timeout_s)

    # ------------------------------------------------------------------------------------------ sending

    def send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        """From any thread. Raises ClosedClientError, TypeError or ValueError for what the scheduler would drop this client for."""
        self.check_open()
        check_from_client(message)
        with self.lock:
            self.outgoing.add(message, buffers)
        self.wake_up()

    def release(self, state: KeyState) -> None:
        """A reference is gone. From anywhere, finalizers included: no lock is taken."""
        self._released.append(state)
        if not self._pace.due:
            self._pace.soon()

    def settle_releases(self) -> None:
        """Let go of what nobody refers to any more: keys that are claimed from here on are new. Under the lock."""
        if self._released:
            count = len(self._released)
            gone = self.ledger.release([self._released.popleft() for _ in range(count)])
            if gone:
                self.outgoing.release(gone)

    @property
    def unsent_bytes(self) -> int:
        """About how much waits to be sent, or to be acknowledged. From any thread."""
        return self.outgoing.nbytes + self.sent.nbytes

    async def drained(self, below_bytes: int = UNSENT_LIMIT_BYTES // 2) -> None:
        """Wait until not much is unsent or unacknowledged, or until the connection is given up. 0: until all is sent."""
        self._turn()
        if below_bytes == 0:
            if self.comm is not None and self.connected:
                try:
                    await self.comm.drained(0)
                except CommClosedError:
                    pass  # told by _on_closed
        elif self.unsent_bytes > below_bytes and self.closed_reason is None:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._drain_waiters.append((below_bytes, waiter))
            await waiter

    def _tell_drained(self) -> None:
        waiting = []
        for below_bytes, waiter in self._drain_waiters:
            if waiter.done():
                continue
            if self.unsent_bytes <= below_bytes or self.closed_reason is not None:
                waiter.set_result(None)
            else:
                waiting.append((below_bytes, waiter))
        self._drain_waiters = waiting

    async def request(self, make: Callable[[int], Message]) -> Any:
        """Send ``make(number)`` and wait for the answer to that number: the value of a Reply, or a RanOn.

        Raises what a Refused says, ClosedClientError, CommClosedError.
        """
        self.check_open()
        return await self._requests.ask(make, self.send)

    # ------------------------------------------------------------------------------------------ a turn

    def _receive(self, body: Buffer, buffers: list[Buffer]) -> None:
        self._frames.append((body, buffers))
        self._pace.heard()

    def _turn(self) -> None:
        self._pace.begins()
        frames, self._frames = self._frames, []
        try:
            messages = [message for body, buffers in frames for message in _messages_of(body, buffers)]
        except PeerProtocolError as error:
            messages = []
            logger.error("the scheduler broke the protocol: %s", error)
            self.closed_reason = f"the scheduler broke the protocol ({error})"
            self.loop.call_soon(self._give_up, self.closed_reason)
        wake: list[Waiter] = []
        again: list[Frame] = []
        out: list[tuple[list[Message], list[Any]]] = []
        with self.lock:
            wake, self._to_wake = self._to_wake, wake
            try:
                for message in messages:
                    if not self._handle(message):
                        self.ledger.handle(message, wake)
                self.settle_releases()
                if self._returned is not None and not self._composing:
                    self._settle_return(self._returned, wake)
                again = list(self.sent) if self._resend_due else []
                self._resend_due = False
                # Before the welcome the ids are provisional.
                out = self.outgoing.take() if self.connected and len(self.outgoing) else []
            except Exception as error:
                # Not here: whoever is to be woken is woken first.
                self.loop.call_soon(self._fail, error)
        comm = self.comm
        if comm is not None:
            for frame in again:
                comm.send(frame.body, frame.buffers)
            for batch, buffers in out:
                try:
                    self._transmit(comm, batch, buffers)
                except (TypeError, ValueError, OverflowError):
                    self._send_each(comm, batch, buffers, wake)
        if self._drain_waiters:
            self._tell_drained()
        for waiter in wake:
            waiter.wake()

    def _transmit(self, comm: Comm, batch: list[Message], buffers: Sequence[Any]) -> None:
        """One frame. Raises what keeps it from being sent; then it has no number."""
        sent = self.sent
        body = encode([*batch, Sent(sent.sequence + 1, sent.is_urgent())])
        comm.send(body, buffers)
        sent.keep(body, buffers)
        self._requests.sent(batch, sent.sequence)

    def _send_each(self, comm: Comm, batch: list[Message], buffers: list[Any], wake: list[Waiter]) -> None:
        """One message of these cannot be sent (a number too large for the wire, a text that is none): all others are.

        Who waits for what it was about hears that.
        """
        beside = Buffers(buffers)
        for message in batch:
            count = sum([count for _, count in message.buffers or ()]) if isinstance(message, SubmitTasks) else 0
            mine = beside.take(count)
            try:
                self._transmit(comm, [message], mine)
            except (TypeError, ValueError, OverflowError) as error:
                logger.error("a message to the scheduler could not be sent: %s: %s", type(message).__name__, error)
                self._requests.refuse(getattr(message, "request", 0), type(error)(f"it could not be sent to the scheduler: {error}"))
                with self.lock:
                    states = [self.ledger.by_id[id] for id in getattr(message, "ids", ()) if id in self.ledger.by_id]
                    self.ledger.cancel(states, f"could not be sent to the scheduler ({error})", None, wake)

    def _handle(self, message: Message) -> bool:
        """Messages that are not about keys. Returns whether this was one."""
        if isinstance(message, ClientReply):
            self._requests.answer(message.request, message.value)
        elif isinstance(message, RanOn):
            self._requests.answer(message.request, message)
        elif isinstance(message, ClientPeers):
            for peer in message.peers:
                self.peers[peer.number] = peer.address
        elif isinstance(message, ClientPeersGone):
            for number in message.numbers:
                self.peers.pop(number, None)
        elif isinstance(message, KeysRedefined):
            self._on_redefined(self.ledger.redefined(message.ids))
        elif isinstance(message, ClientRefused):
            self._refused(message)
        elif isinstance(message, ClientWelcome):
            self._on_welcome(message)
        elif isinstance(message, Received):
            self.sent.received(message.sequence)
        elif isinstance(message, SchedulerClosing):
            logger.info("the scheduler closes: %s", message.reason)
            self.closed_reason = f"the scheduler closed ({message.reason})"
            self.loop.call_soon(self._end, self.closed_reason)
        else:
            return False
        return True

    def _refused(self, message: ClientRefused) -> None:
        if message.request == 0 and message.exception == PeerProtocolError.__name__:
            # What it said would be refused once more: there is no coming back.
            self.closed_reason = f"the scheduler dropped this client: {message.text}"
            logger.error("%s", self.closed_reason)
            self.loop.call_soon(self._give_up, self.closed_reason)
            return
        error = refusal(message.exception, message.text)
        if self._requests.refuse(message.request, error):
            return
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(error)
        else:
            logger.error("the scheduler refused a request: %s: %s", message.exception, message.text)


def _messages_of(body: Buffer, buffers: list[Buffer]) -> list[Any]:
    """Of one frame. Raises PeerProtocolError."""
    messages = decode_scheduler_to_client(body)
    if buffers:
        beside = Buffers(buffers)
        for message in messages:
            if count := count_beside(message):
                take_beside(message, beside.take(count))
    return messages


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
