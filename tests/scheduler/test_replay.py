"""A core that is told what another one wrote down is as that one was, but that everybody is away; and so is one made from its snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from treadle.messages.client_scheduler import (
    ClientHeartbeat,
    ClientToScheduler,
    ConfirmKeys,
    DefineFunctions,
    LeaveClient,
    Order,
    PublishData,
    Query,
    RegisterClient,
    ReleaseKeys,
    Restart,
    RunOn,
    Sent,
    Shutdown,
    SubmitTasks,
    UnpublishData,
)
from treadle.messages.codec import encode
from treadle.messages.journal import FrameRecord, encode_record
from treadle.scheduler.journaling import ClientFrame
from treadle.scheduler.recovery import DURABLE, Recovery, Replay
from treadle.scheduler.snapshot import snapshot
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.records import ERRED, MEMORY, RELEASED, TaskState
from treadle.scheduler.transitions.state import Limits
from treadle.testing.simulation import scheduler as simulated_scheduler
from treadle.testing.simulation.disk import SimulatedDirectory, SimulatedJournal
from treadle.testing.simulation.scenario import Scenario, scenario_of
from treadle.testing.simulation.trial import simulate

Records = list[tuple[bytes, list[bytes]]]


class Stored:
    """A record as a reader gives it."""

    def __init__(self, body: bytes, buffers: list[bytes]) -> None:
        self.body = memoryview(body)
        self.buffers = [memoryview(buffer) for buffer in buffers]


def replay(records: Records, limits: Limits | None = None) -> Transitions:
    core = Transitions(limits or Limits(validate=True, client_grace_s=10, worker_grace_s=10, recovery_grace_s=10), "another scheduler")
    replay = Replay(core)
    recovery = Recovery()
    for body, buffers in records:
        replay.take(Stored(body, buffers), recovery)  # type: ignore[arg-type]
    replay.end(recovery)
    core.validate()
    return core


def snapshot_of(core: Transitions) -> Records:
    return [(encode_record(record), buffers) for record, buffers in snapshot(core.state, 10**6)]


class Watched(SimulatedJournal):
    """A journal that now and then looks whether it tells the truth: what is on disk, and what is still to be written."""

    strict = True
    every = 1
    checks = 0

    def __init__(self, directory: SimulatedDirectory, core: Transitions, *args: Any, **options: Any) -> None:
        newest = max(directory.numbers(), default=0)
        self.records: Records = [
            (bytes(record.body), [bytes(buffer) for buffer in record.buffers])
            for number, segment in directory.segments()
            for record in segment.records(number == newest)
        ]
        self.turns = 0
        super().__init__(directory, core, *args, **options)

    def record(self, records: list[Any], now: float) -> None:
        for record in records:
            if type(record) is ClientFrame:
                self.records.append((encode_record(FrameRecord(record.number, now)), [record.body, *record.buffers]))
            else:
                self.records.append((encode_record(record), []))
        super().record(records, now)

    def keep(self, events: list[Event], records: list[Any], now: float) -> None:
        super().keep(events, records, now)
        self.turns += 1
        if self.turns % self.every == 0:
            self.check()

    def check(self) -> None:
        Watched.checks += 1
        replayed = replay(self.records)
        compare(self._core, replayed, self.strict)
        compare(replayed, replay(snapshot_of(replayed)), True)
        # Compaction in the middle of a life: a snapshot and what came after it.
        if self.checks % 3 == 0:
            self.records = snapshot_of(replayed)


def facts_about(task: TaskState) -> tuple[Any, ...]:
    return (
        task.id,
        task.group.name,
        task.priority,
        task.function.id if task.function is not None else 0,
        task.payload,
        [bytes(buffer) for buffer in task.buffers or ()],
        task.options,
        [need.key for need in task.dependencies],
        {client.id for client in task.who_wants},
        task.later_dependents,
        # Of two that failed in one turn, either may be what is blamed.
        task.error is None,
    )


def compare(live: Transitions, told: Transitions, strict: bool) -> None:
    """``strict``: values are not lost and found without the scheduler's doing, so that what is in memory is known exactly."""
    one, other = live.state, told.state
    assert set(one.tasks) == set(other.tasks)
    for key, task in one.tasks.items():
        twin = other.tasks[key]
        assert (task.state == ERRED) == (twin.state == ERRED), (task, twin)
        assert facts_about(task) == facts_about(twin), (task, twin)
        if strict:
            assert (task.state == MEMORY) == (twin.state == MEMORY), (task, twin, live.story(key))
            assert (task.state == RELEASED) == (twin.state == RELEASED), (task, twin, live.story(key))
        if task.state == MEMORY == twin.state:
            assert (task.type_name, task.nbytes) == (twin.type_name, twin.nbytes)
    assert {id: (f.name, f.body, f.ntasks, f.held) for id, f in one.functions.items()} == {
        id: (f.name, f.body, f.ntasks, f.held) for id, f in other.functions.items()
    }
    assert [(w.number, w.id, w.address, w.name, w.nthreads, w.resources) for w in one.workers.values()] == [
        (w.number, w.id, w.address, w.name, w.nthreads, w.resources) for w in other.workers.values()
    ]
    assert list(one.clients) == list(other.clients)
    for client in [*one.clients.values(), one.fire_and_forget]:
        twin_client = other.clients.get(client.id, other.fire_and_forget)
        assert client.number == twin_client.number
        assert {task.key for task in client.wants_what} == {task.key for task in twin_client.wants_what}
        assert {id: task.key for id, task in client.aliases.items()} == {id: task.key for id, task in twin_client.aliases.items()}
        assert {id: (e.task.key, e.submission, e.count) for id, e in client.expecting.items()} == {
            id: (e.task.key, e.submission, e.count) for id, e in twin_client.expecting.items()
        }
        assert set(client.functions) == set(twin_client.functions)
        # Frames that leave nothing behind are not written down: they may come again.
        assert client.received >= twin_client.received
        assert (client.submission, client.generation) == (twin_client.submission, twin_client.generation)
    assert one.generation == other.generation


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def run(scenario: Scenario, strict: bool) -> int:
        """How often the journal was looked at."""
        monkeypatch.setattr(Watched, "strict", strict)
        monkeypatch.setattr(Watched, "every", 5 + scenario.seed % 20)
        monkeypatch.setattr(Watched, "checks", 0)
        monkeypatch.setattr(simulated_scheduler, "SimulatedJournal", Watched)
        simulate(replace(scenario, journal=True, script=None))
        return Watched.checks

    yield run


