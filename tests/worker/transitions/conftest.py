"""The worker's core on a stage: tasks are named by letters, peers by numbers, and the clock is turned by hand."""

from __future__ import annotations

from collections import deque

import pytest

from treadle.messages.base import Holders, Peer, TaskError, TaskOptions
from treadle.messages.local import (
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
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TakeBack,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerPeers,
    WorkerPeersGone,
    WorkerStatus,
    WorkerWelcome,
)
from treadle.worker.transitions.machine import WorkerTransitions
from treadle.worker.transitions.records import STATE_NAMES

ME = 9


def error(text="boom"):
    return TaskError(b"", b"", text, "")


class Env:
    """Letters are keys, and their codes are the ids. What comes out is put in order by kind, and consumed by asking."""

    def __init__(self, resources=None, **limits):
        self.core = WorkerTransitions("here", resources or {}, validate=True, **limits)
        self.now = 100.0
        self.wake_at = 0.0
        self.sent = deque()
        self.executing = {}
        self.requests = {}
        self.store = {}
        self.to_take_back = []
        self.hear(WorkerWelcome(ME, "scheduler"))

    # ----------------------------------------------------------------------------------------- the world

    def hear(self, *events):
        self.perform(self.core.handle(list(events), self.now))

    def perform(self, out):
        for key in out.drop:
            del self.store[key]
        for key, value in out.store.values():
            self.store[key] = value
        for message in out.messages():
            self.sent.extend(self.rows(message))
        for spec in out.execute:
            assert spec.key not in self.executing, "one execution at a time"
            self.executing[spec.key] = spec
        self.to_take_back += [chr(id) for id in out.take_back]
        for fetch in out.fetch:
            assert fetch.peer not in self.requests, "one request a peer"
            self.requests[fetch.peer] = [chr(id) for id in fetch.ids]
        self.wake_at = out.wake_at

    def rows(self, message):
        def named(ids):
            return [chr(id) for id in ids]

        match message:
            case TasksFinished():
                return [("finished", key, attempt) for key, attempt in zip(named(message.ids), message.attempts, strict=True)]
            case TasksErred():
                return [("erred", chr(row.id), row.attempt, row.error.exception_text) for row in message.tasks]
            case TasksStarted():
                return [("started", key, attempt) for key, attempt in zip(named(message.ids), message.attempts, strict=True)]
            case TasksSeceded():
                return [("seceded", key, attempt) for key, attempt in zip(named(message.ids), message.attempts, strict=True)]
            case TasksRescheduled():
                return [("rescheduled", key, attempt) for key, attempt in zip(named(message.ids), message.attempts, strict=True)]
            case TasksTakenBack():
                given = [("given back", key, attempt) for key, attempt in zip(named(message.ids), message.attempts, strict=True)]
                return given + [("kept", key) for key in named(message.kept)]
            case ReplicasAdded():
                return [("added", key) for key in named(message.ids)]
            case ReplicasDropped():
                return [("dropped", key) for key in named(message.ids)]
            case ReplicasMissing():
                return [("missing", key, holder) for key, holder in zip(named(message.ids), message.holders, strict=True)]
            case WorkerStatus():
                return [("status", message.status)]
        raise AssertionError(message)

    # ------------------------------------------------------------------------------------- the scheduler says

    def meet(self, *numbers, host="there"):
        self.hear(WorkerPeers([Peer(number, f"tcp://{host}:{number}") for number in numbers]))

    def gone(self, *numbers):
        self.hear(WorkerPeersGone(list(numbers)))

    def compute_message(self, key, attempt=1, needs="", at=(), priority=0, nbytes=10, **options):
        """``needs``: a letter a dependency; ``at``: the holders of all of them, or a dict by letter."""
        holders = [Holders(ord(name), name, nbytes, list(at[name] if isinstance(at, dict) else at)) for name in needs]
        return ComputeTasks(
            [ord(key)],
            [key],
            [attempt],
            [1],
            [b"payload"],
            [(0.0, 0.0, priority)],
            dependencies=[[ord(name) for name in needs]] if needs else None,
            holders=holders or None,
            row_options=[(0, TaskOptions(**options))] if options else None,
        )

    def compute(self, key, attempt=1, **options):
        self.hear(self.compute_message(key, attempt, **options))

    def drop(self, keys):
        self.hear(DropKeys([ord(key) for key in keys]))

    def take_back(self, key, attempt=1):
        self.hear(TakeBack([ord(key)], [attempt]))

    def replicate(self, key, at):
        self.hear(FetchReplicas([Holders(ord(key), key, 10, list(at))]))

    def holders_changed(self, key, at):
        self.hear(HoldersChanged([Holders(ord(key), key, 10, list(at))]))

    # -------------------------------------------------------------------------------------- the executor says

    def finish(self, keys, value=1):
        ids = [ord(key) for key in keys]
        for key in keys:
            del self.executing[key]
        count = len(ids)
        self.hear(ExecutionsDone(ids, [value] * count, [8] * count, ["int"] * count, [1.0] * count, [2.0] * count))

    def fail(self, key, text="boom"):
        del self.executing[key]
        self.hear(ExecutionFailed(ord(key), error(text), 1.0, 2.0))

    def reschedule(self, key):
        del self.executing[key]
        self.hear(ExecutionRescheduled(ord(key)))

    def unready(self, key):
        del self.executing[key]
        self.hear(ExecutionUnready(ord(key)))

    def start(self, key):
        self.hear(ExecutionsStarted([ord(key)]))

    def secede(self, key):
        self.hear(ExecutionsSeceded([ord(key)]))

    def answer_take_back(self, taken="", kept=""):
        assert sorted(self.to_take_back) == sorted(taken + kept)
        self.to_take_back = []
        for key in taken:
            del self.executing[key]
        self.hear(TakeBackDone([ord(key) for key in taken], [ord(key) for key in kept]))

    def pause(self, paused=True):
        self.hear(Paused(paused))

    # ------------------------------------------------------------------------------------------ peers say

    def arrive(self, peer, got="", missing="", failed=""):
        asked = [ord(key) for key in self.requests.pop(peer)]
        ids = [ord(key) for key in got]
        rows = [(ord(key), error(f"no {key}")) for key in failed]
        missing_ids = [ord(key) for key in missing]
        self.hear(FetchDone(peer, asked, ids, [1] * len(ids), [10] * len(ids), ["int"] * len(ids), missing_ids, rows))

    def busy(self, peer):
        self.hear(FetchBusy(peer, [ord(key) for key in self.requests.pop(peer)]))

    def unreachable(self, peer):
        self.hear(FetchFailed(peer, [ord(key) for key in self.requests.pop(peer)]))

    def put(self, key, value=1):
        self.hear(DataPut([ord(key)], [key], [value], [8], ["int"]))

    def wait_until_wanted(self):
        assert self.wake_at > self.now
        self.now = self.wake_at
        self.hear(Tick())

    # --------------------------------------------------------------------------------------------- asking

    def said(self):
        """What the scheduler was told since it was asked last."""
        rows = list(self.sent)
        self.sent.clear()
        return rows

    def state(self, key):
        task = self.core.state.tasks.get(ord(key))
        return None if task is None else STATE_NAMES[task.state]

    def is_idle(self):
        """Nothing under way, nothing known."""
        return not (self.core.state.tasks or self.executing or self.requests or self.to_take_back or self.sent or self.store)


@pytest.fixture
def make_env():
    return Env


@pytest.fixture
def env():
    return Env()
