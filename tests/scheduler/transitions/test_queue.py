"""What waits on the scheduler, in which order it goes out, and how much goes out ahead of need."""

from __future__ import annotations

from math import inf

from treadle.messages.base import TaskOptions
from treadle.scheduler.transitions.queue import TaskQueue, TurnClock
from treadle.scheduler.transitions.records import QUEUED, TaskGroup, TaskPrefix, TaskState
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*workers: str, nthreads: int = 1, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    scene.workers(*workers, nthreads=nthreads)
    scene.client("c")
    return scene


def numbered(name: str, count: int) -> str:
    return " ".join([f"{name}-{number}" for number in range(count)])


def run_all(scene: SchedulerScene, worker: str) -> list[str]:
    """Finish what the worker has, one after the other, until nothing comes any more: the order in which it was sent."""
    order = [line.removeprefix("compute ") for line in scene.sent(worker) if line.startswith("compute")]
    for key in order:
        scene.finish(key, on=worker, duration=10.0)
        order += [line.removeprefix("compute ") for line in scene.sent(worker) if line.startswith("compute")]
    return order


def test_unknown_tasks_are_prefetched_by_count() -> None:
    scene = scene_with("w1", nthreads=4)
    scene.submit(numbered("x", 20))
    assert len(scene.sent("w1")) == 5  # ceil(1.1 * 4)
    assert scene.states("x-4 x-5") == ["processing", "queued"]


def test_saturation_is_a_setting() -> None:
    scene = scene_with("w1", nthreads=2, worker_saturation=3.0)
    scene.submit(numbered("x", 20))
    assert len(scene.sent("w1")) == 6


def test_infinite_saturation_queues_nothing() -> None:
    scene = scene_with("w1", "w2", worker_saturation=inf)
    scene.submit(numbered("x", 50))
    assert scene.core.statistics()["tasks"]["queued"] == 0
    assert len(scene.sent("w1")) == len(scene.sent("w2")) == 25


def test_long_tasks_go_out_only_when_a_thread_is_near() -> None:
    scene = scene_with("w1", nthreads=1)
    scene.submit("x-0")
    scene.finish("x-0", on="w1", duration=5.0)
    scene.sent("w1")
    scene.submit(numbered("x", 10))
    assert len(scene.sent("w1")) == 2
    scene.finish("x-1", on="w1", duration=5.0)
    assert scene.sent("w1") == ["compute x-3"]


def test_short_tasks_flow_by_the_hundreds() -> None:
    scene = scene_with("w1", nthreads=1)
    scene.submit("x-0")
    scene.finish("x-0", on="w1", duration=0.0001)
    scene.sent("w1")
    scene.submit(numbered("x", 1000))
    assert 90 <= len(scene.sent("w1")) <= 100  # 10 ms of work


def test_prefetch_has_a_cap() -> None:
    scene = scene_with("w1", nthreads=1, prefetch_limit=30)
    scene.submit("x-0")
    scene.finish("x-0", on="w1", duration=0.0)
    scene.sent("w1")
    scene.submit(numbered("x", 100))
    assert len(scene.sent("w1")) == 30


def test_durations_from_the_config() -> None:
    scene = scene_with("w1", default_task_durations_s={"x": 0.0001})
    scene.submit(numbered("x", 50))
    assert len(scene.sent("w1")) == 50


def test_shares_are_equal() -> None:
    scene = scene_with("w1", "w2", default_task_durations_s={"x": 0.0001})
    scene.submit(numbered("x", 60))
    assert len(scene.sent("w1")) == len(scene.sent("w2")) == 30


def test_shares_of_very_short_tasks_are_worth_a_message() -> None:
    scene = scene_with("w1", "w2", "w3", "w4", "w5", default_task_durations_s={"x": 0.0001})
    scene.submit(numbered("x", 9))
    assert sorted(len(scene.sent(name)) for name in ("w1", "w2", "w3", "w4", "w5")) == [0, 0, 3, 3, 3]


