"""Scenes of the scheduler: its core is real; the script plays the other parties. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from treadle.journal.format import Record
from treadle.messages.base import Message, TaskOptions
from treadle.messages.client_scheduler import Sent
from treadle.messages.codec import encode
from treadle.messages.journal import FrameRecord, encode_record
from treadle.messages.scheduler_local import DropReplicas, FramesDurable, ReplicateKeys, Retire, WorkerDeath
from treadle.messages.worker_scheduler import ComputeTasks, LeaveWorker, TasksTakenBack
from treadle.scheduler.journaling import ClientFrame
from treadle.scheduler.recovery import DURABLE, Recovery, Replay
from treadle.scheduler.transitions.machine import Event, TurnResult
from treadle.testing.reconnection_scene import ReconnectionScene
from treadle.testing.scenes.script import SceneError, attempt_of, clauses, held_at, listed
from treadle.testing.scenes.wording import SILENT, worded


class _Cast(ReconnectionScene):
    """The core and the parties of a scene. It collects events until the turn is complete."""

    def __init__(self, journal: bool, **limits: Any) -> None:
        #: The bodies of the journal's records with their buffers, and how many of them are on disk. None: there is no journal.
        self._records: list[tuple[bytes, list[bytes]]] | None = None
        self._on_disk = 0
        self._gathered: list[tuple[str, Any, list[Any]]] | None = None
        #: (worker, key, attempt) of all assignments that were ever made.
        self.given: set[tuple[str, str, int]] = set()
        super().__init__(**limits)
        if journal:
            self._records = []
            self.core.start_recording()

    def handle(self, events: list[Event]) -> TurnResult:
        if self._records is None:
            return super().handle(events)
        for event in events:
            if isinstance(event.message, Message) and type(event.message) in (*DURABLE, Sent):
                event.record = ClientFrame(event.session, encode([event.message]), [])
        result = super().handle(events)
        for record in result.records:
            if isinstance(record, ClientFrame):
                self._records.append((encode_record(FrameRecord(record.number, self.now)), [bytes(record.body)]))
            else:
                self._records.append((encode_record(record), []))
        return result

    def reach_disk(self) -> None:
        """Note that all records so far are on disk."""
        if self._records is None:
            raise SceneError("this scheduler has no journal: say 'under test: scheduler with a journal'")
        self._on_disk = len(self._records)
        clients = list(self.core.state.clients.values())
        self.event("", FramesDurable([client.number for client in clients], [client.received for client in clients]))

    def read_journal(self) -> None:
        """Replace the scheduler by one that reads the part of the journal that is on disk."""
        if self._records is None:
            raise SceneError("this scheduler has no journal: say 'under test: scheduler with a journal'")
        del self._records[self._on_disk :]
        self.core = self.fresh_core()
        recovery = Recovery()
        replay = Replay(self.core)
        for body, beside in self._records:
            replay.take(Record(memoryview(body), [memoryview(buffer) for buffer in beside], 0, 0), recovery)
        replay.end(recovery)
        self.core.start_recording()

    def turn(self, arrivals: Sequence[tuple[str, Any, list[Any]]]) -> None:
        if self._gathered is None:
            super().turn(arrivals)
        else:
            self._gathered += arrivals

    def recall(self, client: str, keys: Sequence[str]) -> None:
        """Let the client refer to keys by the first ids that it used for them."""
        party = self.parties[client]
        for id, key in self.names.keys.items():
            if key in keys and id >> 32 == party.number:
                party.ids.setdefault(key, id)

    def begin_turn(self) -> None:
        self._gathered = []

    def end_turn(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered:
            self.turn(gathered)


class SchedulerStage:
    """See ``script.Stage``. By default, workers have one thread, and graces are 10 s."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.cast = _Cast(settings["under test"].endswith(" with a journal"), **_limits(settings.get("settings", "")))
        for entry in listed(settings.get("workers", "")):
            found = re.fullmatch(r"(\S+)(?: with (\d+) threads)?(?: and (\d+) (\w+))?", entry)
            if found is None:
                raise SceneError(f"workers are named as 'w1, w2 with 2 threads, w3 with 1 threads and 2 gpu', not {entry!r}")
            name, threads, amount, resource = found.groups()
            self.cast.worker(name, int(threads or 1), resources={resource: float(amount)} if resource else None)
        for name in listed(settings.get("clients", "")):
            self.cast.client(name)
        self._heard()

    # ------------------------------------------------------------------------------------------------- a turn

    def happen(self, lines: Sequence[str]) -> list[str]:
        self.cast.begin_turn()
        for line in lines:
            self._one(line)
        self.cast.end_turn()
        return self._heard()

    def _heard(self) -> list[str]:
        """The lines for what was sent and closed since the last call."""
        cast = self.cast
        heard = []
        for name in cast.parties:
            for message in cast.messages(name):
                if isinstance(message, ComputeTasks):
                    cast.given.update([(name, key, attempt) for key, attempt in zip(message.keys, message.attempts, strict=True)])
                if not isinstance(message, SILENT):
                    heard.append(f"scheduler -> {name}: {worded(cast.names, message)}")
        heard += [f"scheduler closes the connection of {name}: {why}" for name, why in cast.closed]
        cast.closed.clear()
        return heard

    def _one(self, line: str) -> None:
        message = re.fullmatch(r"(\S+) -> scheduler: (\w+) ?(.*)", line)
        if message is not None:
            name, kind, rest = message.groups()
            if kind in _SAID:
                try:
                    _SAID[kind](self.cast, name, rest)
                except KeyError as error:
                    raise SceneError(f"{line!r} speaks of {error}, which nobody has heard of") from None
                return
        else:
            for pattern, act in _HAPPENS:
                found = re.fullmatch(pattern, line)
                if found is not None:
                    act(self.cast, *found.groups())
                    return
        raise SceneError(f"scenes of the scheduler have no such line: {line!r}")

    # ------------------------------------------------------------------------------------------------- claims

    def claim(self, line: str) -> str:
        if line == "now nothing is left":
            try:
                self.cast.nothing_left()
            except AssertionError as error:
                return f"now this is left: {error}"
            return line
        about = re.match(r"now (\S+) is ", line)
        if about is None:
            raise SceneError(f"claims are 'now a is in memory at w1' and 'now nothing is left', not {line!r}")
        return f"now {about.group(1)} is {self._state(about.group(1))}"

    def _state(self, key: str) -> str:
        state = self.cast.state(key)
        if state == "memory":
            return f"in memory at {', '.join(self.cast.where(key).split(','))}"
        return f"processing on {self.cast.where(key)}" if state == "processing" else state


