"""Who waits for keys of a client to settle, in threads and coroutines, and what they share with who tells them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence

from treadle.client.session.ledger import FINISHED, PENDING, KeyState, Ledger, Waiter
from treadle.client.session.pacing import Pace
from treadle.exceptions import ClosedClientError


class Waiting:
    """Keys and who waits for them: the part of a session that user threads meet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Guards the ledger, the outgoing messages and the caches of the submitting threads. Reentrant because a finalizer
        #: of the user's may run, and submit, wherever memory is allocated.
        self.lock = threading.RLock()
        self.ledger = Ledger()
        #: Why nothing can be sent any more; None while all is well, also before the connection is made.
        self.closed_reason: str | None = None
        self._pace = Pace(loop, self._turn)
        #: From any thread: somebody waits for what was submitted.
        self.hurry = self._pace.hurry
        #: Waiters to be woken in the next turn; filled by other threads under the lock.
        self._to_wake: list[Waiter] = []
        #: This is the child of a fork: nothing is heard, and nobody may wait.
        self._forked = False

    def _turn(self) -> None:
        raise NotImplementedError

    def check_open(self) -> None:
        """From any thread. Raises ClosedClientError that says why nothing can be sent."""
        if self.closed_reason is not None:
            raise ClosedClientError(f"{self.closed_reason}; make a new one")

    def wake_up(self, waiters: Iterable[Waiter] = ()) -> None:
        """From any thread: there is something to send, or somebody to wake."""
        if waiters:
            with self.lock:
                self._to_wake.extend(waiters)
        self._pace.soon()

    def attach(self, states: Iterable[KeyState], waiter: Waiter) -> int:
        """Have it wait for those that are pending; how many they are. From any thread.

        Raises ClosedClientError in the child of a fork, where nothing will be heard of them.
        """
        with self.lock:
            remaining = self.ledger.attach(states, waiter)
        if remaining and self._forked:
            self.check_open()
        return remaining

    def _attach(self, states: Sequence[KeyState], waiter: Waiter) -> bool:
        """Have it wait; whether there is anything to wait for."""
        with self.lock:
            if waiter.fail_fast:
                for state in states:
                    if state.status is not FINISHED and state.status is not PENDING:
                        return False
            return self.attach(states, waiter) > 0

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

    async def settled(self, states: Sequence[KeyState], *, fail_fast: bool = False) -> None:
        """Wait until all of them are settled, or with ``fail_fast`` until one of them is not finished well."""
        done: asyncio.Future[None] = self.loop.create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        waiter = Waiter(wake, fail_fast=fail_fast)
        if self._attach(states, waiter):
            self._pace.end_burst()
            try:
                await done
            finally:
                waiter.active = False

    def forget_after_fork(self) -> None:
        """In the child of a fork: leave alone what is shared with the parent, and have nobody wait for what is not heard here."""
        # Another thread of the parent's may have held it.
        self.lock = threading.RLock()
        self._forked = self._pace.due = True
        self.closed_reason = "the client belongs to the process that this one was forked from"
