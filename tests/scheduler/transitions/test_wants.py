"""Who wants what: clients attach, release, cancel, share keys, stream graphs in chunks, and go away."""

from __future__ import annotations

import pytest

from treadle.messages.client_scheduler import AttachKeys, ReleaseKeys, SubmitTasks
from treadle.testing.scheduler_scene import SchedulerScene


def scene_with(*clients: str, workers: int = 1, **limits: object) -> SchedulerScene:
    scene = SchedulerScene(**limits)
    for number in range(workers):
        scene.worker(f"w{number + 1}")
    for name in clients:
        scene.client(name)
    return scene


def test_what_nobody_needs_is_freed_on_the_way() -> None:
    scene = scene_with("c")
    scene.submit("a -> b -> c; a -> d", wanted=["c", "d"])
    for key in "abd":
        scene.finish(key, on="w1")
    assert "drop a" in scene.sent("w1")
    assert scene.state("a") == "released"
    scene.finish("c", on="w1")
    assert scene.sent("w1") == ["drop b"]


def test_nothing_is_left_when_all_is_released() -> None:
    scene = scene_with("c")
    scene.submit("a -> b -> c; a -> d", wanted=["c", "d"], function="f")
    for key in "abdc":
        scene.finish(key, on="w1")
    scene.release("c", "d")
    scene.forget_function("f")
    scene.nothing_left()
    assert scene.sent("w1")[-3:] == ["drop c", "drop d", "unlearn f"]


def test_release_on_the_way_stops_everything() -> None:
    scene = scene_with("c")
    scene.submit("a -> b -> c", wanted=["c"])
    scene.sent("w1")
    scene.release("c")
    assert scene.sent("w1") == ["drop a"]
    scene.nothing_left()


def test_graph_that_nobody_wants_is_forgotten_at_once() -> None:
    scene = scene_with("c")
    scene.submit("a -> b", wanted=[])
    scene.nothing_left()
    scene.nothing_else_sent()


def test_released_and_submitted_again() -> None:
    scene = scene_with("c")
    scene.submit("a")
    scene.finish("a", on="w1")
    scene.release("a")
    scene.submit("a")
    assert scene.sent("w1") == ["compute a", "drop a", "compute a"]


def test_two_clients_share_a_task() -> None:
    scene = scene_with("c", "d")
    scene.submit("a -> b", client="c", wanted=["b"])
    scene.submit("a -> b", client="d", wanted=["b"])
    assert scene.told("d") == ["aliased a", "aliased b"]
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    assert scene.told("c") == scene.told("d") == ["memory b@w1"]
    scene.release("b", client="c")
    assert scene.state("b") == "memory"
    scene.release("b", client="d")
    scene.nothing_left()


def test_finished_task_is_given_to_who_submits_it_later() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c")
    scene.finish("a", on="w1")
    scene.submit("a", client="d")
    assert scene.told("d") == ["aliased a", "memory a@w1"]
    assert scene.sent("w1") == ["compute a"]


def test_alias_serves_as_a_dependency() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c")
    scene.submit("a", client="d")
    scene.submit("a -> b", client="d")
    scene.finish("a", on="w1")
    assert scene.sent("w1")[-1] == "compute b with a@w1"


def test_two_names_of_one_task_are_one_dependency() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c")
    scene.attach("a", client="d")
    party = scene.parties["d"]
    second = party.new_id()
    scene.event("d", AttachKeys([second], ["a"]))
    scene.event("d", SubmitTasks(2, [party.new_id()], ["b"], [0], [b""], dependencies=[[party.ids["a"], second]]))
    assert [need.key for need in scene.task("b").dependencies] == ["a"]


def test_attach_to_known_and_unknown_keys() -> None:
    scene = scene_with("c", "d")
    scene.submit("a running", client="c")
    scene.finish("a", on="w1")
    scene.attach("a", "running", "nonsense", client="d")
    assert scene.told("d") == ["aliased a", "memory a@w1", "aliased running", "cancelled nonsense: already forgotten"]
    scene.release("a", "running", client="c")
    assert scene.states("a running") == ["memory", "processing"]