def test_each_message_of_clients_is_durable_or_known_not_to_be() -> None:
    """Whoever adds one decides."""
    not_durable = {ClientHeartbeat, ConfirmKeys, LeaveClient, Order, Query, Restart, RunOn, Sent, Shutdown}
    assert set(ClientToScheduler.__args__) == DURABLE | not_durable


@pytest.mark.parametrize("seed", range(40))
def test_the_journal_tells_what_the_core_knows(simulated: Any, seed: int) -> None:
    scenario = scenario_of(seed)
    # Values that a worker has lost, or that came back with one that was given up, are known of when it says so.
    strict = not (scenario.deaths or scenario.data_losses or scenario.cuts or scenario.scheduler_deaths or scenario.clock_jumps)
    assert simulated(scenario, strict)


@pytest.mark.parametrize("seed", range(25))
def test_where_nothing_is_lost_it_tells_all_of_it(simulated: Any, seed: int) -> None:
    scenario = Scenario(seed, tasks=20, clients=2, workers=3, acts=20, chunks=3, broken_share=0.1, flaky_share=0.1, retries=1, pauses=1)
    assert simulated(scenario, True)


@pytest.mark.parametrize("limits", [Limits(), Limits(client_grace_s=10, worker_grace_s=10)], ids=["compaction", "restart"])
def test_a_client_that_came_back_keeps_what_it_wants(limits: Limits) -> None:
    """Whatever the patience of the core that is told: whoever was given up has a record of its own."""
    register = encode([RegisterClient("the client", {})])
    again = encode([RegisterClient("the client", {}, 7)])
    attach = encode([DefineFunctions([7 << 32 | 1], ["f"], [b"f"]), SubmitTasks(1, [7 << 32 | 2], ["x"], [7 << 32 | 1], [b""]), Sent(1)])
    core = replay([(encode_record(FrameRecord(7, 1.0)), [body]) for body in (register, attach, again)], limits)
    assert [task.key for task in core.clients["the client"].wants_what] == ["x"]


def test_published_datasets_are_told_and_so_are_those_of_a_snapshot() -> None:
    register = encode([RegisterClient("the client", {})])
    submit = encode([DefineFunctions([7 << 32 | 1], ["f"], [b"f"]), SubmitTasks(1, [7 << 32 | 2], ["x"], [7 << 32 | 1], [b""]), Sent(1)])
    publish = encode([PublishData(1, "kept", b"x", [7 << 32 | 2]), PublishData(2, ("a", 1), b"taken back", []), Sent(2)])
    refused = encode([PublishData(3, "kept", b"another", []), UnpublishData(4, ("a", 1)), ReleaseKeys([7 << 32 | 2]), Sent(3)])
    told = replay([(encode_record(FrameRecord(7, 1.0)), [body]) for body in (register, submit, publish, refused)])
    for core in (told, replay(snapshot_of(told))):
        assert {name: dataset.body for name, dataset in core.state.published.items()} == {"kept": b"x"}
        (task,) = core.tasks.values()
        assert task.key == "x" and task.who_wants == [core.state.published["kept"].wants]
        assert not core.clients["the client"].wants_what


def test_what_a_chosen_key_stands_for_is_told_and_so_is_that_of_a_snapshot() -> None:
    register = encode([RegisterClient("the client", {})])
    rows = SubmitTasks(1, [7 << 32 | 2, 7 << 32 | 3], ["x", "y"], [0, 0], [b"", b""], digests=[(1, b"what y is")])
    told = replay([(encode_record(FrameRecord(7, 1.0)), [body]) for body in (register, encode([rows, Sent(1)]))])
    for core in (told, replay(snapshot_of(told))):
        assert {key: task.digest for key, task in core.tasks.items()} == {"x": b"", "y": b"what y is"}
