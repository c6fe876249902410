"""Scenes of a client: its session and ledger are real; the script plays its user and the scheduler. Pure: nothing is connected."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from treadle.client.session.ledger import CANCELLED, ID_BITS, PENDING, Cancellation, KeyState, dead_state
from treadle.client.session.stream import Session
from treadle.comm.interface import Comm
from treadle.exceptions import CommClosedError
from treadle.messages.base import Message, TaskError
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ClientWelcome,
    KeysAliased,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysLost,
    KeysPending,
    Received,
    RetryKeys,
    SubmitTasks,
)
from treadle.messages.codec import decode_client_to_scheduler, decode_scheduler_to_client, encode
from treadle.testing.scenes.script import SceneError, listed
from treadle.testing.scenes.wording import worded
from treadle.testing.shorthand import Names

_NUMBER = 5
_GRACE_S = 30.0


class _Idle:
    """The handle that ``_Loop`` returns for work that it is to do later."""

    def cancel(self) -> None:
        pass

    def add_done_callback(self, callback: Any) -> None:
        """Does nothing, because the work is never done."""


class _Loop:
    """As much of an event loop as a session needs. The stage turns it by hand, and no time passes."""

    def __init__(self) -> None:
        self.due: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return 0.0

    def call_soon(self, act: Callable[..., object], *arguments: object) -> None:
        self.due.append(lambda: act(*arguments))

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, act: Callable[..., object], *arguments: object) -> _Idle:
        # A burst of submissions does not wait, but is sent in the turn of this line.
        self.due.append(lambda: act(*arguments))
        return _Idle()

    def create_task(self, coroutine: Any, name: str) -> _Idle:
        # The script says when to reconnect.
        coroutine.close()
        return _Idle()

    def turn(self) -> None:
        while self.due:
            self.due.popleft()()


class _Wire:
    """The client's end of a stream."""

    closed = False
    unsent_bytes = 0

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, body: Any, buffers: Sequence[Any] = ()) -> None:
        self.sent += decode_client_to_scheduler(body)


class _NoFunctions:
    """A table of functions that is empty: scenes do not look at calls."""

    def defined(self) -> Sequence[Any]:
        return ()

    def rebase(self, shift: int) -> None:
        pass


