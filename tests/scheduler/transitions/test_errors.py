"""Tasks that fail: retries, what becomes of those that need them, and another try."""

from __future__ import annotations

from treadle.messages.base import TaskOptions
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers)
    scene.client("c")
    return scene


def test_error_travels_to_all_that_need_it() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b -> c; other -> c", wanted=["b", "c"])
    scene.fail("a", on="w1", error="boom")
    assert scene.told("c") == ["erred b: boom, by a", "erred c: boom, by a"]
    # What only it needed has no use any more.
    assert scene.state("other") == "released"
    assert scene.states("a b c") == ["erred"] * 3 or scene.states("a b c") == ["released", "erred", "erred"]


def test_nothing_is_left_of_a_failed_graph() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b -> c; other -> c", wanted=["c"])
    scene.fail("a", on="w1")
    scene.release("c")
    scene.nothing_left()
    assert "drop other" in scene.sent("w1")


def test_retries_are_used_up() -> None:
    scene = scene_with("w1")
    scene.submit("a", options=TaskOptions(retries=2))
    for _ in range(3):
        assert scene.sent("w1")[-1] == "compute a"
        scene.fail("a", on="w1")
    assert scene.told("c") == ["erred a: boom, by a"]
    assert scene.task("a").attempt == 3


def test_success_after_a_retry() -> None:
    scene = scene_with("w1")
    scene.submit("a", options=TaskOptions(retries=1))
    scene.fail("a", on="w1")
    scene.finish("a", on="w1")
    assert scene.told("c") == ["memory a@w1"]


def test_reschedule_is_no_failure() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.sent("w1")
    scene.reschedule("a", on="w1")
    assert scene.sent("w1") == ["drop a", "compute a"]
    assert scene.state("a") == "processing"


def test_retry_of_an_erred_task_starts_what_it_depends_on() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b -> c", wanted=["c"])
    scene.fail("a", on="w1")
    scene.told("c")
    scene.sent("w1")
    scene.retry("c")
    assert scene.told("c") == ["pending c"]
    assert scene.sent("w1") == ["compute a"]
    for key in "abc":
        scene.finish(key, on="w1")
    assert scene.told("c") == ["memory c@w1"]


def test_retry_gives_all_retries_back() -> None:
    scene = scene_with("w1")
    scene.submit("a", options=TaskOptions(retries=1))
    scene.fail("a", on="w1")
    scene.fail("a", on="w1")
    scene.retry("a")
    scene.fail("a", on="w1")
    assert scene.state("a") == "processing"
    scene.fail("a", on="w1")
    assert scene.state("a") == "erred"


def test_retry_of_a_cause_revives_what_failed_with_it() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b")
    scene.fail("a", on="w1")
    scene.told("c")
    scene.retry("a")
    assert sorted(scene.told("c")) == ["pending a", "pending b"]
    assert scene.states("a b") == ["processing", "waiting"]


def test_retry_of_what_has_not_failed_does_nothing() -> None:
    scene = scene_with("w1")
    scene.submit("a b")
    scene.finish("a", on="w1")
    scene.sent("w1")
    scene.told("c")
    scene.retry("a", "b")
    scene.nothing_else_sent()


def test_submission_onto_a_failed_task_fails_at_once() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.fail("a", on="w1")
    scene.told("c")
    scene.submit("a -> b")
    assert scene.told("c") == ["erred b: boom, by a"]


def test_failed_task_is_asked_for_again() -> None:
    scene = scene_with("w1")
    scene.client("other")
    scene.submit("a")
    scene.fail("a", on="w1", error="boom")
    scene.submit("a", client="other")
    assert scene.told("other") == ["aliased a", "erred a: boom, by a"]


def test_errors_count() -> None:
    scene = scene_with("w1")
    scene.submit("a b")
    scene.fail("a", on="w1")
    assert scene.core.statistics()["erred"] == 1
