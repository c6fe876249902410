"""Workers come, pause, die and give tasks back; tasks wait for a worker, or are not tried again."""

from __future__ import annotations

import pytest

from treadle.exceptions import KilledWorker, NoValidWorkerError, NoWorkerError
from treadle.messages.base import TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import KeysErred
from treadle.messages.worker_scheduler import RegisterWorker
from treadle.serialize.errors import load_error
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, nthreads: int = 1, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers, nthreads=nthreads)
    scene.client("c")
    return scene


def error_told(scene: SchedulerScene) -> BaseException:
    (message,) = [message for message in scene.messages("c") if isinstance(message, KeysErred)]
    return load_error(message.error)


def on(worker: str) -> TaskOptions:
    return TaskOptions(workers=[worker], allow_other_workers=True)


# ------------------------------------------------------------------------------------------------ they come


def test_queue_waits_for_the_first_worker() -> None:
    scene = scene_with()
    scene.submit("a -> b")
    assert scene.states("a b") == ["no-worker", "waiting"]
    scene.worker("w1")
    assert scene.sent("w1") == ["compute a"]


def test_second_worker_of_a_name_or_address_is_refused() -> None:
    scene = scene_with("w1")
    first = scene.parties["w1"]
    scene.worker("w1")
    (refusal,) = scene.sent("w1")
    assert refusal.startswith("refused: the name 'w1' is in use by the worker at tcp://host-of-w1:1")
    assert scene.closed == [("w1", "refused")]
    scene.parties["w1"] = first
    scene.submit("a")
    assert scene.sent("w1") == ["compute a"]


def test_worker_without_threads_is_refused() -> None:
    scene = scene_with()
    scene.worker("w1", nthreads=0)
    assert scene.sent("w1") == ["refused: a worker needs at least one thread, 'w1' has 0"]
    assert not scene.core.workers


# ------------------------------------------------------------------------------------------------- they die


def test_only_what_is_still_needed_is_computed_again() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a -> b -> c -> d", wanted=["d"], options=on("w1"))
    for key in "abc":
        scene.finish(key, on="w1")
    assert scene.states("a b c d") == ["released", "released", "memory", "processing"]
    scene.lose("w1")
    assert scene.sent("w2") == ["compute a"]
    for key in "abcd":
        scene.finish(key, on="w2")
    assert scene.told("c") == ["memory d@w2"]


def test_copies_save_the_work() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=on("w1"))
    scene.finish("a", on="w1")
    scene.submit("a -> b", options=on("w2"))
    scene.copy("a", on="w2")
    scene.sent("w2")
    scene.lose("w1")
    assert scene.where("a") == "w2"
    assert scene.sent("w2") == []


def test_finished_result_is_lost_and_made_again() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=on("w1"))
    scene.finish("a", on="w1")
    scene.told("c")
    scene.lose("w1")
    assert scene.told("c") == ["pending a"]
    assert scene.sent("w2") == ["compute a"]


def test_loss_while_a_dependent_runs_elsewhere() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=on("w1"))
    scene.finish("a", on="w1")
    scene.submit("a -> b", options=on("w2"))
    scene.sent("w2")
    scene.lose("w1")
    assert scene.states("a b") == ["processing", "waiting"]
    assert sorted(scene.sent("w2")) == ["compute a", "drop b"]
    scene.finish("a", on="w2")
    assert scene.sent("w2") == ["compute b with a@w2"]


def test_loss_of_a_queued_tasks_data() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=on("w2"))
    scene.finish("a", on="w2", duration=1.0)
    members = " ".join([f"m-{number}" for number in range(9)])
    scene.submit(f"a -> {members}")
    assert "queued" in scene.states(members)
    scene.lose("w2")
    assert set(scene.states(members)) == {"waiting"}
    scene.finish("a", on="w1")
    assert "queued" in scene.states(members)


def test_last_worker_dies_with_a_full_queue() -> None:
    scene = scene_with("w1")
    scene.submit("a b c d")
    scene.lose("w1", blame=False)
    assert set(scene.states("a b c d")) == {"no-worker"}
    scene.worker("w2")
    assert scene.states("a b c d") == ["processing", "processing", "queued", "queued"]


def test_others_are_told_who_left() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=on("w1"))
    scene.finish("a", on="w1")
    scene.submit("a -> b", options=on("w2"))
    scene.sent("w2")
    scene.told("c")
    scene.leave("w1")
    assert "gone w1" in scene.sent("w2", everything=True)
    assert "gone w1" in scene.told("c", everything=True)
    assert scene.closed == [("w1", "it is time")]


