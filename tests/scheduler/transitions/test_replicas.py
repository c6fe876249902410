"""Scenes of copies: of scattered data, for retiring workers, by order."""

from treadle.messages.scheduler_local import ConnectionLost, DropReplicas, ReplicateKeys, Retire
from treadle.testing.scheduler_scene import SchedulerScene


def scene_of(*workers, nthreads=1, **limits):
    scene = SchedulerScene(**limits)
    scene.workers(*workers, nthreads=nthreads)
    scene.client("c")
    return scene


def number(scene, name):
    return scene.parties[name].number


def copies(scene, *keys):
    return {key: {worker.name for worker in scene.task(key).who_has} for key in keys}


def test_a_scattered_value_has_a_second_copy_where_there_is_a_second_worker():
    scene = scene_of("w1", "w2", scatter_replicas=2)
    scene.scatter("x", to=["w1"])
    assert scene.sent("w2") == ["fetch x@w1"]
    scene.copy("x", on="w2")
    assert copies(scene, "x") == {"x": {"w1", "w2"}}
    scene.told("c")
    scene.lose("w1")
    assert scene.state("x") == "memory" and scene.told("c") == []


def test_a_large_value_and_one_with_enough_copies_are_left_alone():
    scene = scene_of("w1", "w2", "w3", scatter_replicas=2, scatter_replica_limit_bytes=100)
    scene.scatter("x", to=["w1"], nbytes=101)
    scene.scatter("y", to=["w1", "w2"])
    assert [scene.sent(name) for name in ("w1", "w2", "w3")] == [[], [], []]


def test_a_second_worker_that_comes_later_gets_the_copy():
    scene = scene_of("w1", scatter_replicas=2)
    scene.scatter("x", to=["w1"])
    scene.worker("w2")
    scene.tick(1)
    assert scene.sent("w2") == ["fetch x@w1"]
    scene.tick(1)
    assert scene.sent("w2") == []


def test_a_copy_that_is_lost_is_made_anew():
    scene = scene_of("w1", "w2", "w3", scatter_replicas=2)
    scene.scatter("x", to=["w1", "w2"])
    scene.lose("w2")
    assert scene.sent("w3") == ["fetch x@w1"]
    # Who was to have it is lost as well.
    scene.lose("w3")
    scene.worker("w4")
    scene.tick(1)
    assert scene.sent("w4") == ["fetch x@w1"]


def test_a_copy_under_way_is_called_back_when_nobody_wants_it():
    scene = scene_of("w1", "w2", scatter_replicas=2)
    scene.scatter("x", to=["w1"])
    scene.sent("w2")
    scene.release("x")
    assert scene.sent("w2") == ["drop x"]
    scene.nothing_left()
    assert not scene.core.state.replicating


def test_copies_by_order():
    scene = scene_of("w1", "w2")
    scene.submit("a b")
    scene.finish(*[task.key for task in scene.worker_state("w1").processing], on="w1")
    scene.finish(*[task.key for task in scene.worker_state("w2").processing], on="w2")
    key = next(iter(scene.worker_state("w1").has_what)).key
    scene.sent("w2")
    for _ in range(2):
        scene.turn([("", ReplicateKeys(number(scene, "w2"), [scene.task_id(key)]), [])])
    assert scene.sent("w2") == [f"fetch {key}@w1"]
    # The last copy is never given up.
    scene.turn([("", DropReplicas(number(scene, "w1"), [scene.task_id(key)]), [])])
    assert copies(scene, key) == {key: {"w1"}}
    scene.copy(key, on="w2")
    scene.turn([("", DropReplicas(number(scene, "w1"), [scene.task_id(key)]), [])])
    assert copies(scene, key) == {key: {"w2"}} and scene.sent("w1")[-1] == f"drop {key}"


def test_a_retiring_worker_gets_nothing_new_and_gives_back_what_it_has_not_begun():
    scene = scene_of("w1")
    scene.submit("a b c")
    scene.start("a", on="w1")
    scene.sent("w1")
    scene.turn([("", Retire([number(scene, "w1")]), [])])
    assert scene.sent("w1") == ["take back b"]
    assert scene.worker_state("w1").status == "closing_gracefully"
    scene.give_back("b", on="w1")
    assert scene.states("a b c") == ["processing", "no-worker", "no-worker"]
    scene.pause("w1")
    scene.resume("w1")
    assert scene.worker_state("w1").status == "closing_gracefully"
    scene.turn([("", Retire([number(scene, "w1")], retiring=False), [])])
    assert scene.states("a b c")[1:] != ["no-worker", "no-worker"]


def test_when_all_copies_are_lost_dependents_fail_with_an_error_that_says_so():
    scene = scene_of("w1", "w2", "w3", scatter_replicas=2)
    scene.scatter("x", to=["w1", "w2"])
    scene.submit("x -> y", wanted=["y"])
    scene.told("c")
    on = scene.where("y")
    scene.turn([(name, ConnectionLost(), []) for name in ("w1", "w2")])
    assert scene.states("x y") == ["erred", "erred"]
    assert "scattered" in scene.task("y").error.exception_text
    assert on in ("w1", "w2")
    assert not scene.core.state.replicating and not scene.core.state.under_replicated
