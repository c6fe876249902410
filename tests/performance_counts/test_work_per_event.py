"""What an event costs the scheduler's core grows with the event alone: about the same work in a small cluster and in one that has a
thousand times as many workers, clients, functions, keys, orphans and copies under way.

Counted are the steps of the interpreter (none of a compiled core) and the entries of large tables that are looked at. Never times.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import treadle
from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ConfirmKeys,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysScattered,
    LeaveClient,
    PublishData,
    ReattachKeys,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
    UnpublishData,
)
from treadle.messages.scheduler_local import ConnectionLost, DropReplicas, ReplicateKeys, Retire, Tick, WorkerDeath
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    Inventory,
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
    WorkerHeartbeat,
    WorkerStatus,
)
from treadle.scheduler.transitions.machine import Event, Transitions, TurnResult
from treadle.scheduler.transitions.records import NO_WORKER, TaskState
from treadle.scheduler.transitions.state import Limits
from treadle.scheduler.transitions.story import Story

SMALL, LARGE = 20, 10_000
#: Steps and entries that a large cluster may cost more: numbers are larger, a table is copied later.
SLACK_STEPS = 100
SLACK_ENTRIES = 5
#: The client that everything belongs to; its functions; its keys' ids begin above these.
CLIENT = 1
BASE = CLIENT << 32
FIRST_KEY = BASE + 2**24
ERROR = TaskError(b"", b"", "ValueError: no", "")

Events = list[tuple[int, Any]]


class Entries:
    """How many entries of watched tables were looked at."""

    seen = 0


class Watched(dict[Any, Any]):
    """A table that counts what is looked at by going through it."""

    def __iter__(self) -> Iterator[Any]:
        for key in dict.__iter__(self):
            Entries.seen += 1
            yield key

    def __reversed__(self) -> Iterator[Any]:
        for key in dict.__reversed__(self):
            Entries.seen += 1
            yield key

    def keys(self) -> Any:
        return iter(self)

    def values(self) -> Any:
        return (self[key] for key in self)

    def items(self) -> Any:
        return ((key, self[key]) for key in self)


class World:
    """A core that has ``size`` of everything."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.core = Transitions(
            Limits(worker_grace_s=1e3, client_grace_s=1e3, recovery_grace_s=1e3, no_workers_timeout_s=1e3, scatter_replicas=2), "scheduler"
        )
        self.state = self.core.state
        self.now = 0.0
        self._given = 0
        self._number = CLIENT
        self.batches: dict[int, list[ComputeTasks]] = {}
        self.turn([(CLIENT, RegisterClient("c", {}))])
        self._orphans()
        self.workers = [self.new_number() for _ in range(size)]
        self.turn([(number, self.registration(number)) for number in self.workers])
        self.turn([(self.new_number(), RegisterClient(f"c{at}", {}, 1)) for at in range(size)])
        self.turn([(CLIENT, DefineFunctions([BASE | at for at in range(1, size + 1)], ["f"] * size, [b"f"] * size))])
        self._keys()
        self._absent()
        self._watch()

    # ------------------------------------------------------------------------------------------- what there is

    def _orphans(self) -> None:
        """One worker brings values that nobody knows, another one executes such tasks; the client waits for others that nobody brings."""
        holder, busy = self.new_number(), self.new_number()
        ids = list(range(2**40, 2**40 + self.size))
        keys = [f"orphan-{id}" for id in ids]
        held = inventory(holder)
        held.ids, held.keys, held.nbytes, held.types, held.type_names = ids, keys, [1] * self.size, [0] * self.size, ["int"]
        self.turn([(holder, self.registration(holder, held))])
        doing = inventory(busy)
        doing.assigned = [id + 2**30 for id in ids]
        doing.assigned_keys = [f"executing-{id}" for id in ids]
        doing.attempts, doing.stages = [1] * self.size, [1] * self.size
        self.turn([(busy, self.registration(busy, doing))])
        awaited = self.new_ids(self.size)
        self.turn([(CLIENT, ReattachKeys(awaited, [f"awaited-{id}" for id in awaited]))])
        assert len(self.state.orphans) == 2 * self.size and len(self.state.awaited) == self.size

    def _keys(self) -> None:
        """Values in memory, values with other names than they had, tasks that nobody may run, and copies under way to one worker."""
        self.held = self.submit(self.size, [BASE | at for at in range(1, self.size + 1)])
        self.finish_all()
        self.impossible = self.submit(self.size, options=TaskOptions(resources={"GPU": 1.0}))
        named = self.new_ids(self.size)
        keys = [f"renamed-{id}" for id in named]
        self.turn([(CLIENT, SubmitTasks(2, named, keys, [0] * self.size, [b""] * self.size, options=TaskOptions(resources={"TPU": 1.0})))])
        others = self.new_ids(self.size)
        places = [[self.workers[at]] for at in range(self.size)]
        self.turn([(CLIENT, KeysScattered(others, keys, places, [1] * self.size, ["int"] * self.size))])
        (self.everywhere,) = self.new_ids(1)
        self.turn([(CLIENT, KeysScattered([self.everywhere], ["everywhere"], [self.workers], [1], ["int"]))])
        self.slow = self.worker()
        self.turn([(0, ReplicateKeys(self.slow, self.held))])
        state = self.state
        assert len(state.renamed) == self.size and len(state.announcements) >= self.size
        assert min(len(state.replicating), len(state.functions), len(state.groups)) >= self.size
        assert all(state.by_id[id].state == NO_WORKER for id in self.impossible)

    def _absent(self) -> None:
        """Workers whose streams are broken."""
        numbers = [self.new_number() for _ in range(self.size)]
        self.turn([(number, self.registration(number)) for number in numbers])
        self.turn([(number, ConnectionLost()) for number in numbers])

    def _watch(self) -> None:
        state = self.state
        for name in dir(state):
            table = getattr(state, name)
            if type(table) is dict:
                setattr(state, name, Watched(table))
        for name in ("placeable",):
            table = getattr(state, name)
            table.since = Watched(table.since)

    # ---------------------------------------------------------------------------------------- what is done to it

    def new_number(self) -> int:
        self._number += 1
        return self._number

    def new_ids(self, count: int) -> list[int]:
        first = FIRST_KEY + self._given
        self._given += count
        return list(range(first, first + count))

    def registration(self, number: int, inventory: Inventory | None = None) -> RegisterWorker:
        nanny = f"nanny-{number}"
        return RegisterWorker(
            WorkerIdentity(f"w{number}", f"tcp://{number}", f"w{number}", f"h{number}", 1, 0, {}, number, "", {}, nanny), inventory
        )

    def turn(self, events: Events) -> TurnResult:
        result = self.core.handle([Event(number, message) for number, message in events], self.now)
        for number, messages, _frames in result.sends:
            self.batches.setdefault(number, []).extend(message for message in messages if type(message) is ComputeTasks)
        assert not [why for _number, why in result.closes if why not in ("bye", "the client left")], result.closes
        return result

    def worker(self) -> int:
        """One more."""
        number = self.new_number()
        self.turn([(number, self.registration(number))])
        return number

    def client(self) -> int:
        number = self.new_number()
        self.turn([(number, RegisterClient(f"c{number}", {}))])
        return number

    def submit(self, count: int, functions: list[int] | None = None, **options: Any) -> list[int]:
        ids = self.new_ids(count)
        keys = [f"task{id}-{id}" for id in ids]
        self.turn([(CLIENT, SubmitTasks(ids[0], ids, keys, functions or [0] * count, [b""] * count, **options))])
        return ids

    def finish_all(self) -> None:
        while any(self.batches.values()):
            batches, self.batches = self.batches, {}
            self.turn([(number, finished(batch)) for number, found in batches.items() for batch in found])

    def on(self, number: int, state: str = "memory", **options: Any) -> int:
        """A task that was given to that worker; executed there, unless it is to be ``processing``."""
        (id,) = self.submit(1, options=TaskOptions(workers=[f"w{number}"], **options))
        task = self.state.by_id[id]
        assert task.processing_on is not None and task.processing_on.number == number, task
        if state == "memory":
            self.turn([(number, TasksFinished([id], [task.attempt], [1], [0], ["int"], [0.0], [1e-5]))])
        self.batches.clear()
        return id

    def task(self, id: int) -> TaskState:
        return self.state.by_id[id]


