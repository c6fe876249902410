"""A client's stream to its scheduler: what was received and what is to be sent, a turn of the loop at a time.

User threads change the ledger and append to the outgoing messages under ``lock``; one wake-up of the loop serves all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Final

from treadle.client.session.frames import FunctionCache, SentFrames, confirmation, recollections
from treadle.client.session.ledger import FINISHED, ID_BITS, PENDING, KeyState, Ledger, Waiter
from treadle.client.session.outgoing import Outgoing, raise_ids
from treadle.client.session.requests import Requests, refusal
from treadle.comm.interface import Buffer, Comm, Introduction, Role
from treadle.comm.registry import connect
from treadle.exceptions import AuthenticationError, ClosedClientError, CommClosedError, PeerProtocolError, VersionError
from treadle.messages.base import Message
from treadle.messages.client_scheduler import (
    ClientHeartbeat,
    ClientPeers,
    ClientPeersGone,
    ClientRefused,
    ClientReply,
    ClientWelcome,
    ForgetFunctions,
    KeysRedefined,
    LeaveClient,
    RanOn,
    Received,
    RegisterClient,
    SchedulerClosing,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, encode
from treadle.utils.buffers import Buffers
from treadle.utils.keys import Key

logger = logging.getLogger("treadle.client")

#: A thread that submits waits when more than this is unsent, or not acknowledged.
UNSENT_LIMIT_BYTES: Final = 256 * 2**20
#: Clients that lost their scheduler come back within so many seconds of each other, and wait so long for its welcome.
_COME_BACK_SPREAD_S: Final = 0.1
_WELCOME_S: Final = 30.0

#: Single submissions that follow each other are sent together so often.
BURST_S: Final = 0.001

CONNECTION_LOST: Final = "scheduler-connection-lost"
LOST_IN_RESTART: Final = "lost-in-scheduler-restart"


class Session:
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
        self.loop = loop
        self.session = session
        #: Told "closed", "connecting" and "running" whenever the connection has come to that.
        self._tell_status = on_status
        #: Told keys of this client that stand for tasks of others.
        self._on_redefined = on_redefined
        self._grace_s = reconnect_grace_s
        #: Guarded by the lock.
        self._functions = functions
        #: Guards the ledger, the outgoing messages and the caches of the submitting threads. Reentrant because a finalizer
        #: of the user's may run, and submit, wherever memory is allocated.
        self.lock = threading.RLock()
        self.ledger = Ledger()
        self.outgoing = Outgoing()
        #: What was sent and is not acknowledged.
        self.sent = SentFrames()
        self.comm: Comm | None = None
        #: Frames may be sent.
        self.connected = False
        self._number = 0
        self._registration = RegisterClient("", {})
        self._reconnecting: asyncio.Task[None] | None = None
        #: The welcome of a scheduler to which it has come back, until the two are brought together: as soon as no thread has keys in
        #: the ledger that are not yet in ``outgoing``.
        self._returned: ClientWelcome | None = None
        self._composing = 0
        #: First of all, what is not acknowledged is sent again.
        self._resend_due = False
        #: Who waits until no more than so many bytes are unsent or not acknowledged.
        self._drain_waiters: list[tuple[int, asyncio.Future[None]]] = []
        #: The scheduler gave this client its number: ids are final, and it may be told of them.
        self.welcomed = False
        self.scheduler_id = ""
        #: Addresses of the workers that the scheduler mentioned, by number.
        self.peers: dict[int, str] = {}
        #: Why nothing can be sent any more; None while all is well, also before the connection is made.
        self.closed_reason: str | None = None
        #: This is the child of a fork: nothing is heard, and nobody may wait.
        self._forked = False
        #: States that lost a reference. Appended without a lock, because finalizers run anywhere.
        self._released: deque[KeyState] = deque()
        #: Waiters to be woken in the next turn; filled by other threads under the lock.
        self._to_wake: list[Waiter] = []
        self._frames: list[Buffer] = []
        #: A turn is on its way. Set before the wake-up, cleared at the start of the turn.
        self._turn_due = False
        #: When the last turn for submissions alone began, and the next one if it has to wait; -inf: there is no burst.
        self._burst_at = -inf
        self._paced: asyncio.TimerHandle | None = None
        #: Somebody waits: the next turn is not put off.
        self._hurried = False
        self._welcome: asyncio.Future[None] | None = None
        self._requests = Requests(loop)
        self._heartbeat: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    # ------------------------------------------------------------------------------------------ opening and closing

    async def connect(
        self, address: str, *, secret: bytes, timeout_s: float, id: str, versions: dict[str, str], heartbeat_s: float
    ) -> None:
        """Connect and be welcomed. Raises OSError naming the address, AuthenticationError, VersionError."""
        introduction = Introduction(Role.CLIENT, self.session)
        self._registration = RegisterClient(id, versions)
        try:
            comm = await connect(address, introduction, secret=secret, timeout_s=timeout_s)
            await self._register(comm, timeout_s)
        except TimeoutError:
            self._give_up(f"the scheduler at {address} did not welcome the client")
            raise OSError(f"the scheduler at {address} did not welcome this client (timeout {timeout_s:g} s)") from None
        except BaseException as error:
            self._give_up(f"the client could not connect ({error})")
            raise

        def connect_again(remaining_s: float) -> Any:
            return connect(address, introduction, secret=secret, timeout_s=remaining_s)

        self._connect_again = connect_again
        self._beat(heartbeat_s)

    async def _register(self, comm: Comm, timeout_s: float) -> None:
        """Raises TimeoutError, CommClosedError, or what the scheduler refuses it with."""
        self.comm = comm
        self._welcome = self.loop.create_future()
        comm.start(self._receive, lambda error: self._on_closed(comm, error))
        self._registration.number = self._number
        comm.send(encode([self._registration]))
        async with asyncio.timeout(timeout_s):
            await self._welcome

    def _give_up(self, reason: str) -> None:
        self._end(reason)
        if self.comm is not None:
            self.comm.abort()

    def _beat(self, interval_s: float) -> None:
        if self.closed_reason is None:
            if self.connected and self.comm is not None and not self.comm.unsent_bytes:
                self.comm.send(encode([ClientHeartbeat({})]))
            self._heartbeat = self.loop.call_later(interval_s, self._beat, interval_s)

    # ------------------------------------------------------------------------------------------ broken streams

    def _on_closed(self, comm: Comm, error: Exception | None) -> None:
        if comm is not self.comm:
            return
        text = str(error) if error is not None else "the scheduler closed the connection"
        if self._frames:
            # What it said last counts.
            self._turn()
        self.connected = False
        self._returned = None
        if self._reconnecting is not None and self.closed_reason is None:
            # It goes on trying.
            if self._welcome is not None and not self._welcome.done():
                self._welcome.set_exception(CommClosedError(text))
            return
        self._ended.set()
        if self.closed_reason is None and self.welcomed and self._grace_s > 0 and not isinstance(error, PeerProtocolError):
            logger.warning("the connection to the scheduler is lost (%s); the client tries for %g s to come back", text, self._grace_s)
            self._tell_status("connecting")
            self._reconnecting = self.loop.create_task(self._reconnect(text))
            return
        if self.closed_reason is None:
            logger.warning("the connection to the scheduler is lost: %s", text)
            self._end(f"the connection to the scheduler was lost ({text})")
        self._tell_status("closed")

    async def _reconnect(self, lost: str) -> None:
        """Come back, as often as it takes; what is submitted meanwhile waits."""
        deadline = self.loop.time() + self._grace_s
        while (remaining_s := deadline - self.loop.time()) > 0:
            comm: Comm | None = None
            try:
                await asyncio.sleep(random.uniform(0.0, _COME_BACK_SPREAD_S))
                comm = await self._connect_again(remaining_s)
                await self._register(comm, min(_WELCOME_S, max(remaining_s, 1.0)))
            except (AuthenticationError, VersionError) as error:
                lost = str(error)
                break
            except OSError as error:  # TimeoutError and CommClosedError are ones, too
                lost = str(error) or lost
            except Exception as error:
                lost = f"the scheduler refused the client: {error}"
                break
            else:
                if comm.closed:
                    continue
                self._reconnecting = None
                logger.info("the client is back at its scheduler")
                self._tell_status("running")
                return
            if comm is not None:
                comm.abort()
        self._reconnecting = None
        logger.warning("the connection to the scheduler is lost: %s", lost)
        self._give_up(f"the connection to the scheduler was lost ({lost})")
        self._tell_status("closed")

    def _on_welcome(self, message: ClientWelcome) -> None:
        """Under the lock."""
        self.scheduler_id = message.scheduler_id
        if self.welcomed:
            self.ledger.take_own_ids()
            self._returned = message
        else:
            self._take_number(message.number)
            self.welcomed = self.connected = True
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_result(None)

    def _take_number(self, number: int) -> None:
        shift = self.ledger.set_number(number)
        self.outgoing.rebase(shift)
        self._functions.rebase(shift)
        self._number = number

    def renew_ids(self, message: SubmitTasks | ForgetFunctions) -> bool:
        """``message`` was composed over time: the ids in it may be older than this client's number. Under the lock.

        False: they belong to a number that it had before, and mean nothing any more.
        """
        if not self.welcomed or not message.ids:
            return True
        number = message.ids[0] >> ID_BITS
        if number == 0:
            raise_ids(message, self._number << ID_BITS)
        return number in (0, self._number)

    def _settle_return(self, welcome: ClientWelcome, wake: list[Waiter]) -> None:
        """All that this client has said is in ``sent`` or ``outgoing``: bring it together with what the scheduler has. Under the lock."""
        self._returned = None
        self.peers.clear()
        if welcome.number != self._number:
            # Somebody else has its number: nothing that it has said of its keys means anything any more.
            self.ledger.cancel_all(LOST_IN_RESTART, wake)
            self.sent.clear()
            self.outgoing.take()
            self._take_number(welcome.number)
        if welcome.known:
            self.sent.received(welcome.received)
        else:
            on_their_way = self.sent.messages() + self.outgoing.messages()
            lost = recollections(self.ledger, self._number, self._functions.defined(), on_their_way)
            if lost:
                self.sent.put_first(encode([*lost, Sent(self.sent.acknowledged)]))
        for message in self._requests.ask_again(self.sent.acknowledged):
            self.outgoing.add(message)
        self.outgoing.add(confirmation(self.ledger))
        self._resend_due = self.connected = True

    @contextmanager
    def composing(self) -> Iterator[None]:
        """Keys are claimed in the ledger inside the block, and are in ``outgoing`` at its end. From any thread."""
        with self.lock:
            self._composing += 1
        try:
            yield
        finally:
            with self.lock:
                self._composing -= 1
            if self._returned is not None:
                self.wake_up()

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

    def forget_after_fork(self) -> None:
        """In the child of a fork: leave alone what is shared with the parent, and have nobody wait for what is not heard here."""
        # Another thread of the parent's may have held it.
        self.lock = threading.RLock()
        self._forked = self._turn_due = True
        self.connected = False
        self.closed_reason = "the client belongs to the process that this one was forked from"

    async def ended(self, timeout_s: float) -> None:
        """Wait until the other side has closed the stream, but no longer than that."""
        if self.comm is not None and not self.comm.closed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
            except TimeoutError:
                logger.warning("the scheduler did not close the connection in %g s", timeout_s)

    # ------------------------------------------------------------------------------------------ sending

    def check_open(self) -> None:
        """From any thread. Raises ClosedClientError that says why nothing can be sent."""
        if self.closed_reason is not None:
            raise ClosedClientError(f"{self.closed_reason}; make a new one")

    def send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        """From any thread. Raises ClosedClientError."""
        self.check_open()
        with self.lock:
            self.outgoing.add(message, buffers)
        self.wake_up()

    def wake_up(self, waiters: Iterable[Waiter] = ()) -> None:
        """From any thread: there is something to send, or somebody to wake."""
        if waiters:
            with self.lock:
                self._to_wake.extend(waiters)
        if not self._turn_due:
            self._turn_due = True
            try:
                self.loop.call_soon_threadsafe(self._turn)
            except RuntimeError:
                pass  # the loop is closed, and so are we

    def submitted(self) -> None:
        """From any thread: as ``wake_up``, and more of the same may follow at once.

        The first of a burst is sent at once. A turn for each of the others would cost more than they do: they are sent together,
        a moment later, or as soon as something is heard or somebody waits (``hurry``).
        """
        if not self._turn_due:
            self._turn_due = True
            try:
                self.loop.call_soon_threadsafe(self._turn_of_burst)
            except RuntimeError:
                pass  # the loop is closed, and so are we

    def _turn_of_burst(self) -> None:
        now = self.loop.time()
        if now - self._burst_at < BURST_S and self._turn_due and not self._frames and not self._hurried:
            self._paced = self.loop.call_at(self._burst_at + BURST_S, self._turn_of_burst)
            return
        self._burst_at = now
        self._turn()

    def hurry(self) -> None:
        """From any thread: somebody waits for what was submitted."""
        self._hurried = True
        if self._paced is not None:
            try:
                self.loop.call_soon_threadsafe(self._end_pace)
            except RuntimeError:
                pass  # the loop is closed, and so are we

    def _end_pace(self) -> None:
        if self._paced is not None:
            self._turn()

    def release(self, state: KeyState) -> None:
        """A reference is gone. From anywhere, finalizers included: no lock is taken."""
        self._released.append(state)
        if not self._turn_due:
            self.wake_up()

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
        self._frames.append(body)
        if not self._turn_due or self._paced is not None:
            self._turn_due = True
            self._stop_pace()
            self.loop.call_soon(self._turn)
        self._burst_at = -inf

    def _stop_pace(self) -> None:
        if self._paced is not None:
            self._paced.cancel()
            self._paced = None

    def _turn(self) -> None:
        self._turn_due = self._hurried = False
        self._stop_pace()
        frames, self._frames = self._frames, []
        try:
            messages = [message for body in frames for message in decode_scheduler_to_client(body)]
        except PeerProtocolError as error:
            messages = []
            logger.error("the scheduler broke the protocol: %s", error)
            self.closed_reason = f"the scheduler broke the protocol ({error})"
            self.loop.call_soon(self._give_up, self.closed_reason)
        wake: list[Waiter] = []
        with self.lock:
            wake, self._to_wake = self._to_wake, wake
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

    # ------------------------------------------------------------------------------------------ waiting

    def settled_here(self, states: Sequence[KeyState], fail_fast: bool, timeout_s: float | None) -> bool:
        """As ``settled``, from a thread that may block; whether it came to that in time."""
        woken = threading.Lock()
        woken.acquire()
        waiter = Waiter(woken.release, fail_fast=fail_fast)
        if not self._attach(states, waiter):
            return True
        self.hurry()
        try:
            return woken.acquire(timeout=-1 if timeout_s is None else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
        finally:
            waiter.active = False

    def _attach(self, states: Sequence[KeyState], waiter: Waiter) -> bool:
        """Have it wait; whether there is anything to wait for."""
        with self.lock:
            if waiter.fail_fast:
                for state in states:
                    if state.status is not FINISHED and state.status is not PENDING:
                        return False
            return self.attach(states, waiter) > 0

    def attach(self, states: Iterable[KeyState], waiter: Waiter) -> int:
        """Have it wait for those that are pending; how many they are. From any thread.

        Raises ClosedClientError in the child of a fork, where nothing will be heard of them.
        """
        with self.lock:
            remaining = self.ledger.attach(states, waiter)
        if remaining and self._forked:
            self.check_open()
        return remaining

    async def settled(self, states: Sequence[KeyState], *, fail_fast: bool = False) -> None:
        """Wait until all of them are settled, or with ``fail_fast`` until one of them is not finished well."""
        done: asyncio.Future[None] = self.loop.create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        waiter = Waiter(wake, fail_fast=fail_fast)
        if self._attach(states, waiter):
            self._end_pace()
            try:
                await done
            finally:
                waiter.active = False


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
