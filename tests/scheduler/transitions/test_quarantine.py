"""Scenes of deaths: who is blamed, how often a task is tried, and that a suspect is tried alone."""

import pickle

import pytest

from treadle.exceptions import KilledWorker
from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import KeysErred
from treadle.scheduler.transitions.rules.quarantine import PATIENCE_S
from treadle.testing.scheduler_scene import SchedulerScene


def scene_of(*workers, nthreads=1, **limits):
    scene = SchedulerScene(**limits)
    scene.workers(*workers, nthreads=nthreads)
    scene.client("c")
    return scene


def suspicious(scene, keys):
    return [scene.task(key).suspicious for key in keys.split()]


def test_just_what_the_nanny_saw_executing_is_blamed():
    scene = scene_of("w1", nthreads=4)
    scene.submit("a b c d")
    scene.start("a", on="w1")
    scene.die("w1", "b", "c")
    assert suspicious(scene, "a b c d") == [0, 1, 1, 0]
    assert scene.states("a b c d") == ["no-worker"] * 4


def test_a_planned_end_blames_nobody():
    scene = scene_of("w1", nthreads=2)
    scene.submit("a b")
    scene.die("w1", "a", "b", planned=True)
    assert suspicious(scene, "a b") == [0, 0]


def test_an_attempt_that_is_over_is_not_blamed():
    scene = scene_of("w1", "w2")
    scene.submit("a", options=TaskOptions(retries=1))
    assert scene.where("a") == "w1"
    scene.parties["w1"].attempts["a"] -= 1
    scene.die("w1", "a")
    assert suspicious(scene, "a") == [0]


def test_after_too_many_deaths_the_task_fails_and_each_death_is_told():
    scene = scene_of("w0", allowed_failures=2)
    scene.submit("a")
    for number in range(3):
        scene.die(f"w{number}", "a", died_at=1000.0, out_of_memory=number == 1, stderr=f"the end of {number}\n")
        if number < 2:
            scene.worker(f"w{number + 1}")
            assert scene.where("a") == f"w{number + 1}"
    (erred,) = [message for message in scene.messages("c") if isinstance(message, KeysErred)]
    error = pickle.loads(erred.error.exception)
    assert isinstance(error, KilledWorker) and (error.task, error.allowed_failures) == ("a", 2)
    assert [death.name for death in error.deaths] == ["w0", "w1", "w2"]
    assert [death.exitcode for death in error.deaths] == [-9] * 3
    assert [death.out_of_memory for death in error.deaths] == [False, True, False]
    assert "2. " in str(error) and "SIGKILL (out of memory); it wrote last:\n  | the end of 1" in str(error)
    scene.release("a")
    scene.nothing_left()


def test_a_task_that_finishes_is_above_suspicion():
    scene = scene_of("w1")
    scene.submit("a")
    scene.die("w1", "a")
    scene.worker("w2")
    scene.finish("a", on="w2")
    assert suspicious(scene, "a") == [0] and not scene.core.state.deaths


def test_a_retried_task_starts_anew():
    scene = scene_of("w1", allowed_failures=0)
    scene.submit("a")
    scene.die("w1", "a")
    assert scene.state("a") == "erred"
    scene.retry("a")
    assert suspicious(scene, "a") == [0] and not scene.core.state.deaths


def test_a_suspect_has_its_worker_for_itself():
    scene = scene_of("w1", nthreads=2)
    scene.submit("a b c d e f g")
    scene.die("w1", "a")
    scene.workers("w2", "w3", nthreads=2)
    alone = scene.where("a")
    assert [task.key for task in scene.worker_state(alone).processing] == ["a"]
    other = "w3" if alone == "w2" else "w2"
    assert {scene.where(key) for key in "bcdefg" if scene.state(key) == "processing"} == {other}
    scene.finish("a", on=alone)
    assert {scene.where(key) for key in "bcdefg" if scene.state(key) == "processing"} == {"w2", "w3"}


def busy_and_dead():
    """A suspect, ``s``; the only worker that is left executes ``long``."""
    scene = scene_of("w1", "w2")
    scene.submit("long", options=TaskOptions(workers=["w2"]))
    scene.submit("s", options=TaskOptions(workers=["w1"], allow_other_workers=True))
    scene.start("long", on="w2")
    scene.die("w1", "s")
    assert scene.states("long s") == ["processing", "queued"]
    return scene


def test_a_worker_runs_empty_for_a_suspect_and_serves_others_afterwards():
    scene = busy_and_dead()
    scene.submit("x", options=TaskOptions(workers=["w2"]))
    scene.submit("y")
    assert scene.states("s x y") == ["queued"] * 3
    scene.finish("long", on="w2")
    assert scene.states("s x y") == ["processing", "queued", "queued"]
    scene.finish("s", on="w2")
    assert "processing" in scene.states("x y")