def inventory(number: int) -> Inventory:
    return Inventory([], [], [], [], [], [], [], [], [], [], [], [], [], [], "running", number)


def finished(batch: ComputeTasks) -> TasksFinished:
    count = len(batch.ids)
    return TasksFinished(batch.ids, batch.attempts, [1] * count, [0] * count, ["int"], [0.0] * count, [1e-5] * count)


class Steps:
    """Counts the steps that the interpreter takes in modules of treadle."""

    def __init__(self) -> None:
        self.count = 0
        self._root = treadle.__path__[0]

    def __enter__(self) -> Steps:
        sys.settrace(self._called)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._root):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.count += event == "opcode"
        return self._stepped


@pytest.fixture(scope="module")
def worlds() -> tuple[World, World]:
    return World(SMALL), World(LARGE)


Scenario = Callable[[World], Events]


def cost(world: World, scenario: Scenario) -> tuple[int, int]:
    """Steps, and entries of tables."""
    events = [Event(number, message) for number, message in scenario(world)]
    Entries.seen = 0
    with Steps() as steps:
        world.core.handle(events, world.now)
    world.batches.clear()
    return steps.count, Entries.seen


def from_client(make: Callable[[World], Any]) -> Scenario:
    return lambda world: [(CLIENT, make(world))]


