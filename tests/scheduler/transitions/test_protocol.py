"""What arrives late, twice or malformed; functions; and the end of everything."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    DefineFunctions,
    KeysScattered,
    ReleaseKeys,
    RetryKeys,
    SubmitTasks,
)
from treadle.messages.scheduler_local import ConnectionLost
from treadle.messages.worker_scheduler import (
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TasksFinished,
    TasksStarted,
    TasksTakenBack,
    WorkerHeartbeat,
    WorkerStatus,
)
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers)
    scene.client("c")
    return scene


# ------------------------------------------------------------------------------------------------------ stale


def test_result_of_an_older_attempt_is_dropped() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1"], allow_other_workers=True))
    scene.pause("w1")
    scene.reschedule("a", on="w1")
    assert scene.where("a") == "w2"
    scene.sent("w1")
    scene.finish("a", on="w1")
    assert scene.sent("w1") == ["drop a"]
    assert scene.where("a") == "w2"
    assert scene.told("c") == []


def test_failure_of_an_older_attempt_is_ignored() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.reschedule("a", on="w1")
    scene.fail("a", on="w1", attempt=1)
    assert scene.state("a") == "processing"
    scene.start("a", on="w1", attempt=1)
    scene.secede("a", on="w1", attempt=1)
    assert not scene.worker_state("w1").executing and not scene.worker_state("w1").long_running


def test_result_of_a_forgotten_task_is_dropped() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.release("a")
    scene.sent("w1")
    scene.finish("a", on="w1")
    assert scene.sent("w1") == ["drop a"]
    scene.nothing_left()


def test_result_that_is_reported_twice() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.finish("a", on="w1")
    scene.sent("w1")
    scene.finish("a", on="w1")
    assert scene.sent("w1") == []
    assert scene.where("a") == "w1"


def test_old_answer_about_a_task_given_back() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.reschedule("a", on="w1")
    scene.event("w1", TasksTakenBack([scene.task_id("a")], [1], []))
    assert scene.task("a").attempt == 2 and scene.state("a") == "processing"


def test_words_about_tasks_that_never_were() -> None:
    scene = scene_with("w1")
    scene.sent("w1")
    for message in (
        TasksStarted([77], [1]),
        TasksTakenBack([77], [1], [78]),
        ReplicasDropped([77]),
        ReplicasMissing([77], [99]),
        WorkerHeartbeat({"cpu": 1}),
    ):
        scene.event("w1", message)
    scene.event("w1", ReplicasAdded([77]))
    assert scene.sent("w1") == ["drop 77", "drop 77"]
    for message in (ReleaseKeys([77]), CancelKeys([77])):
        scene.event("c", message)
    scene.event("c", RetryKeys([77]))
    assert scene.told("c") == ["cancelled 77: already forgotten"]
    scene.nothing_else_sent()
    assert not scene.closed


def test_end_of_a_stream_that_never_said_who_it_was() -> None:
    scene = scene_with("w1")
    scene.event("", ConnectionLost())
    assert not scene.closed


# -------------------------------------------------------------------------------------------------- malformed

HERS = 2 << 32  # the first client has number 2

ROGUE_CLIENT: list[Any] = [
    SubmitTasks(1, [HERS | 50, HERS | 51], ["a"], [0, 0], [b"", b""]),
    SubmitTasks(1, [HERS | 50, HERS | 50], ["a", "b"], [0, 0], [b"", b""]),
    SubmitTasks(1, [7 << 32 | 1], ["a"], [0], [b""]),
    SubmitTasks(1, [HERS | 1], ["a"], [0], [b""]),
    SubmitTasks(1, [HERS | 50], ["a"], [12345], [b""]),
    SubmitTasks(1, [HERS | 50], [{"no": "key"}], [0], [b""]),
    SubmitTasks(1, [HERS | 50], [["x", None]], [0], [b""]),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], parent={}),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], dependencies=[]),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], later_dependents=[-1]),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], row_options=[(1, TaskOptions())]),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], buffers=[(0, 1)]),
    SubmitTasks(1, [HERS | 50], ["a"], [0], [b""], buffers=[(3, 0)]),
    DefineFunctions([HERS | 60], [], []),
    DefineFunctions([7 << 32 | 1], ["f"], [b""]),
    KeysScattered([HERS | 50], ["a"], [], [8], ["int"]),
    KeysScattered([7 << 32 | 1], ["a"], [[1]], [8], ["int"]),
    KeysScattered([HERS | 50, HERS | 50], ["a", "b"], [[1], [1]], [8, 8], ["int", "int"]),
    KeysScattered([HERS | 50], [{}], [[1]], [8], ["int"]),
    AttachKeys([HERS | 50], [{}]),
    AttachKeys([HERS | 50], []),
]
ROGUE_WORKER: list[Any] = [
    TasksFinished([1], [], [8], [0], ["int"], [0.0], [0.0]),
    TasksFinished([1], [1], [8], [1], ["int"], [0.0], [0.0]),
    TasksFinished([1], [1], [8], [-1], ["int"], [0.0], [0.0]),
    WorkerStatus("dancing"),
]


@pytest.mark.parametrize("message", ROGUE_CLIENT, ids=repr)
def test_client_that_breaks_the_protocol_is_removed_and_nobody_else_notices(message: Any) -> None:
    scene = scene_with("w1")
    scene.client("d")
    scene.submit("mine", client="c")
    scene.submit("theirs", client="d")
    scene.event("c", message)
    assert [name for name, _ in scene.closed] == ["c"]
    assert list(scene.core.clients) == ["id of d"]
    assert list(scene.core.tasks) == ["theirs"]
    assert not scene.core.state.functions
    scene.finish("theirs", on="w1")
    assert scene.told("d") == ["memory theirs@w1"]


@pytest.mark.parametrize("message", ROGUE_WORKER, ids=repr)
def test_worker_that_breaks_the_protocol_is_removed_and_its_work_goes_on_elsewhere(message: Any) -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1"], allow_other_workers=True))
    scene.event("w1", message)
    assert [name for name, _ in scene.closed] == ["w1"]
    assert scene.where("a") == "w2"


def test_strangers_are_shown_the_door() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.parties["stranger"] = type(scene.parties["c"])(99, "stranger")
    scene.event("stranger", ReleaseKeys([scene.task_id("a")]))
    assert [name for name, _ in scene.closed] == ["stranger"]
    assert scene.state("a") == "processing"


def test_second_client_of_one_id_is_shown_the_door() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    first = scene.parties["c"]
    scene.client("c")
    assert [name for name, _ in scene.closed] == ["c"]
    scene.parties["c"] = first
    scene.finish("a", on="w1")
    assert scene.told("c") == ["memory a@w1"]


def test_rest_of_a_turn_is_handled_beside_a_malformed_event() -> None:
    scene = scene_with("w1")
    scene.client("d")
    party = scene.parties["d"]
    good = SubmitTasks(1, [party.number << 32 | 1], ["good"], [0], [b""])
    scene.turn([("c", AttachKeys([1], []), []), ("d", good, []), ("c", ReleaseKeys([1]), [])])
    assert scene.state("good") == "processing"


# -------------------------------------------------------------------------------------------------- functions


def test_function_is_sent_once_to_each_worker() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a b", function="f")
    assert scene.sent("w1") == ["learn f", "compute a"]
    assert scene.sent("w2") == ["learn f", "compute b"]
    scene.submit("d e", function="f")
    assert scene.sent("w1") + scene.sent("w2") == ["compute d", "compute e"]


def test_function_is_unlearned_when_no_task_needs_it_and_its_client_forgot_it() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", function="f")
    scene.forget_function("f")
    assert scene.sent("w1") == ["learn f", "compute a"]
    scene.finish("a", on="w1")
    scene.release("a")
    assert scene.sent("w1") == ["drop a", "unlearn f"]
    assert scene.sent("w2") == []
    scene.nothing_left()


def test_function_is_kept_as_long_as_its_client_may_name_it() -> None:
    scene = scene_with("w1")
    scene.submit("a", function="f")
    scene.release("a")
    assert "unlearn f" not in scene.sent("w1")
    scene.submit("b", function="f")
    assert scene.sent("w1") == ["compute b"]


def test_functions_of_a_client_that_left() -> None:
    scene = scene_with("w1")
    scene.client("d")
    scene.submit("a", function="f", client="c")
    scene.submit("a", client="d")
    scene.leave("c")
    assert scene.core.state.functions
    scene.lose("w1")
    scene.worker("w2")
    assert scene.sent("w2") == ["learn f", "compute a"]
    scene.release("a", client="d")
    assert scene.sent("w2") == ["drop a", "unlearn f"]
    assert not scene.core.state.functions


# ----------------------------------------------------------------------------------------------- the end of all


def test_everything_is_forgotten_at_once() -> None:
    scene = scene_with("w1", "w2")
    scene.client("d")
    scene.submit("a -> b -> e", client="c", wanted=["b"], function="f")
    scene.submit("a x y z", client="d")
    scene.submit("n", client="d", options=TaskOptions(workers=["nowhere"]))
    scene.finish("a", on=scene.where("a"))
    scene.told("c")
    scene.told("d")
    scene.sent("w1")
    scene.sent("w2")
    scene.forget("scheduler-restart")
    assert scene.told("c") == ["cancelled b: scheduler-restart"]
    assert sorted(scene.told("d")) == [f"cancelled {key}: scheduler-restart" for key in "anxyz"]
    assert sorted(scene.sent("w1") + scene.sent("w2"))[:2] == ["drop a", "drop b"]
    scene.nothing_left()
    scene.parties["c"].ids.clear()
    scene.submit("a", client="c")
    assert scene.state("a") == "processing"


def test_chunk_that_comes_after_everything_was_forgotten() -> None:
    scene = scene_with("w1")
    scene.submit("a", wanted=[], later_dependents=[1])
    scene.forget()
    scene.submit("a -> b", new_submission=False)
    assert scene.told("c") == ["cancelled b: lost dependencies"]
    scene.nothing_left()