def test_attach_revives_what_was_not_kept() -> None:
    scene = scene_with("c", "d")
    scene.submit("a -> b", client="c", wanted=["b"])
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    assert scene.state("a") == "released"
    scene.attach("a", client="d")
    assert scene.state("a") == "processing"


def test_cancel_by_one_of_two() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c")
    scene.submit("a", client="d")
    scene.cancel("a", client="d", reason="enough")
    assert scene.told("d") == ["aliased a", "cancelled a: enough"]
    assert scene.told("c") == []
    assert scene.state("a") == "processing"


def test_cancel_takes_with_it_what_depends_on_it() -> None:
    scene = scene_with("c")
    scene.submit("a -> b -> c; other")
    scene.cancel("a", reason="enough")
    assert sorted(scene.told("c")) == ["cancelled a: enough", "cancelled b: enough", "cancelled c: enough"]
    assert scene.states("a b c other") == ["forgotten", "forgotten", "forgotten", "processing"]


def test_cancel_leaves_alone_what_others_want() -> None:
    scene = scene_with("c", "d")
    scene.submit("a -> b", client="c")
    scene.submit("a -> b", client="d", wanted=["b"])
    scene.cancel("a", client="c")
    assert scene.states("a b") == ["processing", "waiting"]
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    assert scene.told("d")[-1] == "memory b@w1"


def test_forced_cancel_is_for_everybody() -> None:
    scene = scene_with("c", "d")
    scene.submit("a -> b", client="c")
    scene.submit("a -> b", client="d", wanted=["b"])
    scene.told("d")
    scene.cancel("a", client="c", force=True, reason="all over")
    assert scene.told("d") == ["cancelled b: all over"]
    scene.nothing_left()


def test_submission_onto_cancelled_keys_is_cancelled() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c")
    scene.attach("a", client="d")
    scene.cancel("a", client="c", force=True)
    scene.told("d")
    scene.submit("a -> b -> c; free", client="d", wanted=["c", "free"])
    assert scene.told("d") == ["cancelled c: lost dependencies"]
    assert scene.states("b c free") == ["forgotten", "forgotten", "processing"]


def test_fire_and_forget() -> None:
    scene = scene_with("c")
    scene.submit("a -> b", wanted=["b"])
    scene.fire_and_forget("b")
    scene.release("b")
    assert scene.states("a b") == ["processing", "waiting"]
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    scene.nothing_left()
    assert scene.told("c") == []


def test_fire_and_forget_outlives_its_client() -> None:
    scene = scene_with("c")
    scene.submit("a")
    scene.fire_and_forget("a")
    scene.leave("c")
    scene.fail("a", on="w1")
    scene.nothing_left()


@pytest.mark.parametrize("politely", [True, False])
def test_client_goes_away_in_the_middle(politely: bool) -> None:
    scene = scene_with("c", "d", workers=2)
    scene.submit("a -> b; x -> y", client="c", function="f")
    scene.submit("a", client="d")
    (scene.leave if politely else scene.lose)("c")
    assert scene.states("a b x y") == ["processing", "forgotten", "forgotten", "forgotten"]
    scene.finish("a", on=scene.where("a"))
    scene.release("a", client="d")
    scene.nothing_left()
    assert scene.closed == ([("c", "the client left")] if politely else [])


def test_chunks_keep_what_is_still_to_be_used() -> None:
    scene = scene_with("c")
    scene.submit("a b", wanted=[], later_dependents=[2, 1])
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    assert scene.states("a b") == ["memory", "memory"]
    scene.submit("a -> c", new_submission=False)
    assert scene.states("a c") == ["memory", "processing"]
    scene.finish("c", on="w1")
    assert scene.state("a") == "memory"
    scene.submit("a b -> d", new_submission=False)
    scene.finish("d", on="w1")
    assert scene.states("a b") == ["released", "released"]
    scene.release("c", "d")
    scene.nothing_left()


