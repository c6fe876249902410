"""Each legal change of a task's state happens in a scene, for the reason that the table gives; no other is possible."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from treadle.exceptions import InvariantError
from treadle.messages.base import TaskOptions
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import FORGOTTEN, STATE_NAMES
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.table import TABLE, readable
from treadle.testing.scheduler_scene import SchedulerScene

NOWHERE = TaskOptions(workers=["nowhere"])


def scene_with(*workers: str, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers)
    scene.client("c")
    return scene


def chain() -> SchedulerScene:
    """``x`` waits for ``before``, which runs on w1."""
    scene = scene_with("w1", "w2")
    scene.submit("before -> x", wanted=["x"])
    return scene


def running() -> SchedulerScene:
    """``x`` runs on w1."""
    scene = scene_with("w1", "w2")
    scene.submit("x")
    return scene


def queued() -> SchedulerScene:
    """``x`` is queued behind what w1 has."""
    scene = scene_with("w1")
    scene.submit("a b x")
    return scene


def queued_with_data(scattered: bool) -> SchedulerScene:
    """``x`` is queued with nine others that need one value, which is on w2."""
    scene = scene_with("w1", "w2")
    if scattered:
        scene.scatter("data", to=["w2"])
    else:
        scene.submit("data", options=TaskOptions(workers=["w2"], allow_other_workers=True))
        scene.finish("data", on="w2", duration=1.0)
    members = " ".join([f"m-{number}" for number in range(9)])
    scene.submit(f"data -> {members}; data -> x", group="m")
    assert scene.state("x") == "queued"
    return scene


def homeless(**limits: object) -> SchedulerScene:
    """``x`` may run on no worker."""
    scene = scene_with("w1", **limits)
    scene.submit("x", options=NOWHERE)
    return scene


def erred() -> SchedulerScene:
    scene = running()
    scene.fail("x", on="w1")
    return scene


def finished() -> SchedulerScene:
    scene = running()
    scene.finish("x", on="w1")
    return scene


def after(scene: SchedulerScene, act: Callable[[SchedulerScene], object]) -> SchedulerScene:
    act(scene)
    return scene


def submit_onto_erred(scene: SchedulerScene) -> None:
    scene.submit("bad")
    scene.fail("bad", on="w1")
    scene.submit("bad -> x")


def deadly() -> SchedulerScene:
    return after(scene_with("w1", allowed_failures=0), lambda scene: (scene.submit("x"), scene.lose("w1")))


SCENES: dict[str, Callable[[], SchedulerScene]] = {
    "released -> waiting": running,
    "released -> memory": lambda: after(scene_with("w1"), lambda scene: scene.scatter("x", to=["w1"])),
    "released -> erred": lambda: after(scene_with("w1"), submit_onto_erred),
    "released -> forgotten": lambda: after(running(), lambda scene: scene.release("x")),
    "waiting -> queued": queued,
    "waiting -> processing": lambda: after(chain(), lambda scene: scene.finish("before", on="w1")),
    "waiting -> no-worker": homeless,
    "waiting -> memory": lambda: after(chain(), lambda scene: scene.scatter("x", to=["w1"])),
    "waiting -> erred": lambda: after(chain(), lambda scene: scene.fail("before", on="w1")),
    "waiting -> released": lambda: after(chain(), lambda scene: scene.release("x")),
    "no-worker -> waiting": lambda: after(homeless(), lambda scene: scene.worker("nowhere")),
    "no-worker -> memory": lambda: after(homeless(), lambda scene: scene.scatter("x", to=["w1"])),
    "no-worker -> erred": lambda: after(homeless(no_workers_timeout_s=1.0), lambda scene: scene.tick(2)),
    "no-worker -> released": lambda: after(homeless(), lambda scene: scene.release("x")),
    "queued -> processing": lambda: after(queued(), lambda scene: scene.finish("a", on="w1")),
    "queued -> waiting": lambda: after(queued_with_data(False), lambda scene: scene.lose("w2")),
    "queued -> memory": lambda: after(queued(), lambda scene: scene.scatter("x", to=["w1"])),
    "queued -> erred": lambda: after(queued_with_data(True), lambda scene: scene.lose("w2")),
    "queued -> released": lambda: after(queued(), lambda scene: scene.release("x")),
    "processing -> memory": finished,
    "processing -> erred": deadly,
    "processing -> waiting": lambda: after(running(), lambda scene: scene.lose("w1")),
    "processing -> released": lambda: after(running(), lambda scene: scene.release("x")),
    "memory -> released": lambda: after(finished(), lambda scene: scene.drop("x", on="w1")),
    "memory -> erred": lambda: after(scene_with("w1"), lambda scene: (scene.scatter("x", to=["w1"]), scene.lose("w1"))),
    "erred -> released": lambda: after(erred(), lambda scene: scene.retry("x")),
}


def test_there_is_a_scene_for_every_legal_change() -> None:
    assert set(SCENES) == {f"{start} -> {finish}" for start, finish, _ in readable()}


@pytest.mark.parametrize("change", SCENES)
def test_change_happens(change: str) -> None:
    assert change in SCENES[change]().moves("x")


ILLEGAL = [
    (start, finish)
    for start in range(FORGOTTEN + 1)
    for finish in range(FORGOTTEN + 1)
    if (start, finish) not in TABLE and start != FORGOTTEN
]


@pytest.mark.parametrize(("start", "finish"), ILLEGAL, ids=[f"{STATE_NAMES[start]} -> {STATE_NAMES[finish]}" for start, finish in ILLEGAL])
def test_no_other_change_is_possible(start: int, finish: int) -> None:
    scene = running()
    task = scene.task("x")
    task.state = start
    with pytest.raises(InvariantError, match=f"'x' cannot go from {STATE_NAMES[start]} to {STATE_NAMES[finish]}; its story: .*processing"):
        move(scene.core.state, task, finish, Outbox())


def test_every_reason_is_told() -> None:
    assert all([len(reason) > 5 for _, _, reason in readable()])
