"""What a client knows of its keys: who refers to them, what became of them, and who waits for that.

No I/O, no clock, no threads: the caller holds the session's lock. A key has one state; futures share it and count as its
references. A state is *live* while its id is known to the scheduler as this client's; a dead one (``id == 0``) never
changes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from treadle.messages.base import Message, TaskError
from treadle.messages.client_scheduler import (
    KeysAliased,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysLost,
    KeysPending,
)
from treadle.utils.keys import Key, key_from_wire

PENDING: Final = "pending"
FINISHED: Final = "finished"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"
LOST: Final = "lost"

#: Ids of a client are ``number << ID_BITS | n``.
ID_BITS: Final = 32


class Failure:
    """Why keys are erred: shared by all that failed for it."""

    __slots__ = ("blame", "error")

    def __init__(self, error: TaskError, blame: Key) -> None:
        self.error = error
        self.blame = blame


class Cancellation:
    """Why keys are cancelled."""

    __slots__ = ("msg", "reason")

    def __init__(self, reason: str, msg: str | None) -> None:
        self.reason = reason
        self.msg = msg


class Waiter:
    """Somebody who waits for keys to settle (finish, fail, be cancelled or lost).

    ``wake`` is called by the shell, not here, when nothing remains; with ``fail_fast`` also at the first key that did not
    finish; with ``collect`` whenever ``settled`` has grown.
    """

    __slots__ = ("active", "fail_fast", "remaining", "settled", "wake", "woken")

    def __init__(self, wake: Callable[[], object], *, fail_fast: bool = False, collect: bool = False) -> None:
        self.wake = wake
        self.fail_fast = fail_fast
        #: Keys it is attached to that have not settled.
        self.remaining = 0
        self.settled: list[KeyState] | None = [] if collect else None
        #: A wake-up is due or done. A collecting waiter sets it back when it takes what was settled.
        self.woken = False
        #: False once nobody waits any more (timeout, interrupt): to be dropped where it is still attached.
        self.active = True


class KeyState:
    """A key of this client. Read by any thread, changed under the session's lock only."""

    __slots__ = ("detail", "digest", "id", "key", "refcount", "status", "type", "value", "waiter", "worker")

    def __init__(self, key: Key, id: int) -> None:
        self.key = key
        #: The id that the scheduler and the workers use for it; 0 once it is dead.
        self.id = id
        self.status = PENDING
        #: Of the task, where the key does not say all of it; see ``treadle.client.rows.digests``.
        self.digest = b""
        #: Futures of this process that refer to it.
        self.refcount = 1
        #: Number of a worker that has the value; 0 when not known.
        self.worker = 0
        #: Name of the value's type; None when not known.
        self.type: str | None = None
        #: Pickle of a small value that came along; None: it is to be fetched from ``worker``.
        self.value: bytes | None = None
        self.detail: Failure | Cancellation | None = None
        self.waiter: Waiter | list[Waiter] | None = None

    @property
    def failure(self) -> Failure | None:
        return self.detail if isinstance(self.detail, Failure) else None

    def __repr__(self) -> str:
        return f"<KeyState {self.key!r} {self.status}>"


