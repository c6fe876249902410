"""Values: scattered by clients, copied, lost, and looked for where they are not."""

from __future__ import annotations

import pytest

from treadle.messages.base import TaskOptions
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers)
    scene.client("c")
    scene.client("d")
    return scene


def on(worker: str) -> TaskOptions:
    return TaskOptions(workers=[worker], allow_other_workers=True)


LOST = (
    "RuntimeError: The data 'x' was scattered (or is older than this scheduler), and the last worker that held a copy is gone. "
    "There is no recipe to compute it again:"
)


def lost(key: str) -> str:
    return f"erred {key}: {LOST} scatter it anew, or to several workers with broadcast., by x"


# ------------------------------------------------------------------------------------------------- scattering


def test_scattered_value_is_used_and_freed() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w2"], nbytes=100)
    assert scene.told("c") == ["memory x@w2"]
    scene.submit("x -> y")
    assert scene.sent("w2") == ["compute y with x@w2"]
    scene.finish("y", on="w2")
    scene.release("x")
    assert scene.sent("w2") == ["drop x"]
    assert scene.worker_state("w2").nbytes == 8
    scene.release("y")
    scene.nothing_left()


def test_scattered_to_several() -> None:
    scene = scene_with("w1", "w2", "w3")
    scene.scatter("x", to=["w3", "w1"], nbytes=100)
    assert scene.where("x") == "w3,w1"
    assert scene.core.statistics()["nbytes"] == 200
    scene.lose("w3")
    assert scene.where("x") == "w1"
    assert scene.told("c") == ["memory x@w3"]


def test_lost_scattered_value_is_an_error_that_says_so() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w1"])
    scene.submit("x -> y -> z", options=on("w2"))
    scene.told("c")
    scene.lose("w1")
    assert scene.told("c") == ["lost x", lost("x"), lost("y"), lost("z")]
    scene.release("x", "y", "z")
    scene.nothing_left()


def test_scattered_and_lost_at_once() -> None:
    scene = scene_with("w1", "w2")
    scene.lose("w1")
    scene.scatter("x", to=["w1"])
    assert scene.told("c") == ["lost x", lost("x")]


def test_scattered_anew_after_the_loss() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w1"])
    scene.lose("w1")
    scene.told("c")
    scene.attach("x", client="d")
    scene.told("d")
    scene.scatter("x", to=["w2"], client="c")
    # Workers know it by its new id; so do, from here on, those who know it by the old one.
    assert scene.told("d") == ["aliased x", "memory x@w2"]
    assert scene.task("x").id == scene.parties["c"].ids["x"]
    scene.release("x", client="d")
    scene.release("x", client="c")
    assert scene.sent("w2") == ["drop x"]
    scene.nothing_left()


def test_scattered_twice_is_kept_once() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w1"], client="c")
    scene.scatter("x", to=["w2"], client="d")
    assert scene.where("x") == "w1"
    # What the second one brought has an id that nobody uses.
    assert scene.messages("w2")[-1].ids == [scene.parties["d"].ids["x"]]
    assert scene.told("d") == ["aliased x", "memory x@w1"]


@pytest.mark.parametrize("state", ["processing", "queued", "no-worker", "waiting", "erred"])
def test_value_brought_for_a_task_in_every_state(state: str) -> None:
    scene = scene_with("w1", "w2")
    if state == "no-worker":
        scene.submit("x -> y", options=TaskOptions(workers=["nowhere"]))
    elif state == "queued":
        scene.submit("a b e f")
        scene.submit("x -> y")
    elif state == "waiting":
        scene.submit("before -> x -> y")
    else:
        scene.submit("x -> y")
    if state == "erred":
        scene.fail("x", on=scene.where("x"))
    assert scene.state("x") == state
    scene.told("c")
    scene.sent("w1")
    scene.scatter("x", to=["w1"], client="d")
    assert scene.state("x") == "memory"
    assert "memory x@w1" in scene.told("c")
    assert "memory x@w1" in scene.told("d")
    if state == "processing":
        assert "drop x" in scene.sent("w1")
    if state == "erred":
        scene.retry("y")
    if state != "no-worker":
        assert scene.state("y") == "processing"


def test_scattered_for_a_failed_task_by_workers_that_are_gone() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("x")
    scene.fail("x", on="w1")
    scene.lose("w2")
    scene.scatter("x", to=["w2"], client="d")
    assert scene.told("d") == ["aliased x", "erred x: boom, by x"]