def test_a_suspect_does_not_wait_for_a_busy_worker_when_an_empty_one_comes():
    scene = busy_and_dead()
    scene.submit("x", options=TaskOptions(workers=["w2"]))
    scene.worker("w3")
    scene.tick()
    assert (scene.where("s"), scene.where("x")) == ("w3", "w2")


def test_a_suspect_that_waits_for_too_long_is_tried_beside_others():
    scene = busy_and_dead()
    scene.tick(PATIENCE_S / 2)
    assert scene.state("s") == "queued"
    scene.tick(PATIENCE_S)
    assert scene.where("s") == "w2"


def test_what_left_the_thread_pool_may_wait_for_the_suspect():
    scene = busy_and_dead()
    scene.secede("long", on="w2")
    assert scene.where("s") == "w2"


@pytest.mark.parametrize("seceding", [False, True])
def test_one_worker_serves_suspects_and_others_in_turn(seceding):
    scene = scene_of("w1", nthreads=2)
    scene.submit("a b -> d; c")
    scene.die("w1", "a", "b")
    scene.worker("w2", nthreads=2)
    done = []
    while len(done) < 4:
        running = [task.key for task in scene.worker_state("w2").processing]
        assert len(running) == 1 or not {"a", "b"} & set(running) or seceding
        key = running[0]
        if seceding and scene.task(key).suspicious:
            scene.secede(key, on="w2")
            assert scene.core.state.reserved.get(scene.worker_state("w2")) is not scene.task(key)
        scene.finish(key, on="w2")
        done.append(key)
    scene.release("a", "b", "c", "d")
    scene.nothing_left()


def test_half_of_the_workers_stay_for_the_others():
    scene = scene_of("w0", nthreads=4)
    scene.submit("a b c d")
    scene.die("w0", "a", "b", "c", "d")
    scene.submit("e f g h")
    scene.workers("w1", "w2", "w3", "w4")
    for _ in range(2):
        scene.tick(1)
    reserved = scene.core.state.reserved
    assert len(reserved) == 2
    assert len({scene.where(key) for key in "efgh" if scene.state(key) == "processing"}) == 2


def test_a_restart_ends_all_reservations():
    scene = scene_of("w1", "w2")
    scene.submit("a b c d")
    scene.die("w1", "a")
    assert scene.core.state.suspects or scene.core.state.reserved
    scene.forget()
    scene.nothing_left()
    assert [worker.name for worker in scene.core.state.running] == ["w2"]


def test_a_reserved_worker_that_pauses_or_leaves_gives_the_suspect_up():
    scene = busy_and_dead()
    scene.pause("w2")
    assert scene.state("s") == "no-worker"
    scene.resume("w2")
    assert scene.state("s") == "queued"
    scene.lose("w2", blame=False)
    assert scene.states("s long") == ["no-worker"] * 2


def test_a_suspect_that_nobody_wants_any_more_frees_its_worker():
    scene = busy_and_dead()
    scene.submit("x", options=TaskOptions(workers=["w2"]))
    scene.release("s")
    assert scene.state("s") == "forgotten" and scene.where("x") == "w2"


def test_a_task_that_asks_for_it_runs_elsewhere_where_there_is_another_worker():
    scene = scene_of("w1", "w2", nthreads=4)
    scene.submit("a")
    for _ in range(3):
        before = scene.where("a")
        scene.reschedule("a", on=before)
        assert scene.where("a") != before
    scene.lose("w1", blame=False)
    assert scene.where("a") == "w2"
    scene.reschedule("a", on="w2")
    assert scene.where("a") == "w2"
    scene.release("a")
    scene.nothing_left()
    assert not scene.core.state.avoided


def test_a_nanny_is_given_a_moment_to_say_what_was_executing():
    scene = scene_of()
    scene.worker("w1", nthreads=2, nanny="n1")
    scene.worker("w2", nthreads=2, nanny="n2")
    scene.submit("a b", options=TaskOptions(workers=["w1"]))
    scene.submit("c d", options=TaskOptions(workers=["w2"]))
    scene.lose("w1")
    scene.lose("w2")
    assert suspicious(scene, "a b c d") == [0, 0, 0, 0]
    scene.die("w1", "b")
    assert suspicious(scene, "a b c d") == [0, 1, 0, 0]
    # The other one says nothing: it is guessed.
    scene.tick(3)
    assert suspicious(scene, "a b c d") == [0, 1, 1, 1]
