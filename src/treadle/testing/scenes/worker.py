"""Scenes of a worker: its core is real; the script plays its threads, its peers and the scheduler. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from treadle.messages.base import Holders, Message, Peer, TaskError
from treadle.messages.codec import decode_scheduler_to_worker, decode_worker_to_scheduler, encode
from treadle.messages.local import (
    DataLost,
    DataPut,
    ExecutionFailed,
    ExecutionRescheduled,
    ExecutionsDone,
    ExecutionsSeceded,
    ExecutionsStarted,
    ExecutionUnready,
    FetchBusy,
    FetchDone,
    FetchFailed,
    Paused,
    TakeBackDone,
    Tick,
)
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    DropKeys,
    FetchReplicas,
    HoldersChanged,
    TakeBack,
    WorkerPeers,
    WorkerPeersGone,
    WorkerWelcome,
)
from treadle.testing.scenes.script import SceneError, attempt_of, held_at, listed
from treadle.testing.scenes.wording import inventory_words, worded
from treadle.testing.shorthand import Names
from treadle.worker.transitions.machine import WorkerTransitions
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import STATE_NAMES

_NBYTES = 10


class WorkerStage:
    """See ``script.Stage``. ``me``: the name of the worker under test; all other workers are peers that it knows."""

    def __init__(self, me: str, settings: dict[str, str]) -> None:
        self.me = me
        self.core = WorkerTransitions("here", {}, validate=True)
        self.now = 100.0
        self.names = Names()
        self._numbers: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        #: The ids that it has requested from its peers, by name; the tasks that its threads have, and those to give back, by key.
        self.asked: dict[str, list[int]] = {}
        self.given: dict[str, None] = {}
        self.wanted_back: list[str] = []
        self.stored: dict[Any, None] = {}
        self._wake_at = 0.0
        self._handle([WorkerWelcome(self.number(me), "scheduler")])
        peers = [name for name in listed(settings.get("workers", "")) if name != me]
        if peers:
            self._handle([WorkerPeers([Peer(self.number(name), f"tcp://there:{self.number(name)}") for name in peers])])

    # ------------------------------------------------------------------------------------------------- names

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        self.names.workers[number] = name
        return number

    def id(self, key: str) -> int:
        id = self._ids.setdefault(key, len(self._ids) + 1)
        self.names.keys[id] = key
        return id

    def holders(self, text: str) -> Holders:
        key, workers = held_at(text)
        return Holders(self.id(key), key, _NBYTES, [self.number(name) for name in workers])

    # ------------------------------------------------------------------------------------------------- a turn

    def happen(self, lines: Sequence[str]) -> list[str]:
        done: list[str] = []
        events: list[Any] = []
        for line in lines:
            if line == f"{self.me} comes back to the scheduler":
                found = self.core.inventory(self.now)
                done.append(f"{self.me} -> scheduler: RegisterWorker {inventory_words(self.names, found)}")
            else:
                try:
                    events.append(self._event(line))
                except (KeyError, ValueError) as error:
                    raise SceneError(f"{line!r} makes no sense here: {error}") from None
        return done + (self._handle(events) if events else [])

    def _handle(self, events: list[Any]) -> list[str]:
        out = self.core.handle(events, self.now)
        self._wake_at = out.wake_at
        return self._performed(out)

    def _performed(self, out: WorkerOutbox) -> list[str]:
        """The lines for what the worker does, in the order in which it does that."""
        me, names = self.me, self.names
        done = []
        for key in out.drop:
            del self.stored[key]
            done.append(f"{me} drops {key}")
        for key, _ in out.store.values():
            self.stored[key] = None
            done.append(f"{me} stores {key}")
        for message in decode_worker_to_scheduler(encode(out.messages())):
            done.append(f"{me} -> scheduler: {worded(names, message)}")
        for spec in out.execute:
            if spec.key in self.given:
                done.append(f"{me} executes {spec.key} A SECOND TIME")
            self.given[spec.key] = None
            done.append(f"{me} executes {spec.key} attempt {spec.attempt}")
        for id in out.take_back:
            self.wanted_back.append(names.key(id))
            done.append(f"{me} wants {names.key(id)} back from its threads")
        for address in out.closed_peers:
            done.append(f"{me} closes its connection to {names.worker(int(address.rpartition(':')[2]))}")
        for fetch in out.fetch:
            self.asked[names.worker(fetch.peer)] = fetch.ids
            done.append(f"{me} -> {names.worker(fetch.peer)}: asks for {', '.join([names.key(id) for id in fetch.ids])}")
        return done

    def _event(self, line: str) -> Any:
        said = re.fullmatch(rf"scheduler -> {self.me}: (\w+) (.*)", line)
        if said is not None and said[1] in _SAID:
            message = _SAID[said[1]](self, said[2])
            return decode_scheduler_to_worker(encode([message]))[0]
        answered = re.fullmatch(rf"(\S+) -> {self.me}: (.*)", line)
        if answered is not None and answered[1] in self.asked:
            return self._answer(answered[1], answered[2])
        for pattern, make in _HAPPENS:
            found = re.fullmatch(pattern, line)
            if found is not None:
                return make(self, *found.groups())
        raise SceneError(f"scenes of the worker {self.me} have no such line at this point: {line!r}")

    # ----------------------------------------------------------------------------------------- peers and threads

    def _answer(self, peer: str, text: str) -> Any:
        """``"sends a"``, ``"does not have b"``, ``"sends a, does not have b"``, ``"is busy"``."""
        asked = self.asked.pop(peer)
        if text == "is busy":
            return FetchBusy(self.number(peer), asked)
        found = re.fullmatch(r"(?:sends (.*?))?(?:, )?(?:does not have (.*))?", text)
        if found is None:
            raise SceneError(f"a peer 'sends a', 'does not have a' or 'is busy', not {text!r}")
        ids = [self.id(key) for key in listed(found[1] or "")]
        missing = [self.id(key) for key in listed(found[2] or "")]
        count = len(ids)
        return FetchDone(self.number(peer), asked, ids, [1] * count, [_NBYTES] * count, ["int"] * count, missing, [])

    def unreachable(self, peer: str) -> Any:
        return FetchFailed(self.number(peer), self.asked.pop(peer))

    def ended(self, key: str) -> int:
        """A thread has ended this task."""
        del self.given[key]
        return self.id(key)

    def finished(self, keys: str) -> Any:
        ids = [self.ended(key) for key in listed(keys)]
        count = len(ids)
        return ExecutionsDone(ids, [1] * count, [8] * count, ["int"] * count, [1.0] * count, [2.0] * count)

    def given_back(self, keys: str, kept: bool) -> Any:
        ids = []
        for key in listed(keys):
            self.wanted_back.remove(key)
            ids.append(self.id(key) if kept else self.ended(key))
        return TakeBackDone([], ids) if kept else TakeBackDone(ids, [])

    def compute(self, text: str) -> ComputeTasks:
        keys, attempts, needs = [], [], []
        holders: dict[int, Holders] = {}
        for row in listed(text):
            found = re.fullmatch(r"([^(]*?)(?: \(needs (.*)\))?", row)
            assert found is not None
            key, attempt = attempt_of(found[1])
            keys.append(key)
            attempts.append(attempt)
            held = [self.holders(entry) for entry in listed(found[2] or "")]
            holders.update({holder.id: holder for holder in held})
            needs.append([holder.id for holder in held])
        ids = [self.id(key) for key in keys]
        count = len(keys)
        priorities = [(0.0, 0.0, rank) for rank in range(count)]
        return ComputeTasks(ids, list(keys), attempts, [1] * count, [b""] * count, priorities, needs, list(holders.values()))

    def wait(self) -> Any:
        if self._wake_at <= self.now:
            raise SceneError("the worker is not waiting for any time to pass")
        self.now = self._wake_at
        return Tick()

    # ------------------------------------------------------------------------------------------------- claims

    def claim(self, line: str) -> str:
        if line == "now nothing is left":
            left = [*self.core.state.tasks.values(), *self.asked, *self.given, *self.stored]
            return line if not left else f"now this is left: {left}"
        about = re.match(r"now (\S+) is ", line)
        if about is None:
            raise SceneError(f"claims are 'now a is in memory' and 'now nothing is left', not {line!r}")
        task = self.core.state.tasks.get(self.id(about[1]))
        state = "not known" if task is None else STATE_NAMES[task.state]
        return f"now {about[1]} is {'in memory' if state == 'memory' else state}"


def _rows(stage: WorkerStage, text: str) -> tuple[list[int], list[int]]:
    rows = [attempt_of(row) for row in listed(text)]
    return [stage.id(key) for key, _ in rows], [attempt for _, attempt in rows]


def _ids(stage: WorkerStage, text: str) -> list[int]:
    return [stage.id(key) for key in listed(text)]


_SAID: dict[str, Callable[[WorkerStage, str], Message]] = {
    "ComputeTasks": lambda stage, text: stage.compute(text),
    "DropKeys": lambda stage, text: DropKeys(_ids(stage, text)),
    "TakeBack": lambda stage, text: TakeBack(*_rows(stage, text)),
    "FetchReplicas": lambda stage, text: FetchReplicas([stage.holders(entry) for entry in listed(text)]),
    "HoldersChanged": lambda stage, text: HoldersChanged([stage.holders(entry) for entry in listed(text)]),
    "WorkerPeersGone": lambda stage, text: WorkerPeersGone([stage.number(name) for name in listed(text)]),
}

_ERROR = TaskError(b"", b"", "boom", "")

_HAPPENS: list[tuple[str, Callable[..., Any]]] = [
    (r"(.+) returns?", lambda stage, keys: stage.finished(keys)),
    (r"(\S+) raises boom", lambda stage, key: ExecutionFailed(stage.ended(key), _ERROR, 1.0, 2.0)),
    (r"(\S+) raises Reschedule", lambda stage, key: ExecutionRescheduled(stage.ended(key))),
    (r"(\S+) finds that what it needs is gone", lambda stage, key: ExecutionUnready(stage.ended(key))),
    (r"(\S+) has been executing for a moment", lambda stage, key: ExecutionsStarted([stage.id(key)])),
    (r"(\S+) secedes", lambda stage, key: ExecutionsSeceded([stage.id(key)])),
    (r"its threads give (.+) back", lambda stage, keys: stage.given_back(keys, False)),
    (r"its threads keep (.+), which (?:has|have) begun", lambda stage, keys: stage.given_back(keys, True)),
    (r"(\S+) cannot be reached", lambda stage, peer: stage.unreachable(peer)),
    (r"a client puts (\S+) here", lambda stage, key: DataPut([stage.id(key)], [key], [1], [8], ["int"])),
    (r"the disk loses (\S+)", lambda stage, key: DataLost([stage.id(key)])),
    (r"its memory is full", lambda stage: Paused(True)),
    (r"there is memory again", lambda stage: Paused(False)),
    (r"the pause is over|a minute passes", lambda stage: stage.wait()),
]