def test_task_that_kills_its_workers_is_not_tried_for_ever() -> None:
    scene = scene_with(allowed_failures=2)
    scene.submit("deadly -> b")
    for number in range(3):
        scene.worker(f"w{number}")
        assert scene.state("deadly") == "processing"
        scene.lose(f"w{number}")
    assert scene.states("deadly b") == ["erred", "erred"]
    errors = [message for message in scene.messages("c") if isinstance(message, KeysErred)]
    assert sorted([scene.names.key(id) for message in errors for id in message.ids]) == ["b", "deadly"]
    error = load_error(errors[0].error)
    assert isinstance(error, KilledWorker)
    assert (error.task, error.last_worker, error.allowed_failures) == ("deadly", "tcp://host-of-w2:4", 2)


def test_worker_that_leaves_on_purpose_blames_nobody() -> None:
    scene = scene_with(allowed_failures=0)
    scene.submit("a")
    for number in range(3):
        scene.worker(f"w{number}")
        scene.leave(f"w{number}")
    assert scene.state("a") == "no-worker"
    assert scene.task("a").suspicious == 0


def test_only_what_may_have_been_executing_is_blamed() -> None:
    scene = scene_with("w1", worker_saturation=3.0)
    scene.submit("a b c")
    scene.start("b", on="w1")
    scene.lose("w1")
    assert [scene.task(key).suspicious for key in "abc"] == [0, 1, 0]


def test_without_a_word_the_most_urgent_are_blamed() -> None:
    scene = scene_with("w1", nthreads=2, worker_saturation=3.0)
    scene.submit("a b c d")
    scene.lose("w1")
    assert [scene.task(key).suspicious for key in "abcd"] == [1, 1, 0, 0]


def test_retry_forgives_a_killer() -> None:
    scene = scene_with("w1", allowed_failures=0)
    scene.submit("a")
    scene.lose("w1")
    assert scene.state("a") == "erred"
    scene.worker("w2")
    scene.retry("a")
    assert scene.where("a") == "w2"


# ------------------------------------------------------------------------------------------------ they pause


def test_paused_worker_gets_nothing_new() -> None:
    scene = scene_with("w1", "w2")
    scene.pause("w1")
    scene.submit("a b c")
    assert scene.sent("w1") == []
    assert scene.sent("w2") == ["compute a", "compute b"]
    scene.resume("w1")
    assert scene.sent("w1") == ["compute c"]


def test_paused_worker_keeps_and_reports_what_it_has() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.pause("w1")
    scene.finish("a", on="w1")
    assert scene.told("c") == ["memory a@w1"]
    scene.submit("a -> b")
    assert scene.state("b") == "no-worker"
    scene.resume("w1")
    assert scene.where("b") == "w1"


def test_last_running_worker_pauses() -> None:
    scene = scene_with("w1")
    scene.submit("a b c d")
    scene.pause("w1")
    assert scene.states("a b c d") == ["processing", "processing", "no-worker", "no-worker"]
    scene.resume("w1")
    assert scene.states("a b c d") == ["processing", "processing", "queued", "queued"]


def test_pausing_twice_is_pausing_once() -> None:
    scene = scene_with("w1")
    scene.pause("w1")
    scene.pause("w1")
    scene.resume("w1")
    scene.resume("w1")
    scene.submit("a")
    assert scene.sent("w1") == ["compute a"]


# -------------------------------------------------------------------------------------------- nobody can run it


def test_wait_for_any_worker_has_an_end() -> None:
    scene = scene_with(no_workers_timeout_s=60.0)
    scene.submit("a -> b", wanted=["b"])
    scene.tick(59)
    assert scene.state("a") == "no-worker"
    scene.tick(2)
    assert scene.states("a b") == ["released", "erred"]
    error = error_told(scene)
    assert isinstance(error, NoWorkerError)
    assert (error.task, error.waited_s) == ("a", 61.0)