class ClientStage:
    """See ``script.Stage``. ``me``: the client under test; ``ME sees`` the states of its futures."""

    def __init__(self, me: str, settings: dict[str, str]) -> None:
        self.me = me
        self.names = Names()
        for number, name in enumerate(listed(settings.get("workers", "")), 1):
            self.names.workers[number] = name
        self._loop = _Loop()
        loop: Any = self._loop
        self.session = Session(loop, session=b"s", functions=_NoFunctions(), on_status=lambda status: None, reconnect_grace_s=_GRACE_S)
        self.wire = _Wire()
        self._submissions = 0
        #: The keys that the user holds, with one future each, and the last state that was seen of each.
        self.held: dict[str, KeyState] = {}
        self._seen: dict[str, str] = {}
        self._connect()
        self.hear(ClientWelcome(_NUMBER, "the scheduler"))

    # ------------------------------------------------------------------------------------------------- a turn

    def happen(self, lines: Sequence[str]) -> list[str]:
        for line in lines:
            self._one(line)
        self._loop.turn()
        return self._said() + self._seen_anew()

    def _said(self) -> list[str]:
        sent, self.wire.sent = self.wire.sent, []
        lines = []
        for message in sent:
            self._learn(message)
            lines.append(f"{self.me} -> scheduler: {worded(self.names, message)}")
        return lines

    def _learn(self, message: Message) -> None:
        """Learn the ids that the client uses for its keys."""
        keys = getattr(message, "keys", None)
        if keys is not None:
            self.names.keys.update(zip(getattr(message, "ids"), keys, strict=True))  # noqa: B009

    def _seen_anew(self) -> list[str]:
        """The changes in the states of the user's futures since the last call."""
        lines = []
        for key, state in self.held.items():
            looks = self._looks(state)
            # A new future is always pending, which is not worth a line.
            if self._seen.get(key, PENDING) != looks:
                self._seen[key] = looks
                lines.append(f"{self.me} sees that {key} is {looks}")
        return lines

    def _looks(self, state: KeyState) -> str:
        if state.status is CANCELLED and isinstance(state.detail, Cancellation):
            return f"cancelled, because {state.detail.reason}"
        return state.status

    def _one(self, line: str) -> None:
        told = re.fullmatch(rf"scheduler -> {self.me}: (\w+) (.*)", line)
        if told is not None and told[1] in _TOLD:
            try:
                message = _TOLD[told[1]](self, told[2])
            except KeyError as error:
                raise SceneError(f"{line!r} speaks of {error}, which {self.me} has never sent") from None
            self.hear(message)
            return
        for pattern, act in _HAPPENS:
            found = re.fullmatch(pattern.replace("ME", re.escape(self.me)), line)
            if found is not None:
                try:
                    act(self, *found.groups())
                except KeyError as error:
                    raise SceneError(f"{line!r} speaks of {error}, of which {self.me} has no future") from None
                return
        raise SceneError(f"scenes of the client {self.me} have no such line: {line!r}")

    # ---------------------------------------------------------------------------------------------- the stream

    def hear(self, message: Message) -> None:
        (arrived,) = decode_scheduler_to_client(encode([message]))
        if isinstance(arrived, ClientWelcome):
            self.session._reconnecting = None
        self.session._receive(encode([arrived]), [])
        self._loop.turn()

    def _connect(self) -> None:
        self.wire = _Wire()
        comm: Any = self.wire
        self.session.comm = comm

    def lose(self) -> None:
        comm: Comm | None = self.session.comm
        assert comm is not None
        self.session._on_closed(comm, CommClosedError("the connection broke"))
        self._connect()

    def id(self, key: str) -> int:
        """The id that the client has for ``a``, or had last; of ``a of before`` the one that it had before that."""
        name = key.removesuffix(" of before")
        ids = [id for id, known in self.names.keys.items() if known == name]
        if len(ids) <= (name != key):
            raise KeyError(key)
        return ids[-1 - (name != key)]

    def ids(self, text: str) -> list[int]:
        return [self.id(key) for key in listed(text)]

    # ------------------------------------------------------------------------------------------------ the user

    def submit(self, text: str) -> None:
        """As ``Client.submit`` does: a key that is known already gets another reference and no row."""
        session = self.session
        for row in listed(text):
            found = re.fullmatch(r"([^\s(]+)(?:\((.*)\))?", row)
            if found is None:
                raise SceneError(f"tasks are written as 'a, b(a)', not {row!r}")
            key, needs = found[1], [self.held[need] for need in listed(found[2] or "")]
            if not all([need.id for need in needs]):
                self._hold(key, dead_state(key, "lost dependencies"))
                continue
            with session.lock:
                state, id = session.ledger.claim_one(key)
                if id:
                    self._submissions += 1
                    session.outgoing.add(SubmitTasks(self._submissions, [id], [key], [0], [b""], [[need.id for need in needs]]))
            self._hold(key, state)
        session.wake_up()

    def attach(self, text: str) -> None:
        session = self.session
        for key in listed(text):
            with session.lock:
                state, id = session.ledger.claim_one(key)
                if id:
                    session.outgoing.add(AttachKeys([id], [key]))
            self._hold(key, state)
        session.wake_up()

    def _hold(self, key: str, state: KeyState) -> None:
        before = self.held.get(key)
        self.held[key] = state
        self.names.keys.setdefault(state.id, key)
        if before is not None:
            self.session.release(before)

    def release(self, text: str) -> None:
        for key in listed(text):
            self.session.release(self.held.pop(key))
            self._seen.pop(key, None)

    def cancel(self, text: str) -> None:
        session = self.session
        with session.lock:
            ids = session.ledger.cancel([self.held[key] for key in listed(text)], "unknown", None, [])
            if ids:
                session.outgoing.add(CancelKeys(ids))
        session.wake_up()

    def retry(self, text: str) -> None:
        session = self.session
        with session.lock:
            ids = session.ledger.retry([self.held[key] for key in listed(text)])
            if ids:
                session.outgoing.add(RetryKeys(ids))
        session.wake_up()

    # ------------------------------------------------------------------------------------------------- claims

    def claim(self, line: str) -> str:
        if line == "now nothing is left":
            ledger = self.session.ledger
            left = [*ledger.states, *ledger.by_id]
            return line if not left else f"now this is left: {left}"
        about = re.match(r"now (\S+) is ", line)
        if about is None or about[1] not in self.held:
            raise SceneError(f"claims are 'now a is finished' and 'now nothing is left', not {line!r}")
        return f"now {about[1]} is {self._looks(self.held[about[1]])}"


