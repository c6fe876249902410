"""Values that no honest party sends: they are refused when they arrive, before anything is changed, and nobody else notices."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import (
    AttachKeys,
    DefineFunctions,
    KeysScattered,
    PublishData,
    ReattachKeys,
    Restart,
    RetryKeys,
    SubmitTasks,
)
from treadle.messages.worker_scheduler import (
    RegisterWorker,
    ReplicasMissing,
    TaskErred,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
)
from treadle.testing.scheduler_scene import SchedulerScene

HERS = 2 << 32  # the client has number 2


def _submit(**changes: Any) -> SubmitTasks:
    return SubmitTasks(**{"submission": 2, "ids": [HERS | 50], "keys": ["new"], "functions": [0], "payloads": [b""], **changes})


def _finished(**changes: Any) -> TasksFinished:
    columns = {"ids": [1], "attempts": [1], "nbytes": [8], "types": [0], "type_names": ["int"], "starts": [0.0], "stops": [0.0]}
    return TasksFinished(**{**columns, **changes})


@pytest.mark.parametrize(
    "message",
    [
        _submit(priority=nan),
        _submit(priority=inf),
        _submit(priority=-inf),
        _submit(options=TaskOptions(priority=nan)),
        _submit(row_options=[(0, TaskOptions(priority=inf))]),
        _submit(fifo_timeout_s=nan),
        _submit(fifo_timeout_s=-1.0),
        _submit(options=TaskOptions(resources={"GPU": nan})),
        _submit(options=TaskOptions(resources={"GPU": -1.0})),
        _submit(options=TaskOptions(resources={"GPU": 0.0})),
        _submit(options=TaskOptions(retries=-1)),
        _submit(ids=[-1]),
        _submit(first_rank=2**62),
        _submit(ranks=[-(2**61)]),
        _submit(keys=[nan]),
        _submit(keys=[["x", nan]]),
        AttachKeys([HERS | 50, HERS | 50], ["a", "mine"]),
        AttachKeys([7 << 32], ["mine"]),
        ReattachKeys([HERS | 50, HERS | 50], ["x", "y"]),
        _submit(wanted=["new"]),
        DefineFunctions([HERS | 60, HERS | 60], ["f", "g"], [b"f", b"g"]),
        DefineFunctions([HERS | 60, 7 << 32], ["f", "g"], [b"f", b"g"]),
        KeysScattered([HERS | 50], ["x"], [[1]], [-8], ["int"]),
        KeysScattered([HERS | 50], ["x"], [[-1]], [8], ["int"]),
        RetryKeys([-1]),
        PublishData(1, nan, b"", []),
        Restart(1, nan),
        Restart(1, -1.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_client_that_sends_nonsense_is_dropped_alone(message: Any) -> None:
    scene = SchedulerScene()
    scene.worker("w1")
    scene.client("c")
    scene.client("other")
    scene.submit("a", client="c")
    scene.submit("mine", client="other")
    functions = dict(scene.core.state.functions)
    scene.event("c", message)
    assert [name for name, _why in scene.closed] == ["c"]
    assert scene.core.state.functions == functions
    assert set(scene.core.tasks) == {"mine"}
    scene.finish("mine", on="w1")
    assert scene.state("mine") == "memory"


@pytest.mark.parametrize(
    "message",
    [
        _finished(nbytes=[-1]),
        _finished(nbytes=[2**61]),
        _finished(starts=[nan]),
        _finished(stops=[inf]),
        _finished(stops=[-1.0]),
        _finished(attempts=[-1]),
        _finished(attempts=[]),
        TasksErred([TaskErred(1, 1, TaskError(b"", b"", "", ""), nan, 0.0)]),
        TasksStarted([1], []),
        TasksSeceded([1], [1, 2]),
        TasksTakenBack([1], [], []),
        TasksRescheduled([1, 2], [1]),
        ReplicasMissing([1], []),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_worker_that_sends_nonsense_is_dropped_alone(message: Any) -> None:
    scene = SchedulerScene()
    scene.worker("w1")
    scene.worker("w2")
    scene.client("c")
    scene.submit("a", client="c", options=TaskOptions(workers=["w1"], allow_other_workers=True))
    scene.event("w1", message)
    assert [name for name, _why in scene.closed] == ["w1"]
    assert scene.where("a") == "w2"
    scene.finish("a", on="w2")
    assert scene.state("a") == "memory"


@pytest.mark.parametrize("resources", [{"GPU": nan}, {"GPU": -1.0}, {"GPU": inf}], ids=repr)
def test_a_worker_of_impossible_resources_does_not_join(resources: dict[str, float]) -> None:
    scene = SchedulerScene()
    scene.worker("w1")
    scene.client("c")
    scene.event("w1", RegisterWorker(WorkerIdentity("id", "tcp://h:9", "bad", "h", 1, 0, resources, 1, "/", {})))
    assert [name for name, _why in scene.closed] == ["w1"]
    assert not scene.core.workers