def test_a_value_is_kept_until_a_chunk_of_several_generations_has_started() -> None:
    scene = scene_with("c")
    scene.submit("a b", wanted=[], later_dependents=[1, 1])
    scene.finish("a", on="w1")
    # Only the last of the chain is wanted, and says so last.
    scene.submit("a b -> c; c -> d; d -> e", wanted=["e"], new_submission=False)
    assert scene.moves("a") == ["released -> waiting", "waiting -> queued", "queued -> processing", "processing -> memory"]
    assert scene.moves("c", "d", "e") == ["released -> waiting"] * 3
    scene.finish("b", on="w1")
    assert scene.state("c") == "processing"


def test_client_vanishes_between_chunks() -> None:
    scene = scene_with("c")
    scene.submit("a b", wanted=[], later_dependents=[1, 1])
    scene.finish("a", on="w1")
    scene.lose("c")
    scene.nothing_left()


def test_two_clients_stream_the_same_graph() -> None:
    scene = scene_with("c", "d")
    scene.submit("a", client="c", wanted=[], later_dependents=[1])
    scene.submit("a", client="d", wanted=[], later_dependents=[1])
    scene.finish("a", on="w1")
    scene.lose("c")
    assert scene.state("a") == "memory"
    scene.submit("a -> b", client="d", new_submission=False)
    scene.finish("b", on="w1")
    scene.release("b", client="d")
    scene.nothing_left()


def test_chunk_whose_other_dependency_was_cancelled() -> None:
    scene = scene_with("c", "d")
    scene.submit("a b", wanted=["a"], later_dependents=[1, 1])
    scene.submit("b", client="d")
    scene.finish("a", on="w1")
    scene.attach("a", client="d")
    scene.cancel("a", client="d", force=True)
    scene.release("b", client="d")
    # Still expected: c has not sent its last chunk.
    assert scene.states("a b") == ["memory", "processing"]
    scene.submit("a b -> e", new_submission=False, wanted=[])
    scene.nothing_left()


def test_another_submission_does_not_use_up_what_a_stream_announced() -> None:
    scene = scene_with("c")
    scene.submit("a", later_dependents=[1])
    scene.finish("a", on="w1")
    scene.submit("a -> x")
    scene.parties["c"].submissions = 1
    scene.release("x")
    scene.event("c", ReleaseKeys([scene.task_id("a")]))
    assert scene.state("a") == "memory"
    scene.submit("a -> b", new_submission=False)
    assert scene.state("b") == "processing"


def test_a_chosen_key_stands_for_its_first_task() -> None:
    scene = scene_with("one", "other")
    scene.submit("a b", client="one", digests=[(0, b"first"), (1, b"same")])
    scene.submit("a b", client="other", digests=[(0, b"second"), (1, b"same")])
    assert scene.sent("other") == ["aliased a", "aliased b", "redefined a"]
    scene.finish("a", on="w1")
    assert scene.sent("other")[-1] == "memory a@w1"
    scene.finish("b", on="w1")
    scene.release("a", "b", client="one")
    scene.release("a", "b", client="other")
    scene.submit("a", client="other", digests=[(0, b"second")], again=True)
    assert "redefined a" not in scene.sent("other")


def test_a_chosen_key_of_another_task_is_refused_to_who_says_so() -> None:
    scene = scene_with("one", "other")
    scene.submit("a", client="one", digests=[(0, b"first")])
    scene.submit("a -> c; b", client="other", digests=[(0, b"second")], strict=True)
    assert scene.sent("other") == ["cancelled c: lost dependencies", "cancelled a: key of another task"]
    assert scene.state("a") == "processing" and scene.state("b") == "processing"
    scene.release("b", client="other")
    scene.release("a", client="one")
    scene.nothing_left()