def _in_memory(stage: ClientStage, text: str) -> Message:
    keys, _, worker = text.partition(" at ")
    (number,) = [number for number, name in stage.names.workers.items() if name == worker] or (0,)
    if not number:
        raise SceneError(f"there is no worker {worker!r}: name it under 'workers:'")
    return KeysInMemory(number, "int", stage.ids(keys))


def _erred(stage: ClientStage, text: str) -> Message:
    found = re.fullmatch(r"(.*); because (\S+): (.*)", text)
    if found is None:
        raise SceneError(f"failures are written as 'a, b; because a: boom', not {text!r}")
    return KeysErred(stage.ids(found[1]), TaskError(b"", b"", found[3], ""), found[2])


def _cancelled(stage: ClientStage, text: str) -> Message:
    keys, _, reason = text.partition("; because ")
    return KeysCancelled(stage.ids(keys), reason or "unknown")


def _aliased(stage: ClientStage, text: str) -> Message:
    """``"a is bob.a"``: the other name counts from here on."""
    key, _, other = text.partition(" is ")
    if not other:
        raise SceneError(f"another client's name is given as 'a is bob.a', not {text!r}")
    id = stage.id(key)
    canonical = 1 << ID_BITS | id & ((1 << ID_BITS) - 1)
    stage.names.keys[canonical] = other
    return KeysAliased([id], [canonical])


def _welcome(stage: ClientStage, text: str) -> Message:
    if text == "does not know the client":
        return ClientWelcome(_NUMBER, "another scheduler")
    found = re.fullmatch(r"has the frames up to (\d+)", text)
    if found is None:
        raise SceneError(f"a welcome 'has the frames up to 1' or 'does not know the client', not {text!r}")
    return ClientWelcome(_NUMBER, "the scheduler", True, int(found[1]))


_TOLD: dict[str, Callable[[ClientStage, str], Message]] = {
    "KeysInMemory": _in_memory,
    "KeysErred": _erred,
    "KeysCancelled": _cancelled,
    "KeysPending": lambda stage, text: KeysPending(stage.ids(text)),
    "KeysLost": lambda stage, text: KeysLost(stage.ids(text)),
    "KeysAliased": _aliased,
    "ClientWelcome": _welcome,
    "Received": lambda stage, text: Received(int(text)),
}

_HAPPENS: list[tuple[str, Callable[..., None]]] = [
    (r"ME submits (.+)", lambda stage, tasks: stage.submit(tasks)),
    (r"ME wants (.+), whoever has submitted (?:it|them)", lambda stage, keys: stage.attach(keys)),
    (r"ME releases (.+)", lambda stage, keys: stage.release(keys)),
    (r"ME cancels (.+)", lambda stage, keys: stage.cancel(keys)),
    (r"ME retries (.+)", lambda stage, keys: stage.retry(keys)),
    (r"the stream breaks", lambda stage: stage.lose()),
]
