"""Tests of the scheduler's core that read as scenes. No I/O, and no clock except the one that the scene advances.

    scene = SchedulerScene()
    scene.worker("w1")
    scene.client("c")
    scene.submit("a -> b", client="c", wanted=["b"])
    assert scene.sent("w1") == ["compute a"]
    scene.finish("a", on="w1")
    assert scene.sent("w1") == ["compute b with a@w1", "drop a"]
    scene.nothing_else_sent()

Every invariant is checked after every event, and every message goes through the codec as it would on a wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysScattered,
    LeaveClient,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    SubmitTasks,
)
from treadle.messages.codec import (
    Decoder,
    decode_client_to_scheduler,
    decode_scheduler_to_client,
    decode_scheduler_to_worker,
    decode_worker_to_scheduler,
    encode,
)
from treadle.messages.scheduler_local import (
    ConnectionLost,
    DropReplicas,
    Forget,
    FramesDurable,
    ReplicateKeys,
    Retire,
    Tick,
    WorkerDeath,
)
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    LeaveWorker,
    RegisterWorker,
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TaskErred,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerStatus,
)
from treadle.scheduler.transitions.machine import Event, Transitions, TurnResult
from treadle.scheduler.transitions.records import STATE_NAMES, TaskState, WorkerState
from treadle.scheduler.transitions.state import Limits
from treadle.testing.shorthand import POLITE, Names, short_form


class _Party:
    """A worker or a client, as the other side of its stream."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        #: Messages that were sent to it and that the test has not looked at.
        self.inbox: list[Any] = []
        #: For a worker: key -> the attempt that it was sent last.
        self.attempts: dict[Any, int] = {}
        #: For a client: its ids of keys, and of functions by name; and the number of ids that it has used.
        self.ids: dict[Any, int] = {}
        self.functions: dict[str, int] = {}
        self.given = 0
        self.submissions = 0

    def new_id(self) -> int:
        self.given += 1
        return self.number << 32 | self.given