def test_queue_goes_by_rank() -> None:
    scene = scene_with("w1")
    scene.submit("a b c d e f", ranks=[5, 4, 3, 2, 1, 0])
    assert run_all(scene, "w1") == list("fedcba")


def test_queue_goes_by_the_users_priority_first() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("first")
    scene.submit("low", priority=-1)
    scene.submit("usual")
    scene.submit("high", priority=1)
    scene.submit("highest", options=TaskOptions(priority=20))
    assert run_all(scene, "w1") == ["first", "highest", "high", "usual", "low"]


def test_submissions_close_together_are_of_one_generation() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("busy")
    scene.submit("a b", first_rank=5)
    scene.now += 1
    scene.submit("c d", first_rank=0)
    assert run_all(scene, "w1") == ["busy", "c", "d", "a", "b"]


def test_later_submissions_come_after_earlier_ones() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("busy")
    scene.submit("a b", first_rank=5)
    scene.now += 61
    scene.submit("c d", first_rank=0)
    assert run_all(scene, "w1") == ["busy", "a", "b", "c", "d"]


def test_generations_of_chosen_distance() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("busy", fifo_timeout_s=0)
    scene.now += 0.1
    scene.submit("a", first_rank=5, fifo_timeout_s=0)
    scene.now += 0.1
    scene.submit("b", first_rank=0, fifo_timeout_s=0)
    assert run_all(scene, "w1") == ["busy", "a", "b"]


def test_chunks_are_of_the_generation_of_their_submission() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("busy", fifo_timeout_s=0)
    scene.submit("a", fifo_timeout_s=0)
    scene.now += 100
    scene.submit("b", fifo_timeout_s=0, new_submission=False, first_rank=1)
    assert scene.task("a").priority[:2] == scene.task("b").priority[:2]


def test_tasks_of_a_running_task_come_before_its_own_generation() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("parent later")
    scene.submit("child", parent="parent")
    assert run_all(scene, "w1") == ["parent", "child", "later"]


def test_worker_with_room_gets_what_is_queued_when_it_comes() -> None:
    scene = scene_with("w1")
    scene.submit("a b c d")
    assert scene.states("c d") == ["queued", "queued"]
    scene.worker("w2")
    assert scene.sent("w2") == ["compute c", "compute d"]


def test_long_running_task_makes_room() -> None:
    scene = scene_with("w1", worker_saturation=1.0)
    scene.submit("a b c")
    assert scene.sent("w1") == ["compute a"]
    scene.secede("a", on="w1")
    assert scene.sent("w1") == ["compute b"]
    assert scene.worker_state("w1").occupancy == 0.5
    scene.finish("a", on="w1")
    assert scene.sent("w1") == []


def test_many_dependents_of_little_are_queued_too() -> None:
    scene = scene_with("w1")
    members = " ".join([f"m-{number}" for number in range(10)])
    scene.submit(f"root -> {members}")
    scene.finish("root", on="w1")
    assert scene.core.statistics()["tasks"]["queued"] == 8


def test_released_tasks_leave_the_queue() -> None:
    scene = scene_with("w1")
    scene.submit("a b c d")
    scene.release("c")
    scene.finish("a", on="w1")
    assert scene.sent("w1") == ["compute a", "compute b", "compute d"]


def test_what_is_left_over_in_a_queue_is_not_taken_for_a_task_that_waits_elsewhere() -> None:
    clock = TurnClock()
    one, other = TaskQueue(clock), TaskQueue(clock)
    group = TaskGroup("x", TaskPrefix("x", 1.0))
    first, second, third = (TaskState(number, f"x-{number}", group, (0.0, 0.0, number)) for number in range(3))
    for task in (first, second, third):
        task.state = QUEUED
    for task in (first, second):
        one.push(task)
    # The second one leaves from the middle, and waits in another queue; its entry in the first queue stays.
    one.discard(second)
    other.push(second)
    assert one.tasks() == [first] and other.tasks() == [second]
    one.push(third)
    one.discard(first)
    assert one.peek() is third
    assert other.peek() is second