def local(make: Callable[[World], Any]) -> Scenario:
    return lambda world: [(0, make(world))]


def _stopped(world: World, event: Any) -> Events:
    """A worker ends that has a value and a task, was told of a function and a peer, and is known to a client."""
    number = world.worker()
    id = world.on(number)
    peer = world.on(world.worker())
    ids = world.new_ids(1)
    options = TaskOptions(workers=[f"w{number}"])
    world.turn([(CLIENT, SubmitTasks(ids[0], ids, [f"task{ids[0]}"], [BASE | 1], [b""], [[id, peer]], options=options))])
    world.batches.clear()
    return [(number, event)]


def _back(world: World) -> Events:
    number = world.worker()
    id = world.on(number)
    world.turn([(number, ConnectionLost())])
    found = inventory(number)
    found.ids, found.keys, found.nbytes, found.types, found.type_names = [id], [world.task(id).key], [1], [0], ["int"]
    return [(number, world.registration(number, found))]


def _new_with_inventory(world: World) -> Events:
    number = world.new_number()
    found = inventory(number)
    id = 2**41 + number
    found.ids, found.keys, found.nbytes, found.types, found.type_names = [id], [f"brought-{id}"], [1], [0], ["int"]
    return [(number, world.registration(number, found))]


def _client_leaves(world: World) -> Events:
    number = world.client()
    keys = [world.task(id).key for id in world.held[:2]]
    world.turn([(number, AttachKeys([number << 32 | 1, number << 32 | 2], keys))])
    return [(number, LeaveClient())]


def _client_back(world: World) -> Events:
    number = world.client()
    keys = [world.task(id).key for id in world.held[:2]]
    world.turn([(number, AttachKeys([number << 32 | 1, number << 32 | 2], keys))])
    world.turn([(number, ConnectionLost())])
    return [(number, RegisterClient(f"c{number}", {}, number)), (number, ConfirmKeys([number << 32 | 1]))]


def _report(world: World, make: Callable[[list[int], list[int]], Any]) -> Events:
    number = world.worker()
    id = world.on(number, "processing")
    return [(number, make([id], [world.task(id).attempt]))]


def _unknown(world: World, make: Callable[[list[int], list[int]], Any]) -> Events:
    return [(world.worker(), make([2**50], [1]))]


def _done(ids: list[int], attempts: list[int]) -> TasksFinished:
    return TasksFinished(ids, attempts, [1], [0], ["int"], [0.0], [1e-5])


def _failed(ids: list[int], attempts: list[int]) -> TasksErred:
    return TasksErred([TaskErred(ids[0], attempts[0], ERROR, 0.0, 1e-5)])


def _erred(world: World) -> int:
    number = world.worker()
    id = world.on(number, "processing")
    world.turn([(number, _failed([id], [world.task(id).attempt]))])
    return id


def _released_renamed(world: World) -> Events:
    id = next(iter(world.state.renamed))
    return [(CLIENT, ReleaseKeys([world.state.renamed[id].id]))]


def _scatter(world: World, key: str = "") -> Events:
    number = world.worker()
    (id,) = world.new_ids(1)
    return [(CLIENT, KeysScattered([id], [key or f"scattered-{id}"], [[number]], [1], ["int"]))]


def _scatter_known(world: World) -> Events:
    (id,) = world.submit(1, options=TaskOptions(resources={"GPU": 1.0}))
    return _scatter(world, world.task(id).key)


def _copied(world: World, report: Callable[[int, int], Any]) -> Events:
    """A copy is under way to another worker, which says something of it."""
    holder, number = world.worker(), world.worker()
    id = world.on(holder)
    world.turn([(0, ReplicateKeys(number, [id]))])
    return [(number, report(id, holder))]