class SchedulerScene:
    """A scheduler's core and the parties around it. ``limits``: see ``Limits``."""

    def __init__(self, **limits: Any) -> None:
        self.core = Transitions(Limits(**{"validate": True, **limits}), "the scheduler")
        self.now = 0.0
        self.names = Names()
        self.parties: dict[str, _Party] = {}
        #: (name, why) of the parties whose streams the scheduler closed.
        self.closed: list[tuple[str, str]] = []
        self._numbers = 0

    # ------------------------------------------------------------------------------------------------ events

    def event(self, party: str, message: Any, frames: list[Any] | None = None) -> None:
        """The party sends the message, or a local event happens to it."""
        self.turn([(party, message, frames or [])])

    def turn(self, arrivals: Sequence[tuple[str, Any, list[Any]]]) -> None:
        """Several events in one turn: (party, message, frames). An empty name stands for nobody."""
        events = []
        for name, message, frames in arrivals:
            number = self.parties[name].number if name else 0
            try:
                events.append(Event(number, _as_received(message), frames))
            except PeerProtocolError as error:
                # The scheduler's shell does the same.
                self.closed.append((name, str(error)))
                events.append(Event(number, ConnectionLost(blame=False)))
        result = self.handle(events)
        if self.core.state.limits.validate:
            self.core.validate()
        by_number = {party.number: party for party in self.parties.values()}
        for number, messages, _frames in result.sends:
            party = by_number[number]
            is_worker = number in self.names.workers
            decoder: Decoder[Any] = decode_scheduler_to_worker if is_worker else decode_scheduler_to_client
            for message in decoder(encode(messages)):
                party.inbox.append(message)
                if isinstance(message, ComputeTasks):
                    for key, attempt in zip(message.keys, message.attempts, strict=True):
                        party.attempts[_known(key)] = attempt
        for number, why in result.closes:
            self.closed.append((by_number[number].name, why))

    def handle(self, events: list[Event]) -> TurnResult:
        return self.core.handle(events, self.now)

    def _tell(self, message: Any) -> None:
        self.turn([("", message, [])])

    def tick(self, seconds: float = 0.0) -> None:
        """Time passes, and the scheduler's core gets a tick."""
        self.now += seconds
        self._tell(Tick())

    def forget(self, reason: str = "scheduler-restart") -> None:
        self._tell(Forget(reason))

    # ----------------------------------------------------------------------------------------------- workers

    def worker(
        self,
        name: str,
        nthreads: int = 1,
        *,
        host: str | None = None,
        resources: dict[str, float] | None = None,
        nanny: str | None = None,
        called: str | None = None,
    ) -> str:
        """A worker registers, by the name ``called`` if given. Its address is ``tcp://<host>:<number>``; by default on its own host."""
        self._numbers += 1
        number = self._numbers
        self.parties[name] = _Party(number, name)
        self.names.workers[number] = name
        host = host or f"host-of-{name}"
        address = f"tcp://{host}:{number}"
        self.event(
            name,
            RegisterWorker(WorkerIdentity(f"id of {name}", address, called or name, host, nthreads, 0, resources or {}, 1, "/", {}, nanny)),
        )
        return address

    def workers(self, *names: str, nthreads: int = 1) -> None:
        for name in names:
            self.worker(name, nthreads)

    def _report(self, key: Any, on: str, attempt: int | None) -> tuple[list[int], list[int]]:
        return [self.task_id(key)], [self.parties[on].attempts[key] if attempt is None else attempt]

    def finish(
        self,
        *keys: Any,
        on: str,
        nbytes: int = 8,
        duration: float = 0.001,
        type: str = "int",
        attempt: int | None = None,
        values: Sequence[bytes] | None = None,
    ) -> None:
        """The worker reports these keys as finished, under the attempts that it was sent unless one is given.

        ``values``: pickles of small values, sent with the report.
        """
        ids = [self.task_id(key) for key in keys]
        attempts = [self.parties[on].attempts[key] if attempt is None else attempt for key in keys]
        count = len(keys)
        start = 1000.0 + self.now
        stop = start + duration
        riding = None if values is None else list(values)
        self.event(on, TasksFinished(ids, attempts, [nbytes] * count, [0] * count, [type], [start] * count, [stop] * count, riding))

    def fail(self, key: Any, on: str, error: str = "boom", attempt: int | None = None) -> None:
        (id,), (number,) = self._report(key, on, attempt)
        self.event(on, TasksErred([TaskErred(id, number, TaskError(b"", b"", error, ""), 0.0, 0.0)]))

    def start(self, key: Any, on: str, attempt: int | None = None) -> None:
        self.event(on, TasksStarted(*self._report(key, on, attempt)))

    def secede(self, key: Any, on: str, attempt: int | None = None) -> None:
        self.event(on, TasksSeceded(*self._report(key, on, attempt)))

    def reschedule(self, key: Any, on: str, attempt: int | None = None) -> None:
        self.event(on, TasksRescheduled(*self._report(key, on, attempt)))

    def give_back(self, *keys: Any, on: str, kept: Iterable[Any] = ()) -> None:
        ids = [self.task_id(key) for key in keys]
        attempts = [self.parties[on].attempts[key] for key in keys]
        self.event(on, TasksTakenBack(ids, attempts, [self.task_id(key) for key in kept]))

    def copy(self, *keys: Any, on: str) -> None:
        """The worker reports replicas of these keys."""
        self.event(on, ReplicasAdded([self.task_id(key) for key in keys]))

    def drop(self, *keys: Any, on: str) -> None:
        """The worker reports that it has lost these values."""
        self.event(on, ReplicasDropped([self.task_id(key) for key in keys]))

    def missing(self, key: Any, at: str, on: str) -> None:
        """The worker ``on`` reports that it could not fetch the value from the worker ``at``."""
        self.event(on, ReplicasMissing([self.task_id(key)], [self.parties[at].number]))

    def pause(self, name: str) -> None:
        self.event(name, WorkerStatus("paused"))

    def resume(self, name: str) -> None:
        self.event(name, WorkerStatus("running"))

    def lose(self, name: str, blame: bool = True) -> None:
        """The party's stream breaks."""
        self.event(name, ConnectionLost(blame))

    def die(self, name: str, *executing: Any, **report: Any) -> None:
        """The worker's nanny reports that the process has died while it was executing these keys. See ``WorkerDeath``."""
        attempts = [self.parties[name].attempts[key] for key in executing]
        self.event(name, WorkerDeath(-9, True, [self.task_id(key) for key in executing], attempts, **report))

    def leave(self, name: str) -> None:
        """The party says goodbye."""
        is_worker = self.parties[name].number in self.names.workers
        self.event(name, LeaveWorker("it is time") if is_worker else LeaveClient())

    # ----------------------------------------------------------------------------------------------- clients

    def client(self, name: str) -> None:
        self._numbers += 1
        self.parties[name] = _Party(self._numbers, name)
        self.event(name, RegisterClient(f"id of {name}", {}))

    def submit(
        self,
        graph: str,
        *,
        client: str = "c",
        wanted: Sequence[Any] | None = None,
        options: TaskOptions | None = None,
        function: str | None = None,
        new_submission: bool = True,
        again: bool = False,
        **fields: Any,
    ) -> None:
        """The client submits ``"a b -> c; c -> d"``, and wants all keys or those in ``wanted``.

        Keys that it has an id for already are only referred to, unless they are sent ``again``, under the same ids.
        ``fields`` are those of ``SubmitTasks``. ``new_submission=False``: this is a further chunk of the last submission.
        """
        party = self.parties[client]
        needs = parse(graph)
        new = [key for key in needs if again or key not in party.ids]
        for key in new:
            if key not in party.ids:
                self._give_id(party, key)
        party.submissions += new_submission
        function_id = 0 if function is None else self._function(party, function)
        message = SubmitTasks(
            party.submissions,
            [party.ids[key] for key in new],
            new,
            [function_id] * len(new),
            [str(key).encode() for key in new],
            dependencies=[[party.ids[need] for need in needs[key]] for key in new],
            wanted=None if wanted is None else [party.ids[key] for key in wanted],
            options=options,
            **fields,
        )
        self.event(client, message)

    def _give_id(self, party: _Party, key: Any) -> int:
        id = party.ids[key] = party.new_id()
        self.names.keys[id] = key
        return id

    def _function(self, party: _Party, name: str) -> int:
        if name not in party.functions:
            party.functions[name] = party.new_id()
            self.names.functions[party.functions[name]] = name
            self.event(party.name, DefineFunctions([party.functions[name]], [name], [name.encode()]))
        return party.functions[name]

    def forget_function(self, name: str, *, client: str = "c") -> None:
        self.event(client, ForgetFunctions([self.parties[client].functions.pop(name)]))

    def attach(self, *keys: Any, client: str = "c") -> None:
        party = self.parties[client]
        self.event(client, AttachKeys([self._give_id(party, key) for key in keys], list(keys)))

    def release(self, *keys: Any, client: str = "c") -> None:
        party = self.parties[client]
        self.event(client, ReleaseKeys([party.ids.pop(key) for key in keys]))

    def cancel(self, *keys: Any, client: str = "c", force: bool = False, reason: str | None = None) -> None:
        party = self.parties[client]
        self.event(client, CancelKeys([party.ids[key] for key in keys], force, reason))

    def retry(self, *keys: Any, client: str = "c") -> None:
        self.event(client, RetryKeys([self.parties[client].ids[key] for key in keys]))

    def fire_and_forget(self, *keys: Any, client: str = "c") -> None:
        self.event(client, FireAndForget([self.parties[client].ids[key] for key in keys]))

    def scatter(self, *keys: Any, to: Sequence[str], client: str = "c", nbytes: int = 8) -> None:
        """The client reports that it has handed these values over to each of those workers."""
        party = self.parties[client]
        numbers = [self.parties[name].number for name in to]
        ids = [self._give_id(party, key) for key in keys]
        count = len(keys)
        self.event(client, KeysScattered(ids, list(keys), [numbers] * count, [nbytes] * count, ["int"] * count))

    # ------------------------------------------------------------------------------------------------ looking

    def sent(self, name: str, *, everything: bool = False) -> list[str]:
        """The messages that the party was sent since the last look, in short form; introductions only with ``everything``."""
        party = self.parties[name]
        inbox, party.inbox = party.inbox, []
        return [line for message in inbox if everything or not isinstance(message, POLITE) for line in short_form(self.names, message)]

    #: Another name for ``sent``, where it reads better.
    told = sent

    def messages(self, name: str) -> list[Any]:
        """The messages that the party was sent since the last look, in full."""
        party = self.parties[name]
        inbox, party.inbox = party.inbox, []
        return inbox

    def nothing_else_sent(self) -> None:
        """Raises AssertionError when a party was sent a message, other than an introduction, that was not looked at."""
        left = {name: lines for name in self.parties if (lines := self.sent(name))}
        assert not left, f"also sent: {left}"

    def task(self, key: Any) -> TaskState:
        return self.core.tasks[key]

    def task_id(self, key: Any) -> int:
        """The id that the scheduler uses for a key; for a forgotten key, the last id that a client used."""
        task = self.core.tasks.get(key)
        if task is not None:
            return task.id
        return [id for id, known in self.names.keys.items() if known == key][-1]

    def state(self, key: Any) -> str:
        """The name of the task's state; ``"forgotten"`` also for keys that never existed."""
        task = self.core.tasks.get(key)
        return "forgotten" if task is None else STATE_NAMES[task.state]

    def states(self, keys: str) -> list[str]:
        return [self.state(key) for key in keys.split()]

    def where(self, key: Any) -> str:
        """The worker that the task is assigned to, or the workers that hold its value (``"w1,w2"``), or an empty string."""
        task = self.core.tasks[key]
        workers = [task.processing_on] if task.processing_on is not None else task.who_has
        return ",".join([worker.name for worker in workers])

    def worker_state(self, name: str) -> WorkerState:
        return self.core.state.by_name[name]

    def moves(self, *keys: Any) -> list[str]:
        """All transitions of these keys, as ``"released -> waiting"``, oldest first."""
        return [f"{start} -> {finish}" for _key, start, finish, _cause, _time in self.core.story(*keys)]

    def nothing_left(self) -> None:
        """Raises AssertionError unless all traces of tasks are gone. Functions that a client may still name may stay."""
        state = self.core.state
        left = {
            "tasks": list(state.tasks),
            "ids": list(state.by_id),
            "groups": list(state.groups),
            "unrunnable": list(state.unrunnable),
            "functions": [function.name for function in state.functions.values() if not function.held or function.ntasks],
            "data": [worker.name for worker in state.workers.values() if worker.has_what or worker.processing or worker.nbytes],
            "wishes": [client.id for client in state.clients.values() if client.wants_what or client.aliases or client.expecting],
            "aliases": [client.id for client in state.clients.values() if client.alias_ids],
            "fire and forget": list(state.fire_and_forget.wants_what),
            "queue": [task.key for queue in [state.queue, *state.queues.values()] for task in queue.tasks()],
            "suspects": [task.key for task in [*state.suspects, *state.deaths]],
            "reserved": [worker.name for worker in state.reserved],
        }
        assert not any(left.values()), {what: some for what, some in left.items() if some}


