"""Which worker gets a task: where its data is, who has little to do, who may run it at all."""

from __future__ import annotations

import pytest

from treadle.messages.base import TaskOptions
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, nthreads: int = 1, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers, nthreads=nthreads)
    scene.client("c")
    return scene


def test_chain_stays_where_its_data_is() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a -> b -> c", wanted=["c"])
    first, other = ("w1", "w2") if scene.sent("w1") == ["compute a"] else ("w2", "w1")
    scene.finish("a", on=first)
    assert scene.sent(first) == [f"compute b with a@{first}"]
    scene.finish("b", on=first)
    assert scene.sent(first) == [f"compute c with b@{first}", "drop a"]
    assert scene.sent(other) == []


def test_long_chain_of_one_function_stays_where_its_data_is() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("; ".join(f"inc-{at} -> inc-{at + 1}" for at in range(50)))
    home = scene.where("inc-0")
    for at in range(50):
        scene.finish(f"inc-{at}", on=home)
        assert scene.where(f"inc-{at + 1}") == home


def test_roots_spread_over_idle_workers() -> None:
    scene = scene_with("w1", "w2", "w3")
    scene.submit("a b c")
    assert sorted([scene.where(key) for key in "abc"]) == ["w1", "w2", "w3"]


def test_goes_to_the_larger_dependency() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a b -> c", wanted=["c"])
    at_a, at_b = scene.where("a"), scene.where("b")
    scene.finish("a", on=at_a, nbytes=10)
    scene.finish("b", on=at_b, nbytes=100_000_000)
    assert scene.where("c") == at_b


def test_leaves_its_data_for_an_idle_worker_when_moving_is_cheaper_than_waiting() -> None:
    scene = scene_with("w1", "w2", work_stealing=False)
    scene.submit("a", options=TaskOptions(workers=["w1"]))
    scene.finish("a", on="w1", nbytes=8)
    scene.submit("busy-1 busy-2", options=TaskOptions(workers=["w1"]))
    scene.submit("a -> b")
    assert scene.where("b") == "w2"
    assert scene.sent("w2") == ["compute b with a@w1"]


def test_stays_with_much_data_although_the_worker_is_busy() -> None:
    scene = scene_with("w1", "w2", work_stealing=False)
    scene.submit("a", options=TaskOptions(workers=["w1"]))
    scene.finish("a", on="w1", nbytes=10_000_000_000)
    scene.submit("busy-1 busy-2", options=TaskOptions(workers=["w1"]))
    scene.submit("a -> b")
    assert scene.where("b") == "w1"


@pytest.mark.parametrize("name", ["w2", "here", "tcp://here:2"])
def test_restriction_by_name_host_or_address(name: str) -> None:
    scene = SchedulerScene()
    scene.worker("w1", host="there")
    assert scene.worker("w2", nthreads=4, host="here") == "tcp://here:2"
    scene.client("c")
    scene.submit("a b c d", options=TaskOptions(workers=[name]))
    assert [scene.where(key) for key in "abcd"] == ["w2"] * 4


def test_restricted_task_waits_for_its_worker() -> None:
    scene = scene_with("w1")
    scene.submit("a", options=TaskOptions(workers=["w2"]))
    assert scene.state("a") == "no-worker"
    scene.worker("w2")
    assert scene.sent("w2") == ["compute a"]


def test_loose_restriction_is_a_wish() -> None:
    scene = scene_with("w1")
    scene.submit("a", options=TaskOptions(workers=["w2"], allow_other_workers=True))
    assert scene.where("a") == "w1"


def test_loose_restriction_prefers_the_named() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a b c", options=TaskOptions(workers=["w2"], allow_other_workers=True))
    assert [scene.where(key) for key in "ab"] == ["w2"] * 2
    assert scene.state("c") == "queued"
    scene.finish("a", on="w2")
    assert scene.where("c") == "w2"


def test_resources() -> None:
    scene = scene_with("w1")
    scene.worker("w2", resources={"gpu": 1})
    scene.worker("w3", resources={"gpu": 2})
    scene.submit("a b", options=TaskOptions(resources={"gpu": 2}))
    assert scene.where("a") == "w3" and scene.state("b") == "queued"
    scene.finish("a", on="w3")
    assert scene.where("b") == "w3"
    scene.submit("huge", options=TaskOptions(resources={"gpu": 3}))
    assert scene.state("huge") == "no-worker"
    scene.submit("odd", options=TaskOptions(resources={"gpu": 1, "tpu": 1}))
    assert scene.state("odd") == "no-worker"