def _limits(text: str) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for entry in listed(text):
        name, _, value = entry.partition(" ")
        number, _, unit = value.partition(" ")
        field = name.replace("-", "_") + {"s": "_s", "bytes": "_bytes", "": ""}[unit]
        limits[field] = number == "yes" if number in ("yes", "no") else int(number)
    return limits


# --------------------------------------------------------------------------------------------- what parties say


def _submit(cast: _Cast, name: str, rest: str) -> None:
    graph, more = clauses(rest)
    rows = [re.fullmatch(r"([^\s(]+)(?:\((.*)\))?", row) for row in listed(graph)]
    chains = []
    for row in rows:
        if row is None:
            raise SceneError(f"tasks are written as 'a, b(a), c(a, b)', not {graph!r}")
        key, needs = row.groups()
        chains.append(f"{' '.join(listed(needs or ''))} -> {key}" if needs else key)
    fields: dict[str, Any] = {}
    if "later" in more:
        keys = listed(more["later"])
        fields["later_dependents"] = [int(row[1] in keys) for row in rows if row and row[1] not in cast.parties[name].ids]
    if "same" in more:
        # Later chunks name keys of earlier ones by the same ids, even if these were released meanwhile.
        cast.recall(name, [key for row in rows if row for key in listed(row[2] or "")])
    options = TaskOptions()
    if "retries" in more:
        options.retries = int(more["retries"])
    if "only" in more:
        options.workers = listed(more["only"].removeprefix("on "))
    if "resource" in more:
        options.resources = {more["resource"]: 1.0}
    cast.submit(
        "; ".join(chains),
        client=name,
        wanted=listed(more["wanted"]) if "wanted" in more else None,
        options=None if options == TaskOptions() else options,
        new_submission="same" not in more,
        again="again" in more,
        **fields,
    )