class Ledger:
    """All keys of one client."""

    def __init__(self) -> None:
        self._base = 0
        self._count = 0
        self._function_count = 0
        #: Live states by key.
        self.states: dict[Key, KeyState] = {}
        #: Live states by the id that the scheduler uses. Same states as in ``states``.
        self.by_id: dict[int, KeyState] = {}
        #: Of live states that the scheduler calls otherwise than this client did: that id -> the client's own.
        self.own_ids: dict[int, int] = {}
        #: The reverse of ``own_ids``.
        self._other_ids: dict[int, int] = {}

    # ------------------------------------------------------------------------------------------ numbers

    def set_number(self, number: int) -> int:
        """The scheduler's number for this client. Returns what all ids given before have to be raised by."""
        base = number << ID_BITS
        shift = base - self._base
        self._base = base
        for state in self.states.values():
            state.id += shift
        self.by_id = {state.id: state for state in self.states.values()}
        return shift

    def new_ids(self, count: int) -> range:
        """Ids never used before. Those given before ``set_number`` are provisional."""
        first = self._base + self._count + 1
        self._count += count
        return range(first, first + count)

    def rename(self, state: KeyState) -> None:
        """It gets an id of this client's own."""
        del self.by_id[state.id]
        (state.id,) = self.new_ids(1)
        self.by_id[state.id] = state

    def new_function_id(self) -> int:
        self._function_count += 1
        return self._base + self._function_count

    # ------------------------------------------------------------------------------------------ references

    def add(self, key: Key, id: int) -> KeyState:
        """A new state, pending, with one reference. There is no live state of this key."""
        state = KeyState(key, id)
        self.states[key] = state
        self.by_id[id] = state
        return state

    def claim(self, keys: Sequence[Key]) -> tuple[list[KeyState], list[int], range]:
        """One more reference to each key. Returns their states, the positions of those that are new, and the ids of these."""
        states = self.states
        claimed: list[KeyState] = []
        new: list[int] = []
        # Not all of these need to be used: ids are plenty.
        first = id = self.new_ids(len(keys)).start
        for position, key in enumerate(keys):
            state = states.get(key)
            if state is None:
                state = KeyState(key, id)
                states[key] = state
                self.by_id[id] = state
                new.append(position)
                id += 1
            else:
                state.refcount += 1
            claimed.append(state)
        return claimed, new, range(first, id)

    def claim_one(self, key: Key) -> tuple[KeyState, int]:
        """As ``claim`` for one key: its state, and its id if it is new, else 0."""
        state = self.states.get(key)
        if state is not None:
            state.refcount += 1
            return state, 0
        self._count += 1
        id = self._base + self._count
        return self.add(key, id), id

    def release(self, states: Iterable[KeyState]) -> list[int]:
        """One reference less to each. Returns the ids that nobody refers to any more; their states are dead."""
        gone: list[int] = []
        for state in states:
            state.refcount -= 1
            if state.refcount <= 0 and state.id:
                gone.append(state.id)
                self._bury(state)
        return gone

    def take_own_ids(self) -> None:
        """The other names are those of a scheduler that may be gone: the one that is there says which it uses."""
        for id, own in self.own_ids.items():
            state = self.by_id.pop(id)
            state.id = own
            self.by_id[own] = state
        self.own_ids.clear()
        self._other_ids.clear()

    def own_id(self, state: KeyState) -> int:
        """Its name for what is said of it in frames: another scheduler, which may get them anew, need not know those of this one."""
        return self.own_ids.get(state.id, state.id) if self.own_ids else state.id

    def _bury(self, state: KeyState) -> None:
        del self.by_id[state.id]
        if self.own_ids:
            self._other_ids.pop(self.own_ids.pop(state.id, 0), None)
        del self.states[state.key]
        state.id = 0

    # ------------------------------------------------------------------------------------------ waiting

    def attach(self, states: Iterable[KeyState], waiter: Waiter) -> int:
        """Have ``waiter`` wait for those that are pending. Returns how many keys it waits for."""
        for state in states:
            if state.status is not PENDING:
                continue
            waiter.remaining += 1
            present = state.waiter
            if present is None:
                state.waiter = waiter
            elif isinstance(present, Waiter):
                state.waiter = [present, waiter] if present.active else waiter
            else:
                if not all([other.active for other in present]):
                    present[:] = [other for other in present if other.active]
                present.append(waiter)
        return waiter.remaining

    # ------------------------------------------------------------------------------------------ events

    def handle(self, message: Message, wake: list[Waiter]) -> None:
        """The scheduler's word on keys. Adds to ``wake`` who is to be woken, each once.

        Ids that are not known are those of keys released meanwhile.
        """
        if isinstance(message, KeysInMemory):  # most of them are
            self._in_memory(message, wake)
        elif isinstance(message, KeysErred):
            self._erred(message, wake)
        elif isinstance(message, KeysPending):
            for id in message.ids:
                self._pending(self.by_id.get(id))
        elif isinstance(message, KeysAliased):
            for id, canonical in zip(message.ids, message.canonical, strict=True):
                self._alias(id, canonical)
        elif isinstance(message, KeysCancelled):
            self.cancel(self._called(message.ids), message.reason, message.msg, wake)
        elif isinstance(message, KeysLost):
            for id in message.ids:
                state = self.by_id.get(id)
                if state is not None:
                    state.status = LOST
                    state.worker = 0
                    _settle(state, wake)

    def _in_memory(self, message: KeysInMemory, wake: list[Waiter]) -> None:
        by_id = self.by_id
        worker = message.worker
        type_name = message.type
        values = message.values
        for row, id in enumerate(message.ids):
            state = by_id.get(id)
            if state is None:
                continue
            if values is not None and values[row]:
                state.value = values[row]
            state.status = FINISHED
            state.worker = worker
            state.type = type_name
            state.detail = None
            if state.waiter is not None:
                _settle(state, wake)

    def _erred(self, message: KeysErred, wake: list[Waiter]) -> None:
        failure = Failure(message.error, key_from_wire(message.blame))
        for id in message.ids:
            state = self.by_id.get(id)
            if state is not None:
                # What is lost stays lost: this says how.
                if state.status is not LOST:
                    state.status = ERROR
                state.worker = 0
                state.detail = failure
                _settle(state, wake)

    def _pending(self, state: KeyState | None) -> None:
        if state is not None:
            state.status = PENDING
            state.worker = 0
            state.value = None
            state.detail = None

    def _alias(self, id: int, canonical: int) -> None:
        state = self.by_id.pop(id, None)
        if state is not None:
            state.id = canonical
            self.by_id[canonical] = state
            own = self.own_ids.pop(id, id)
            self.own_ids[canonical] = own
            self._other_ids[own] = canonical

    def redefined(self, ids: list[int]) -> list[Key]:
        """These stand for other tasks than this client has submitted, of which nothing is known here. The keys of those that are alive."""
        keys: list[Key] = []
        for state in self._called(ids):
            state.digest = b"?%020d" % state.id
            keys.append(state.key)
        return keys

    def _called(self, ids: list[int]) -> list[KeyState]:
        """Those that are alive; by this client's own ids, too: the scheduler may have forgotten that it has given others."""
        found: list[KeyState] = []
        for id in ids:
            state = self.by_id.get(id)
            if state is None and self._other_ids:
                state = self.by_id.get(self._other_ids.get(id, 0))
            if state is not None:
                found.append(state)
        return found

    def finish(self, state: KeyState, worker: int, type_name: str, wake: list[Waiter]) -> None:
        """This client put the value on that worker itself."""
        if not state.id:
            return
        state.status = FINISHED
        state.worker = worker
        state.type = type_name
        state.detail = None
        _settle(state, wake)

    def cancel(self, states: Iterable[KeyState], reason: str, msg: str | None, wake: list[Waiter]) -> list[int]:
        """These are not computed any more. Returns the ids they had; all of them are dead now."""
        cancellation = Cancellation(reason, msg)
        ids: list[int] = []
        for state in states:
            if not state.id:
                continue
            ids.append(state.id)
            self._bury(state)
            state.status = CANCELLED
            state.worker = 0
            state.detail = cancellation
            _settle(state, wake)
        return ids

    def fail_pending(self, error: TaskError, wake: list[Waiter]) -> None:
        """This ledger cannot be gone on with: who waits hears why, and that stays so."""
        for state in list(self.states.values()):
            if state.status is PENDING:
                self._bury(state)
                state.status = ERROR
                state.detail = Failure(error, state.key)
                _settle(state, wake)

    def cancel_all(self, reason: str, wake: list[Waiter]) -> None:
        """The scheduler is gone, or forgot everything."""
        self.cancel(list(self.by_id.values()), reason, None, wake)

    def retry(self, states: Iterable[KeyState]) -> list[int]:
        """Erred states are pending again. Returns the ids to be retried."""
        ids: list[int] = []
        for state in states:
            if state.id and state.status is ERROR:
                self._pending(state)
                ids.append(state.id)
        return ids


def dead_state(key: Key, reason: str, msg: str | None = None) -> KeyState:
    """A state that was cancelled before it was ever sent."""
    state = KeyState(key, 0)
    state.status = CANCELLED
    state.detail = Cancellation(reason, msg)
    return state


def _settle(state: KeyState, wake: list[Waiter]) -> None:
    present = state.waiter
    if present is None:
        return
    state.waiter = None
    if isinstance(present, Waiter):
        _tell(present, state, wake)
    else:
        for waiter in present:
            _tell(waiter, state, wake)


def _tell(waiter: Waiter, state: KeyState, wake: list[Waiter]) -> None:
    waiter.remaining -= 1
    if waiter.settled is not None:
        waiter.settled.append(state)
    elif waiter.remaining > 0 and not (waiter.fail_fast and state.status is not FINISHED):
        return
    if not waiter.woken and waiter.active:
        waiter.woken = True
        wake.append(waiter)