def test_scattered_for_a_running_task_by_workers_that_are_gone() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("x", options=on("w1"))
    scene.lose("w2")
    scene.scatter("x", to=["w2"], client="d")
    assert scene.told("d") == ["aliased x", "pending x"]


def test_recipe_for_what_was_scattered() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w1"], client="c")
    scene.submit("x -> y", client="c", options=on("w2"))
    scene.release("x", client="c")
    scene.fail("y", on="w2")
    assert scene.state("x") == "released"
    scene.submit("x", client="d")
    assert scene.state("x") == "processing"
    scene.release("x", client="d")
    scene.release("y", client="c")
    scene.nothing_left()


def test_group_of_lost_data_is_forgotten_with_it() -> None:
    scene = scene_with("w1", "w2")
    scene.scatter("x", to=["w1"], client="c")
    scene.submit("x -> y", client="c", options=on("w2"))
    scene.release("x", client="c")
    scene.fail("y", on="w2")
    scene.submit("x", client="d", group="another")
    scene.release("x", client="d")
    scene.release("y", client="c")
    scene.nothing_left()


# ---------------------------------------------------------------------------------------------------- copies


def copied() -> SchedulerScene:
    """``a`` is on w1, and w2 is to compute ``b`` of it."""
    scene = scene_with("w1", "w2", "w3")
    scene.submit("a", options=on("w1"))
    scene.finish("a", on="w1")
    scene.submit("a -> b", options=on("w2"))
    scene.sent("w1")
    scene.sent("w2")
    scene.told("c")
    return scene


def test_copies_are_known_and_freed() -> None:
    scene = copied()
    scene.copy("a", on="w2")
    assert scene.where("a") == "w1,w2"
    scene.finish("b", on="w2")
    scene.release("a")
    assert scene.sent("w1") == ["drop a"]
    assert scene.sent("w2") == ["drop a"]


def test_copy_that_comes_too_late_is_dropped() -> None:
    scene = copied()
    scene.cancel("a")
    assert scene.sent("w2") == ["drop b"]
    scene.copy("a", on="w2")
    assert scene.sent("w2") == ["drop a"]


def test_copy_that_a_worker_lost() -> None:
    scene = copied()
    scene.copy("a", on="w2")
    scene.drop("a", on="w2")
    assert scene.where("a") == "w1"
    scene.drop("a", on="w2")
    assert scene.where("a") == "w1"


def test_last_copy_that_a_worker_lost_is_made_again() -> None:
    scene = copied()
    scene.drop("a", on="w1")
    assert scene.states("a b") == ["processing", "waiting"]
    assert scene.told("c") == ["pending a"]
    assert "drop b" in scene.sent("w2")


def test_value_that_is_not_where_it_should_be() -> None:
    scene = copied()
    scene.copy("a", on="w3")
    scene.missing("a", at="w1", on="w2")
    assert scene.where("a") == "w3"
    assert scene.sent("w1") == ["drop a"]
    assert scene.sent("w2") == ["holders a@w3"]


def test_value_that_is_nowhere_is_made_again() -> None:
    scene = copied()
    scene.missing("a", at="w1", on="w2")
    assert scene.states("a b") == ["processing", "waiting"]
    assert "drop b" in scene.sent("w2")


def test_value_that_is_missing_while_it_is_made_again() -> None:
    scene = copied()
    scene.drop("a", on="w1")
    scene.sent("w1")
    scene.sent("w2")
    scene.sent("w3")
    scene.told("c")
    scene.missing("a", at="w1", on="w2")
    # Were it only to keep a copy, it would wait for that for ever.
    assert scene.sent("w2") == ["drop a"]
    scene.nothing_else_sent()


def test_missing_at_a_worker_that_has_left() -> None:
    scene = copied()
    scene.copy("a", on="w3")
    scene.lose("w1")
    scene.sent("w2")
    scene.missing("a", at="w1", on="w2")
    assert scene.sent("w2") == ["holders a@w3"]


def test_worker_that_does_not_have_what_it_is_said_to_have() -> None:
    scene = copied()
    scene.copy("a", on="w2")
    scene.missing("a", at="w2", on="w2")
    assert scene.where("a") == "w1"
    assert scene.sent("w2") == ["holders a@w1"]