def _register_worker(cast: _Cast, name: str, rest: str) -> None:
    if not rest:
        cast.worker(name)
        return
    if rest.startswith("named "):
        cast.worker(name, called=rest.removeprefix("named "))
        return
    _, more = clauses(f"; {rest}")
    attempts = {word: [attempt_of(row) for row in listed(more.get(word, ""))] for word in ("executing", "seceded", "erred")}
    attempts["not started"] = [attempt_of(row) for row in listed(more.get("not", "").removeprefix("started "))]
    for rows in attempts.values():
        cast.parties[name].attempts.update(rows)
    cast.come_back(
        name,
        holding=listed(more.get("holds", "")),
        waiting=[key for key, _ in attempts["not started"]],
        executing=[key for key, _ in attempts["executing"]],
        seceded=[key for key, _ in attempts["seceded"]],
        erred=[key for key, _ in attempts["erred"]],
        fetching=listed(more.get("fetching", "")),
        fresh=listed(more.get("fresh", "")),
    )


def _register_client(cast: _Cast, name: str, rest: str) -> None:
    if name in cast.parties:
        cast.return_client(name)
    else:
        cast.client(name)


def _given(cast: _Cast, name: str, row: str) -> tuple[str, int]:
    """The key and the attempt. Raises SceneError for an attempt that this worker was never given."""
    key, attempt = attempt_of(row)
    if (name, key, attempt) not in cast.given:
        raise SceneError(f"{name} was never given {row}")
    return key, attempt


def _finished(cast: _Cast, name: str, rest: str) -> None:
    for row in listed(rest):
        key, attempt = _given(cast, name, row)
        cast.finish(key, on=name, attempt=attempt)


def _erred(cast: _Cast, name: str, rest: str) -> None:
    found = re.fullmatch(r"(\S+) attempt (\d+) \((.*)\)", rest)
    if found is None:
        raise SceneError(f"failures are written as 'a attempt 1 (boom)', not {rest!r}")
    key, attempt = _given(cast, name, f"{found[1]} attempt {found[2]}")
    cast.fail(key, name, found[3], attempt)


def _each_attempt(act: Callable[[_Cast, str, str, int], None]) -> Callable[[_Cast, str, str], None]:
    def say(cast: _Cast, name: str, rest: str) -> None:
        for row in listed(rest):
            act(cast, name, *_given(cast, name, row))

    return say


def _taken_back(cast: _Cast, name: str, rest: str) -> None:
    found = re.fullmatch(r"(.*?)(?:;? ?kept (.*))?", rest)
    assert found is not None
    rows = [_given(cast, name, row) for row in listed(found[1])]
    kept = [cast.task_id(key) for key in listed(found[2] or "")]
    cast.event(name, TasksTakenBack([cast.task_id(key) for key, _ in rows], [attempt for _, attempt in rows], kept))


def _missing(cast: _Cast, name: str, rest: str) -> None:
    for row in listed(rest):
        key, (holder,) = held_at(row)
        cast.missing(key, at=holder, on=name)


def _scattered(cast: _Cast, name: str, rest: str) -> None:
    for row in listed(rest):
        key, workers = held_at(row)
        cast.scatter(key, to=workers, client=name)