def test_wait_for_a_certain_worker_has_an_end() -> None:
    scene = scene_with("w1", no_workers_timeout_s=60.0)
    scene.submit("a", options=TaskOptions(workers=["elsewhere"]))
    scene.submit("b", options=TaskOptions(resources={"gpu": 1}))
    scene.tick(30)
    scene.tick(30)
    assert scene.states("a b") == ["erred", "erred"]
    errors = [load_error(message.error) for message in scene.messages("c") if isinstance(message, KeysErred)]
    assert [type(error) for error in errors] == [NoValidWorkerError, NoValidWorkerError]
    assert "elsewhere" in str(errors[0]) and "gpu" in str(errors[1])


def test_without_a_limit_it_waits() -> None:
    scene = scene_with()
    scene.submit("a")
    scene.tick(10**6)
    assert scene.state("a") == "no-worker"


# ------------------------------------------------------------------------------------------------- balancing


def test_restricted_tasks_are_not_asked_back() -> None:
    scene = scene_with("w1", default_task_durations_s={"t": 1.0})
    scene.submit("root")
    scene.finish("root", on="w1")
    scene.sent("w1")
    scene.submit("; ".join([f"root -> t-{number} -> u-{number}" for number in range(5)]), options=on("w1"))
    scene.sent("w1")
    scene.worker("w2", nthreads=2)
    assert scene.sent("w1") == []


def test_tasks_are_asked_back_and_placed_anew() -> None:
    scene = scene_with("w1", default_task_durations_s={"t": 1.0})
    scene.submit("root")
    scene.finish("root", on="w1", duration=1.0)
    scene.sent("w1")
    # Few dependents of one task: not held back on the scheduler.
    scene.submit("root -> t-0 t-1")
    scene.submit("root -> s-0 s-1")
    assert len(scene.sent("w1")) == 4
    scene.worker("w2")
    (asked,) = scene.sent("w1")
    assert asked.startswith("take back ")
    key = asked.removeprefix("take back ")
    scene.start("t-0", on="w1")
    scene.give_back(key, on="w1")
    assert scene.where(key) == "w2"
    assert scene.sent("w2") == [f"compute {key} with root@w1"]


def test_task_that_had_started_stays() -> None:
    scene = scene_with("w1", default_task_durations_s={"t": 1.0})
    scene.submit("root")
    scene.finish("root", on="w1", duration=1.0)
    scene.submit("root -> t-0 t-1")
    scene.submit("root -> s-0 s-1")
    scene.sent("w1")
    scene.worker("w2")
    (asked,) = scene.sent("w1")
    key = asked.removeprefix("take back ")
    scene.give_back(on="w1", kept=[key])
    assert scene.where(key) == "w1"
    scene.finish(key, on="w1")
    assert scene.state(key) == "memory"


def test_no_stealing_when_it_is_switched_off() -> None:
    scene = scene_with("w1", default_task_durations_s={"t": 1.0}, work_stealing=False)
    scene.submit("root")
    scene.finish("root", on="w1", duration=1.0)
    scene.submit("root -> t-0 t-1")
    scene.submit("root -> s-0 s-1")
    scene.sent("w1")
    scene.worker("w2")
    assert scene.sent("w1") == []


@pytest.mark.parametrize("nthreads", [1, 4])
def test_statistics_count_threads(nthreads: int) -> None:
    scene = scene_with("w1", "w2", nthreads=nthreads)
    assert scene.core.statistics()["nthreads"] == 2 * nthreads
    scene.lose("w1")
    assert scene.core.statistics()["nthreads"] == nthreads


def test_registered_worker_does_not_register_again() -> None:
    scene = scene_with("w1")
    scene.event("w1", RegisterWorker(WorkerIdentity("x", "tcp://x", "x", "x", 1, 0, {}, 1, "/", {})))
    assert scene.closed[0][0] == "w1"
    assert not scene.core.workers


def test_short_task_behind_one_that_takes_longer_than_expected_is_asked_back() -> None:
    scene = scene_with("w1", "w2", default_task_durations_s={"t": 0.0004})
    scene.submit("t-0 t-1 t-2 t-3")
    behind = [key for key in ("t-0", "t-1", "t-2", "t-3") if scene.where(key) == "w1"]
    assert len(behind) == 2
    scene.sent("w1")
    scene.start(behind[0], on="w1")
    assert scene.sent("w1") == []
    for key in ("t-0", "t-1", "t-2", "t-3"):
        if key not in behind:
            scene.finish(key, on="w2", duration=0.0004)
    assert scene.sent("w1") == [f"take back {behind[1]}"]
    scene.give_back(behind[1], on="w1")
    assert scene.where(behind[1]) == "w2"
