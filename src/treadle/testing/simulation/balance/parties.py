"""The parties of a simulation of balance: workers whose tasks take as long as their function says, clients that only ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import (
    ClientWelcome,
    DefineFunctions,
    KeysErred,
    KeysInMemory,
    KeysScattered,
    RegisterClient,
    ReleaseKeys,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, encode
from treadle.messages.local import Execute, ExecutionsDone, ExecutionsStarted
from treadle.serialize.spec import dumps_function
from treadle.testing.simulation.functions import leaf
from treadle.testing.simulation.network import Connection, World
from treadle.testing.simulation.worker import SimulatedWorker
from treadle.worker.transitions.records import CONSTRAINED

#: Bytes of each value.
VALUE_BYTES = 28


@dataclass(eq=False)
class Work:
    """A task as the one who has asked for it knows it."""

    key: Any
    id: int
    client: str
    #: Who it counts for: the client of the task that has submitted it.
    account: str
    duration_s: float
    function: int
    asked_at: float
    naming: str
    priority: float = 0
    needs: list[Work] = field(default_factory=list)
    workers: tuple[str, ...] | None = None
    allow_other_workers: bool = False
    resources: dict[str, float] = field(default_factory=dict)
    scattered: bool = False
    done: bool = False
    error: str = ""

    @property
    def wish(self) -> Any:
        """The same for tasks that may run on the same workers."""
        return (self.workers, self.allow_other_workers, tuple(self.resources.items()))


class TimedWorker(SimulatedWorker):
    """Its tasks take as long as ``duration_of`` says, and nothing is computed."""

    duration_of: Callable[[Any], float]
    #: Called with the key of a task that begins, and ends.
    on_start: Callable[[TimedWorker, Any], None]
    on_done: Callable[[TimedWorker, Any], None]

    def __init__(self, *args: Any, host: str) -> None:
        super().__init__(*args)
        self.host = host
        self.paused = False
        self.retiring = False
        #: What executes, and since when.
        self.begun: dict[Any, float] = {}

    @property
    def free_threads(self) -> int:
        return self.nthreads - self._threads_used

    def waiting(self) -> list[Any]:
        """Keys of what it was given and has not begun, most urgent first. Only when it is quiet: nothing is being fetched."""
        found: list[tuple[Any, Any]] = [(spec.priority, spec.key) for spec in self._held.values()]
        for heap in self.core.state.constrained.values():
            for priority, id, attempt in heap:
                task = self.core.state.tasks.get(id)
                if task is not None and task.attempt == attempt and task.state == CONSTRAINED:
                    found.append((priority, task.key))
        found.sort(key=lambda row: row[0])
        return [key for _priority, key in found]

    def _execute(self, spec: Execute) -> None:
        start = self.world.now
        self.begun[spec.key] = start
        self.on_start(self, spec.key)

        def started() -> None:
            if spec.id in self.running:
                self.say(ExecutionsStarted([spec.id]))

        def stop() -> None:
            self.running.pop(spec.id, None)
            self._threads_used -= 1
            self.begun.pop(spec.key, None)
            if self.alive:
                self.on_done(self, spec.key)
                self.say(ExecutionsDone([spec.id], [0], [VALUE_BYTES], ["int"], [start], [self.world.now]))
                self._start()

        duration = self.duration_of(spec.key)
        if duration > 0.01:
            self.world.timer(0.005, started)
        self.world.timer(duration, stop)


class AskingClient:
    """One that submits, scatters, and keeps what it has asked for."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.number = 0
        self.by_id: dict[int, Work] = {}
        self.connection: Connection
        self._given = 0
        self._submissions = 0
        self._functions: dict[int, int] = {}
        self._unsent: list[Any] = []

    def register(self, connection: Connection) -> None:
        self.connection = connection
        connection.send(encode([RegisterClient(self.name, {})]))

    def receive(self, body: bytes) -> None:
        for message in decode_scheduler_to_client(body):
            if isinstance(message, ClientWelcome):
                self.number = message.number
            elif isinstance(message, KeysInMemory):
                for id in message.ids:
                    self.by_id[id].done = True
            elif isinstance(message, KeysErred):
                for id in message.ids:
                    self.by_id[id].error = message.error.exception_text

    def new_id(self) -> int:
        self._given += 1
        return self.number << 32 | self._given

    def submit(self, works: list[Work], name: str, function: int, parent: Any) -> None:
        """They share wishes and priority; their ids are this client's."""
        messages: list[Any] = []
        if function not in self._functions:
            id = self._functions[function] = self.new_id()
            messages.append(DefineFunctions([id], [name], [dumps_function(leaf)]))
        first = works[0]
        options = None
        if first.workers is not None or first.resources:
            workers = None if first.workers is None else list(first.workers)
            options = TaskOptions(workers, first.allow_other_workers, first.resources or None)
        self._submissions += 1
        for work in works:
            self.by_id[work.id] = work
        messages.append(
            SubmitTasks(
                self._submissions,
                [work.id for work in works],
                [work.key for work in works],
                [self._functions[function]] * len(works),
                [b"x"] * len(works),
                [[need.id for need in work.needs] for work in works] if any(work.needs for work in works) else None,
                priority=first.priority,
                options=options,
                parent=parent,
            )
        )
        self.connection.send(encode(messages))

    def scatter(self, works: list[Work], worker: TimedWorker, then: Callable[[], None]) -> None:
        """Put these values there, and tell the scheduler when they are."""
        left = [len(works)]

        def stored(_: bool) -> None:
            left[0] -= 1
            if left[0] == 0:
                count = len(works)
                ids = [work.id for work in works]
                holders = [[worker.number]] * count
                self.connection.send(
                    encode([KeysScattered(ids, [work.key for work in works], holders, [VALUE_BYTES] * count, ["int"] * count)])
                )
                then()

        for work in works:
            self.by_id[work.id] = work
            worker.put(work.id, work.key, 0, stored)

    def release_all(self) -> None:
        ids, self.by_id = list(self.by_id), {}
        if ids:
            self.connection.send(encode([ReleaseKeys(ids)]))