def test_resources_in_use_count() -> None:
    scene = SchedulerScene(work_stealing=False)
    scene.worker("w1", nthreads=4, resources={"gpu": 1})
    scene.worker("w2", nthreads=4, resources={"gpu": 1})
    scene.client("c")
    scene.submit("a b", options=TaskOptions(resources={"gpu": 1}))
    assert sorted([scene.where(key) for key in "ab"]) == ["w1", "w2"]
    assert scene.worker_state("w1").used_resources == {"gpu": 1}
    scene.finish("a", on=scene.where("a"))
    scene.finish("b", on=scene.where("b"))
    assert scene.worker_state("w1").used_resources == {"gpu": 0}


def test_restricted_by_name_and_resource_at_once() -> None:
    scene = SchedulerScene()
    scene.worker("w1", resources={"gpu": 1})
    scene.worker("w2", resources={"gpu": 1})
    scene.client("c")
    scene.submit("a b", options=TaskOptions(workers=["w2"], resources={"gpu": 1}))
    assert scene.where("a") == "w2" and scene.state("b") == "queued"


def test_holders_are_introduced_before_they_are_mentioned() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1"]))
    scene.finish("a", on="w1")
    scene.sent("w2")
    scene.submit("a -> b", options=TaskOptions(workers=["w2"]))
    assert scene.sent("w2", everything=True) == ["meet w1", "compute b with a@w1"]
    scene.submit("a -> c", options=TaskOptions(workers=["w2"]))
    assert scene.sent("w2", everything=True) == ["compute c with a@w1"]


def pairs_of(scene: SchedulerScene, prefix: str, count: int) -> list[str]:
    """Where tasks go that each need two values, which are on two workers."""
    scene.submit("; ".join(f"x-{at} y-{at} -> {prefix}-{at}" for at in range(count)))
    return [scene.where(f"{prefix}-{at}") for at in range(count)]


def scene_of_pairs(count: int, **limits: object) -> SchedulerScene:
    names = [f"w{at}" for at in range(8)]
    scene = scene_with(*names, **limits)
    for at in range(count):
        for offset, prefix in enumerate("xy"):
            worker = names[(2 * at + offset) % 8]
            scene.submit(f"{prefix}-{at}", options=TaskOptions(workers=[worker]))
            scene.finish(f"{prefix}-{at}", on=worker, nbytes=8)
    return scene


def test_very_short_tasks_gather_on_few_workers() -> None:
    scene = scene_of_pairs(16, default_task_durations_s={"short": 0.00002})
    assert len(set(pairs_of(scene, "short", 16))) == 1


def test_a_worker_with_a_millisecond_of_them_is_left_for_another() -> None:
    scene = scene_of_pairs(60, default_task_durations_s={"short": 0.00005})
    homes = pairs_of(scene, "short", 60)
    assert max(homes.count(home) for home in homes) <= 30
    assert len(set(homes)) < 8


def test_longer_tasks_do_not_gather() -> None:
    scene = scene_of_pairs(16, default_task_durations_s={"long": 0.01}, work_stealing=False)
    assert sorted(set(pairs_of(scene, "long", 16))) == [f"w{at}" for at in range(8)]


@pytest.mark.parametrize(("duration", "homes"), [(0.00002, 1), (0.01, 3)])
def test_short_tasks_one_after_the_other_stay_at_one_worker_longer_ones_spread(duration: float, homes: int) -> None:
    scene = scene_with("w1", "w2", "w3", default_task_durations_s={"x": duration})
    seen = set()
    for at in range(6):
        scene.submit(f"x-{at}")
        seen.add(scene.where(f"x-{at}"))
        scene.finish(f"x-{at}", on=scene.where(f"x-{at}"), duration=duration)
    assert len(seen) == homes


def test_a_short_task_leaves_a_worker_that_is_busy() -> None:
    scene = scene_with("w1", "w2", default_task_durations_s={"x": 0.00002})
    scene.submit("x-0")
    scene.submit("x-1")
    assert {scene.where("x-0"), scene.where("x-1")} == {"w1", "w2"}