def parse(graph: str) -> dict[str, list[str]]:
    """``"a b -> c; c -> d"`` as key -> the keys that it depends on, dependencies before dependents.

    Raises ValueError for a graph with a cycle.
    """
    needs: dict[str, list[str]] = {}
    for chain in graph.split(";"):
        links = [re.split(r"[\s,]+", link.strip()) for link in chain.split("->")]
        before: list[str] = []
        for link in links:
            for key in link:
                if key:
                    known = needs.setdefault(key, [])
                    known.extend([need for need in before if need not in known])
            before = [key for key in link if key]
    ordered: dict[str, list[str]] = {}
    while len(ordered) < len(needs):
        ready = [key for key, known in needs.items() if key not in ordered and all([need in ordered for need in known])]
        if not ready:
            raise ValueError(f"a cycle in {graph!r}")
        ordered.update({key: needs[key] for key in ready})
    return ordered


def _known(key: Any) -> Any:
    return tuple(_known(part) for part in key) if isinstance(key, list) else key


_LOCAL = (ConnectionLost, ReplicateKeys, DropReplicas, Forget, FramesDurable, Retire, Tick, WorkerDeath)
_DECODERS: tuple[Decoder[Any], ...] = (decode_worker_to_scheduler, decode_client_to_scheduler)


def _as_received(message: Any) -> Any:
    """The message as it arrives: encoded, and decoded by the decoder of its direction."""
    if isinstance(message, _LOCAL):
        return message
    from_client = type(message).__module__ == RegisterClient.__module__
    return _DECODERS[from_client](encode([message]))[0]