def _cancel(cast: _Cast, name: str, rest: str) -> None:
    keys, more = clauses(rest)
    cast.cancel(*listed(keys), client=name, force="for" in more)


def _leave_worker(cast: _Cast, name: str, rest: str) -> None:
    cast.event(name, LeaveWorker("the worker left"))


def _status(cast: _Cast, name: str, rest: str) -> None:
    if rest == "paused":
        cast.pause(name)
    else:
        cast.resume(name)


_SAID: dict[str, Callable[[_Cast, str, str], None]] = {
    "RegisterWorker": _register_worker,
    "TasksFinished": _finished,
    "TasksErred": _erred,
    "TasksStarted": _each_attempt(lambda cast, name, key, attempt: cast.start(key, name, attempt)),
    "TasksSeceded": _each_attempt(lambda cast, name, key, attempt: cast.secede(key, name, attempt)),
    "TasksRescheduled": _each_attempt(lambda cast, name, key, attempt: cast.reschedule(key, name, attempt)),
    "TasksTakenBack": _taken_back,
    "ReplicasAdded": lambda cast, name, rest: cast.copy(*listed(rest), on=name),
    "ReplicasDropped": lambda cast, name, rest: cast.drop(*listed(rest), on=name),
    "ReplicasMissing": _missing,
    "WorkerStatus": _status,
    "LeaveWorker": _leave_worker,
    "RegisterClient": _register_client,
    "SubmitTasks": _submit,
    "AttachKeys": lambda cast, name, rest: cast.attach(*listed(rest), client=name),
    "ReleaseKeys": lambda cast, name, rest: cast.release(*listed(rest), client=name),
    "CancelKeys": _cancel,
    "RetryKeys": lambda cast, name, rest: cast.retry(*listed(rest), client=name),
    "FireAndForget": lambda cast, name, rest: cast.fire_and_forget(*listed(rest), client=name),
    "KeysScattered": _scattered,
    "ConfirmKeys": lambda cast, name, rest: cast.confirm(*listed(rest), client=name),
    "ReattachKeys": lambda cast, name, rest: cast.reattach(*listed(rest), client=name),
    "Sent": lambda cast, name, rest: cast.event(name, Sent(int(rest.removeprefix("frame ")))),
    "LeaveClient": lambda cast, name, rest: cast.leave(name),
}


# ---------------------------------------------------------------------------------------------- what happens else


def _dies(cast: _Cast, name: str, keys: str | None) -> None:
    cast.die(name, *listed(keys or ""))


def _move(cast: _Cast, name: str, keys: str, kind: type[ReplicateKeys] | type[DropReplicas]) -> None:
    cast.event("", kind(cast.parties[name].number, [cast.task_id(key) for key in listed(keys)]))


_HAPPENS: list[tuple[str, Callable[..., None]]] = [
    (r"(\S+) dies(?: while it executes (.+))?", _dies),
    (r"(\S+) ends as it was told to", lambda cast, name: cast.event(name, WorkerDeath(0, True, [], [], True))),
    (r"the stream of (\S+) breaks", lambda cast, name: cast.lose(name)),
    (r"(\d+) s pass", lambda cast, seconds: cast.tick(float(seconds))),
    (r"another scheduler takes its place", lambda cast: cast.another_scheduler()),
    (r"all of it is on disk", lambda cast: cast.reach_disk()),
    (r"the scheduler dies, and another one reads its journal", lambda cast: cast.read_journal()),
    (r"everything is cancelled for a restart", lambda cast: cast.forget()),
    (r"(\S+) is to retire", lambda cast, name: cast.event("", Retire([cast.parties[name].number]))),
    (r"(\S+) is to stay", lambda cast, name: cast.event("", Retire([cast.parties[name].number], False))),
    (r"(\S+) is to have copies of (.+)", lambda cast, name, keys: _move(cast, name, keys, ReplicateKeys)),
    (r"(\S+) is not to keep (.+)", lambda cast, name, keys: _move(cast, name, keys, DropReplicas)),
]