def _published(world: World) -> Events:
    name = f"dataset-{world.new_number()}"
    world.turn([(CLIENT, PublishData(1, name, b"", [world.held[0]]))])
    return [(CLIENT, UnpublishData(2, name))]


def _with_gpu(world: World) -> Events:
    """A worker comes that may run one of the tasks that wait for a worker, and could not run the others."""
    number = world.new_number()
    world.submit(1, options=TaskOptions(workers=[f"w{number}"]))
    registration = world.registration(number)
    registration.identity.resources = {"GPU": 0.5}
    return [(number, registration)]


def _late_tick(world: World) -> Events:
    world.now += 100.0
    world.turn([(0, Tick())])
    return [(0, Tick())]


def _holder_leaves(world: World) -> Events:
    return [(world.state.by_id[world.everywhere].who_has[-1].number, LeaveWorker("bye"))]


def _needs_what_is_everywhere(world: World) -> Events:
    number = world.worker()
    (id,) = world.new_ids(1)
    options = TaskOptions(workers=[f"w{number}"])
    return [(CLIENT, SubmitTasks(id, [id], [f"task{id}"], [0], [b""], [[world.everywhere]], options=options))]


def _called_off(world: World) -> Events:
    """Tasks are assigned and cancelled in the same turn."""
    number = world.worker()
    ids = world.new_ids(10)
    keys = [f"task{id}-{id}" for id in ids]
    submission = SubmitTasks(ids[0], ids, keys, [0] * 10, [b""] * 10, options=TaskOptions(workers=[f"w{number}"]))
    return [(CLIENT, submission), (CLIENT, ReleaseKeys(ids))]


SCENARIOS: dict[str, Scenario] = {
    "time passes": local(lambda world: Tick()),
    "a minute passes": _late_tick,
    "a worker comes": lambda world: [(number := world.new_number(), world.registration(number))],
    "a worker with some of a resource comes": _with_gpu,
    "a worker with an inventory comes": _new_with_inventory,
    "a worker comes back": _back,
    "a worker leaves": lambda world: _stopped(world, LeaveWorker("bye")),
    "a worker dies": lambda world: _stopped(world, WorkerDeath()),
    "a worker's stream breaks": lambda world: _stopped(world, ConnectionLost()),
    "a worker pauses": lambda world: _stopped(world, WorkerStatus("paused")),
    "a worker beats": lambda world: [(world.slow, WorkerHeartbeat({}))],
    "a worker retires": lambda world: [(0, Retire([world.worker()]))],
    "a worker goes on": lambda world: [(0, Retire([world.slow], retiring=False))],
    "a client comes": lambda world: [(number := world.new_number(), RegisterClient(f"c{number}", {}))],
    "a client leaves": _client_leaves,
    "a client comes back": _client_back,
    "a client's frame is here": lambda world: [(world.client(), Sent(1, urgent=True))],
    "a function comes": from_client(lambda world: DefineFunctions([BASE | 2**23 + world.new_number()], ["f"], [b"f"])),
    "a function goes": from_client(lambda world: ForgetFunctions([BASE | 1])),
    "tasks are submitted": from_client(lambda world: SubmitTasks(0, ids := world.new_ids(1), [f"task{ids[0]}"], [BASE | 2], [b""])),
    "tasks are assigned and cancelled": _called_off,
    "a task finishes": lambda world: _report(world, _done),
    "a task fails": lambda world: _report(world, _failed),
    "a task is given back": lambda world: _report(world, lambda ids, attempts: TasksTakenBack(ids, attempts, [])),
    "a task asks to run elsewhere": lambda world: _report(world, TasksRescheduled),
    "a task starts": lambda world: _report(world, TasksStarted),
    "a task secedes": lambda world: _report(world, TasksSeceded),
    "something unknown finishes": lambda world: _unknown(world, _done),
    "something unknown fails": lambda world: _unknown(world, _failed),
    "something unknown is given back": lambda world: _unknown(world, lambda ids, attempts: TasksTakenBack(ids, attempts, [])),
    "a key is released": from_client(lambda world: ReleaseKeys([world.on(world.worker())])),
    "a key that had another name is released": _released_renamed,
    "a key is cancelled": from_client(lambda world: CancelKeys([world.on(world.worker())])),
    "a key is tried again": from_client(lambda world: RetryKeys([_erred(world)])),
    "a task is only to be done": from_client(lambda world: FireAndForget([world.on(world.worker(), "processing")])),
    "a value is scattered": _scatter,
    "a value is scattered that was to be computed": _scatter_known,
    "a value is needed that all workers have": _needs_what_is_everywhere,
    "a worker leaves that has what all have": _holder_leaves,
    "a copy is ordered": lambda world: [(0, ReplicateKeys(world.worker(), [world.on(world.worker())]))],
    "a copy comes": lambda world: _copied(world, lambda id, holder: ReplicasAdded([id])),
    "a copy goes": lambda world: _copied(world, lambda id, holder: ReplicasDropped([id])),
    "a copy cannot be had": lambda world: _copied(world, lambda id, holder: ReplicasMissing([id], [holder])),
    "a copy is given up": lambda world: [(0, DropReplicas(number := world.worker(), [world.on(number)]))],
    "a recipient leaves": lambda world: _copied(world, lambda id, holder: LeaveWorker("bye")),
    "a dataset is published": from_client(lambda world: PublishData(1, f"dataset-{world.new_number()}", b"", [world.held[0]])),
    "a dataset goes": _published,
}


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_work_does_not_grow_with_the_cluster(worlds: tuple[World, World], name: str) -> None:
    small, large = worlds
    steps, entries = cost(small, SCENARIOS[name])
    more_steps, more_entries = cost(large, SCENARIOS[name])
    assert more_entries <= entries + SLACK_ENTRIES
    assert more_steps <= steps + SLACK_STEPS


def _entries(found: object, seen: set[int]) -> int:
    """Of all tables that can be reached from a record of the core, but its story."""
    if id(found) in seen:
        return 0
    if isinstance(found, (dict, list, set, deque)):
        seen.add(id(found))
        values = found.values() if isinstance(found, dict) else ()
        return len(found) + sum(_entries(other, seen) for other in [*found, *values])
    if not type(found).__module__.startswith("treadle.scheduler.transitions") or isinstance(found, Story):
        return 0
    seen.add(id(found))
    names = [name for name in dir(found) if not name.startswith("__") and name != "only_it"]
    return sum(_entries(getattr(found, name), seen) for name in names)


def test_what_comes_and_goes_leaves_nothing() -> None:
    """Workers, clients, graphs and scattered values come and go while one worker, one client and one key of a group stay."""
    core = Transitions(Limits(), "scheduler")
    now, numbers = 0.0, iter(range(3, 1_000))
    given = iter(range(FIRST_KEY, FIRST_KEY + 1_000))

    def turn(*events: tuple[int, Any]) -> None:
        closes = core.handle([Event(*event) for event in events], now).closes
        assert not [why for _number, why in closes if why not in ("bye", "the client left")]

    def run(number: int, ids: list[int]) -> None:
        turn((number, TasksFinished(ids, [core.state.by_id[id].attempt for id in ids], [1], [0], ["int"], [0.0], [1.0])))

    def register(number: int) -> RegisterWorker:
        return RegisterWorker(WorkerIdentity(f"w{number}", f"tcp://{number}", f"w{number}", "h", 1, 0, {}, 1, "", {}, f"n{number}"))

    def round_trip() -> None:
        """A scattered value, used by a task of the group that stays, on a worker that goes."""
        number, guest, value, result = next(numbers), next(numbers), next(given), next(given)
        turn((number, register(number)), (guest, RegisterClient(f"c{guest}", {})))
        options = TaskOptions(workers=[f"w{number}"])
        turn((CLIENT, KeysScattered([value], [f"data{value}-{value}"], [[number]], [1], ["int"])))
        turn((CLIENT, DefineFunctions([BASE | number], ["f"], [b"f"])))
        submission = SubmitTasks(value, [result], [f"sum-{result}"], [BASE | number], [b""], [[value]], group="sum", options=options)
        turn((CLIENT, submission))
        run(number, [result])
        turn((guest, AttachKeys([guest << 32 | 1], [f"sum-{result}"])))
        turn((CLIENT, ReleaseKeys([value, result])), (CLIENT, ForgetFunctions([BASE | number])))
        turn((guest, LeaveClient()), (number, LeaveWorker("bye")))

    turn((CLIENT, RegisterClient("c", {})), (2, register(2)))
    stays = next(given)
    turn((CLIENT, SubmitTasks(1, [stays], [f"sum-{stays}"], [0], [b""], group="sum")))
    run(2, [stays])
    counts = []
    for _ in range(3):
        round_trip()
        now += 100.0
        turn((0, Tick()))
        # What was learned of a name stays: see ``prefixes``.
        core.state.prefixes = {"sum": core.state.prefixes["sum"]}
        counts.append(_entries(core.state, set()))
    assert counts == [counts[0]] * 3
