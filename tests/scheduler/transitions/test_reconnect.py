"""Scenes of broken streams: who comes back goes on, and what was lost on the way is made good."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import ClientWelcome, ConfirmKeys, KeysAliased, KeysScattered, Received, RegisterClient
from treadle.messages.scheduler_local import ConnectionLost
from treadle.messages.worker_scheduler import (
    KeysRenumbered,
    RegisterWorker,
    TaskErred,
    TasksErred,
    TasksFinished,
    UnlearnFunctions,
    WorkerPeersGone,
    WorkerWelcome,
)
from treadle.testing.reconnection_scene import GRACE_S, ReconnectionScene


def scene_with(*workers: str, **limits: Any) -> ReconnectionScene:
    scene = ReconnectionScene(**limits)
    scene.workers(*workers)
    scene.client("c")
    return scene


# ------------------------------------------------------------------------------------------------ workers


def test_a_worker_goes_on_where_it_was() -> None:
    scene = scene_with("w1")
    scene.submit("a; b; c -> d")
    scene.sent("w1")
    scene.lose("w1")
    assert scene.states("a b c d") == ["processing", "processing", "no-worker", "waiting"]
    scene.come_back("w1", executing=["a"], waiting=["b"])
    assert scene.sent("w1") == []
    assert scene.states("a b c d") == ["processing", "processing", "queued", "waiting"]
    scene.finish("a", on="w1")
    assert scene.told("c") == ["memory a@w1"]


def test_nothing_is_sent_to_a_worker_that_is_away() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a; b")
    assert (scene.sent("w1"), scene.sent("w2")) == (["compute a"], ["compute b"])
    scene.lose("w1")
    scene.submit("x; y; z")
    scene.release("a")
    assert scene.sent("w1") == []
    assert scene.sent("w2") == ["compute x"]


def test_what_was_finished_meanwhile_is_finished() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b")
    scene.lose("w1")
    scene.sent("w1")
    scene.come_back("w1", holding=["a"])
    assert scene.told("c") == ["memory a@w1"]
    assert scene.sent("w1") == ["compute b with a@w1"]


def test_assignments_that_never_arrived_are_sent_again() -> None:
    scene = scene_with("w1")
    scene.submit("a; b")
    first = scene.sent("w1")
    scene.lose("w1")
    scene.come_back("w1")
    assert scene.sent("w1") == first == ["compute a", "compute b"]
    assert scene.task("a").attempt == 1


def test_functions_that_never_arrived_are_sent_again() -> None:
    scene = scene_with("w1")
    scene.submit("a", function="f")
    scene.submit("b", function="g")
    assert scene.sent("w1") == ["learn f", "compute a", "learn g", "compute b"]
    scene.lose("w1")
    scene.come_back("w1", waiting=["a"], functions=["f"])
    assert scene.sent("w1") == ["learn g", "compute b"]


def test_functions_that_nobody_calls_any_more_are_unlearned() -> None:
    scene = scene_with("w1")
    scene.submit("a", function="f")
    (id,) = scene.names.functions
    scene.lose("w1")
    scene.release("a")
    scene.forget_function("f")
    scene.messages("w1")
    scene.come_back("w1", waiting=["a"], functions=["f"])
    assert UnlearnFunctions([id]) in scene.messages("w1")


def test_what_nobody_wants_any_more_is_dropped() -> None:
    scene = scene_with("w1")
    scene.submit("a; b")
    scene.finish("a", on="w1")
    scene.lose("w1")
    scene.release("a", "b")
    scene.sent("w1")
    scene.come_back("w1", holding=["a"], executing=["b"])
    assert scene.sent("w1") == ["drop a", "drop b"]
    scene.nothing_left()


def test_what_was_put_there_a_moment_ago_is_not_dropped() -> None:
    scene = scene_with("w1")
    scene.lose("w1")
    scene.sent("w1")
    id = scene.parties["c"].new_id()
    scene.come_back("w1", holding=["s"], fresh=["s"], ids={"s": id})
    assert scene.sent("w1") == []
    scene.parties["c"].given -= 1
    scene.scatter("s", to=["w1"])
    assert scene.where("s") == "w1"


def test_lost_values_are_made_again() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b")
    scene.finish("a", on="w1")
    scene.lose("w1")
    scene.sent("w1")
    scene.told("c")
    scene.come_back("w1", waiting=["b"])
    assert scene.told("c") == ["pending a"]
    assert scene.sent("w1") == ["compute a", "drop b"]


def test_copies_that_were_not_reported_are_known() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a")
    scene.finish("a", on="w1")
    scene.lose("w2")
    scene.come_back("w2", holding=["a"])
    assert scene.where("a") == "w1,w2"


def test_failures_whose_report_was_lost() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.lose("w1")
    scene.sent("w1")
    scene.come_back("w1", erred=["a"])
    assert scene.told("c") == ["erred a: boom, by a"]
    assert scene.sent("w1") == ["drop a"]


def test_tasks_that_were_given_back_on_the_way() -> None:
    scene = scene_with("w1", default_task_durations_s={"t": 1.0})
    scene.submit("root")
    scene.finish("root", on="w1", duration=1.0)
    scene.submit("root -> t-0 t-1")
    scene.submit("root -> s-0 s-1")
    assigned = [line.split()[1] for line in scene.sent("w1")[1:]]
    scene.worker("w2")
    (asked,) = scene.sent("w1")
    key = asked.removeprefix("take back ")
    scene.lose("w1")
    scene.come_back("w1", holding=["root"], waiting=[other for other in assigned if other != key])
    assert scene.where(key) == "w2"
    assert scene.sent("w2") == [f"compute {key} with root@w1"]
    assert scene.sent("w1") == [f"drop {key}"]


def test_execution_under_an_older_attempt_goes_on_under_the_new_one() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.start("a", on="w1")
    scene.reschedule("a", on="w1")
    scene.sent("w1")
    assert scene.task("a").attempt == 2
    scene.lose("w1")
    scene.parties["w1"].attempts["a"] = 1
    scene.come_back("w1", executing=["a"])
    assert scene.sent("w1") == ["compute a"]
    assert scene.parties["w1"].attempts["a"] == 2


def test_values_that_it_waits_for() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1"]))
    scene.submit("a -> b", options=TaskOptions(workers=["w2"]))
    scene.finish("a", on="w1")
    assert scene.sent("w2") == ["compute b with a@w1"]
    scene.lose("w2")
    scene.come_back("w2", waiting=["b"], fetching=["a"])
    # It may have missed that it moved.
    assert scene.sent("w2") == ["holders a@w1"]
    assert [peer.number for peer in scene.messages("w2")] == []


def test_workers_that_left_meanwhile_are_forgotten() -> None:
    scene = scene_with("w1", "w2", "w3")
    scene.lose("w1")
    scene.leave("w3")
    scene.messages("w1")
    scene.come_back("w1", peers=["w2", "w3"])
    gone = scene.parties["w3"].number
    assert WorkerPeersGone([gone]) in scene.messages("w1")
    assert scene.worker_state("w1").met == {scene.parties["w2"].number}


def test_pauses_that_were_not_reported() -> None:
    scene = scene_with("w1")
    scene.lose("w1")
    scene.come_back("w1", status="paused")
    scene.submit("a")
    assert scene.state("a") == "no-worker"
    scene.resume("w1")
    assert scene.sent("w1") == ["compute a"]


def test_who_stays_away_is_given_up() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a; b")
    scene.finish("b", on="w2")
    scene.lose("w1")
    scene.tick(GRACE_S / 2)
    assert scene.where("a") == "w1"
    scene.sent("w2")
    scene.tick(GRACE_S)
    assert scene.sent("w2") == ["compute a"]
    assert "w1" not in scene.core.state.by_name


def test_a_worker_that_was_closed_on_purpose_is_not_waited_for() -> None:
    scene = scene_with("w1")
    scene.lose("w1", blame=False)
    assert not scene.core.workers


def test_a_successor_of_the_same_name_is_not_kept_waiting() -> None:
    scene = scene_with("w1")
    scene.submit("a")
    scene.lose("w1")
    number = scene.parties["w1"].number
    scene.names.workers[number + 100] = "new"
    scene.parties["new"] = type(scene.parties["w1"])(number + 100, "new")
    scene.event("new", RegisterWorker(WorkerIdentity("another id", "tcp://elsewhere:1", "w1", "elsewhere", 1, 0, {}, 1, "/", {})))
    assert not scene.closed
    assert scene.sent("new") == ["compute a"]


def test_given_up_and_back_after_all_it_is_a_new_worker_with_old_values() -> None:
    scene = scene_with("w1")
    scene.submit("a; b; c")
    scene.finish("a", on="w1")
    scene.lose("w1")
    scene.tick(GRACE_S)
    assert scene.states("a b c") == ["no-worker", "no-worker", "no-worker"]
    scene.messages("w1")
    scene.told("c")
    scene.come_back("w1", holding=["a"], executing=["b"], waiting=["c"])
    (welcome,) = [message for message in scene.messages("w1") if isinstance(message, WorkerWelcome)]
    assert not welcome.known
    assert scene.told("c") == ["memory a@w1"]
    assert scene.states("a b c") == ["memory", "processing", "processing"]
    # The same execution, as another attempt.
    scene.finish("b", on="w1")
    assert scene.told("c") == ["memory b@w1"]


def test_work_that_was_given_to_somebody_else_meanwhile_is_not_taken_away() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1", "w2"]))
    first = scene.where("a")
    other = "w2" if first == "w1" else "w1"
    scene.lose(first)
    scene.tick(GRACE_S)
    assert scene.where("a") == other
    scene.sent(first)
    scene.come_back(first, executing=["a"])
    assert scene.sent(first) == ["drop a"]
    assert scene.where("a") == other


def test_a_value_saves_the_work_of_somebody_else() -> None:
    scene = scene_with("w1", "w2")
    scene.submit("a", options=TaskOptions(workers=["w1", "w2"]))
    first = scene.where("a")
    other = "w2" if first == "w1" else "w1"
    scene.lose(first)
    scene.tick(GRACE_S)
    scene.sent(other)
    scene.come_back(first, holding=["a"])
    assert scene.where("a") == first
    assert scene.sent(other) == ["drop a"]


@pytest.mark.parametrize("twice", [True, False])
def test_registering_twice_breaks_the_protocol(twice: bool) -> None:
    scene = scene_with("w1")
    if twice:
        scene.come_back("w1")
    else:
        scene.lose("w1")
        number = scene.parties["w1"].number
        scene.event(
            "w1", RegisterWorker(WorkerIdentity("id of w1", f"tcp://host-of-w1:{number}", "w1", "host-of-w1", 1, 0, {}, 1, "/", {}))
        )
    assert [name for name, _ in scene.closed] == ["w1"]


# ------------------------------------------------------------------------------------------------ clients


def test_a_client_finds_its_futures() -> None:
    scene = scene_with("w1")
    scene.submit("a; b; c; d")
    scene.finish("a", on="w1")
    scene.fail("b", on="w1")
    scene.told("c")
    scene.lose("c")
    scene.finish("c", on="w1")
    assert scene.told("c") == []
    scene.return_client()
    (welcome,) = scene.messages("c")
    assert isinstance(welcome, ClientWelcome) and welcome.known
    scene.confirm()
    assert scene.told("c") == ["memory a@w1", "erred b: boom, by b", "memory c@w1", "pending d"]


def test_keys_that_were_cancelled_meanwhile() -> None:
    scene = scene_with("w1")
    scene.client("other")
    scene.submit("a; b")
    scene.attach("a", client="other")
    scene.lose("c")
    scene.cancel("a", client="other", force=True)
    scene.return_client()
    scene.told("c")
    scene.confirm("a", "b")
    assert scene.told("c") == ["cancelled a: already forgotten", "pending b"]


def test_names_of_keys_that_were_not_heard() -> None:
    scene = scene_with("w1")
    scene.client("other")
    scene.submit("a", client="other")
    scene.lose("c")
    scene.return_client()
    scene.submit("a", new_submission=True)
    scene.lose("c")
    scene.messages("c")
    scene.return_client()
    aliased = [message for message in scene.messages("c") if isinstance(message, KeysAliased)]
    assert aliased == [KeysAliased([scene.parties["c"].ids["a"]], [scene.task("a").id])]


def test_frames_are_acknowledged_now_and_then() -> None:
    scene = scene_with("w1")
    for sequence in range(1, 16):
        scene.frame(sequence)
    assert scene.messages("c")[1:] == []
    scene.frame(16)
    assert scene.messages("c") == [Received(16)]
    scene.frame(17)
    scene.submit("a")
    scene.finish("a", on="w1")
    assert scene.messages("c")[-1] == Received(17)
    scene.frame(18)
    assert scene.messages("c") == []
    scene.tick(0.5)
    assert scene.messages("c") == [Received(18)]
    scene.frame(19, urgent=True)
    assert scene.messages("c") == [Received(19)]


def test_the_welcome_says_what_has_arrived() -> None:
    scene = scene_with("w1")
    scene.frame(7)
    scene.lose("c")
    scene.messages("c")
    scene.return_client()
    (welcome,) = scene.messages("c")
    assert (welcome.known, welcome.received) == (True, 7)


def test_a_client_that_stays_away_wants_nothing() -> None:
    scene = scene_with("w1")
    scene.submit("a; b")
    scene.fire_and_forget("b")
    scene.lose("c")
    scene.tick(GRACE_S)
    assert scene.states("a b") == ["forgotten", "processing"]
    scene.finish("b", on="w1")
    scene.nothing_left()


def test_a_stranger_may_register_only_once() -> None:
    scene = scene_with("w1")
    scene.event("c", RegisterClient("id of c", {}, 3))
    assert [name for name, _ in scene.closed] == ["c"]


# ------------------------------------------------------------------------------------------ another scheduler


def restarted(*workers: str) -> ReconnectionScene:
    """a is in memory on the first worker, which executes b; the scheduler is another one now."""
    scene = scene_with(*workers)
    scene.submit("a; b", options=TaskOptions(workers=[workers[0]]))
    scene.finish("a", on=workers[0])
    scene.start("b", on=workers[0])
    scene.another_scheduler()
    return scene


@pytest.mark.parametrize("first", ["client", "worker"])
def test_values_and_executions_find_those_who_want_them(first: str) -> None:
    scene = restarted("w1")

    def worker() -> None:
        scene.come_back("w1", holding=["a"], executing=["b"], ids={key: scene.parties["c"].ids[key] for key in "ab"})

    def client() -> None:
        scene.return_client()
        scene.reattach("a", "b")

    for act in (client, worker) if first == "client" else (worker, client):
        act()
    assert scene.states("a b") == ["memory", "processing"]
    # What was brought a while ago may have been dropped since.
    assert scene.sent("w1") == ([] if first == "client" else ["fetch a@w1"])
    assert [line for line in scene.told("c") if "a" in line.split("@")[0]] == (
        ["pending a", "memory a@w1"] if first == "client" else ["memory a@w1"]
    )
    scene.finish("b", on="w1")
    assert scene.told("c") == ["memory b@w1"]


def test_an_execution_that_ends_before_anybody_asks_for_it() -> None:
    scene = restarted("w1")
    ids = scene.parties["c"].ids
    scene.come_back("w1", holding=["a"], executing=["b"], ids=dict(ids))
    scene.event("w1", TasksFinished([ids["b"]], [scene.parties["w1"].attempts["b"]], [8], [0], ["int"], [0.0], [1.0]))
    assert scene.sent("w1") == []
    scene.return_client()
    scene.reattach("a", "b")
    assert scene.told("c") == ["memory a@w1", "memory b@w1"]


def test_an_execution_that_fails_before_anybody_asks_for_it_is_not_waited_for() -> None:
    scene = restarted("w1")
    ids = scene.parties["c"].ids
    scene.come_back("w1", executing=["b"], ids=dict(ids))
    error = TaskError(b"", b"", "it failed", "")
    scene.event("w1", TasksErred([TaskErred(ids["b"], scene.parties["w1"].attempts["b"], error, 0.0, 1.0)]))
    assert scene.sent("w1") == ["drop b"]
    scene.return_client()
    scene.reattach("b")
    assert scene.state("b") == "no-worker"


def test_a_worker_that_comes_a_second_time_goes_on_with_what_nobody_has_asked_for() -> None:
    scene = restarted("w1")
    ids = dict(scene.parties["c"].ids)
    scene.come_back("w1", executing=["a", "b"], ids=ids)
    scene.lose("w1")
    scene.come_back("w1", holding=["a"], executing=["b"], ids=ids)
    assert "drop" not in " ".join(scene.sent("w1"))
    scene.return_client()
    scene.reattach("a", "b")
    assert scene.states("a b") == ["memory", "processing"]


def test_what_is_submitted_again_takes_the_value_that_is_there() -> None:
    scene = restarted("w1")
    scene.come_back("w1", holding=["a"], ids=dict(scene.parties["c"].ids))
    scene.return_client()
    scene.parties["c"].ids.clear()
    scene.submit("a -> d", wanted=["d"])
    new = scene.task_id("a")
    assert scene.state("a") == "memory"
    renumbered = [message for message in scene.messages("w1") if isinstance(message, KeysRenumbered)]
    assert [message.canonical for message in renumbered] == [[new]]


def test_nobody_asks_for_it() -> None:
    scene = restarted("w1")
    scene.come_back("w1", holding=["a"], executing=["b"], ids=dict(scene.parties["c"].ids))
    assert scene.sent("w1") == []
    scene.tick(GRACE_S)
    assert scene.sent("w1") == ["drop a", "drop b"]
    scene.nothing_left()


def test_nobody_brings_it() -> None:
    scene = restarted("w1")
    scene.return_client()
    scene.reattach("a", "b")
    scene.come_back("w1", holding=["a"], ids=dict(scene.parties["c"].ids))
    scene.tick(GRACE_S)
    lines = scene.told("c")
    assert lines == ["pending a", "pending b", "memory a@w1", "cancelled b: lost-in-scheduler-restart"]
    assert scene.state("b") == "forgotten"


def test_tasks_that_need_what_nobody_brings() -> None:
    scene = restarted("w1")
    scene.return_client()
    scene.reattach("b")
    scene.submit("b -> e", wanted=["e"])
    assert scene.states("b e") == ["no-worker", "waiting"]
    scene.come_back("w1")
    assert scene.states("b e") == ["no-worker", "waiting"]
    scene.tick(GRACE_S)
    lines = scene.told("c")
    assert "cancelled b: lost-in-scheduler-restart" in lines
    assert any(line.startswith("erred e:") and "does not know this key" in line for line in lines)


def test_a_recipe_comes_for_what_is_awaited() -> None:
    scene = restarted("w1")
    scene.client("d")
    scene.return_client()
    scene.reattach("a")
    scene.come_back("w1")
    scene.submit("a", client="d")
    assert scene.sent("w1") == ["compute a"]
    scene.finish("a", on="w1")
    assert scene.told("c")[-1] == scene.told("d")[-1] == "memory a@w1"


def test_late_for_the_recovery_a_client_is_told_at_once() -> None:
    scene = restarted("w1")
    scene.tick(GRACE_S)
    scene.return_client()
    scene.reattach("a")
    assert scene.told("c") == ["cancelled a: lost-in-scheduler-restart"]


def test_functions_that_only_the_earlier_scheduler_knew() -> None:
    scene = scene_with("w1")
    scene.submit("a", function="f")
    scene.another_scheduler()
    scene.return_client()
    scene.submit("g", function="f")
    assert scene.told("c") == ["cancelled g: lost dependencies"]
    assert not scene.closed


def test_scattered_data_whose_announcement_comes_before_its_worker() -> None:
    scene = scene_with("w1")
    number = scene.parties["w1"].number
    scene.another_scheduler()
    scene.return_client()
    scene.scatter("s", to=["w1"])
    assert scene.state("s") == "no-worker"
    assert scene.parties["w1"].number == number
    scene.come_back("w1", holding=["s"], ids=dict(scene.parties["c"].ids))
    assert scene.told("c") == ["pending s", "memory s@w1"]


def test_a_worker_dies_that_had_brought_what_nobody_knew() -> None:
    scene = restarted("w1")
    scene.come_back("w1", holding=["a"], ids=dict(scene.parties["c"].ids))
    scene.event("w1", ConnectionLost(False))
    scene.return_client()
    scene.reattach("a")
    assert scene.told("c") == ["pending a"]
    scene.tick(GRACE_S)
    assert scene.told("c") == ["cancelled a: lost-in-scheduler-restart"]
    scene.nothing_left()


def test_what_a_client_put_is_not_taken_for_what_is_computed_under_the_same_key() -> None:
    """It says later what it put there: that must not have been dropped when it released the other one."""
    scene = scene_with("w1")
    scene.another_scheduler()
    put = scene.parties["c"].number << 32 | 99
    scene.come_back("w1", holding=["s"], fresh=["s"], ids={"s": put})
    scene.return_client()
    scene.submit("s")
    assert scene.state("s") == "processing"
    scene.release("s")
    scene.sent("w1")
    scene.event("c", KeysScattered([put], ["s"], [[scene.parties["w1"].number]], [8], ["int"]))
    assert scene.state("s") == "memory"
    # It says whether it is there still.
    assert scene.sent("w1") == [f"fetch {put}@w1"]


def test_what_a_client_put_may_be_gone_from_a_worker_that_came_back() -> None:
    """All was forgotten between the inventory of the worker and the word of the client."""
    scene = scene_with("w1")
    put = scene.parties["c"].number << 32 | 99
    scene.lose("w1")
    scene.come_back("w1", holding=["s"], fresh=["s"], ids={"s": put})
    scene.forget()
    assert scene.sent("w1") == [f"drop {put}"]
    scene.event("c", KeysScattered([put], ["s"], [[scene.parties["w1"].number]], [8], ["int"]))
    assert scene.sent("w1") == [f"fetch {put}@w1"]


def test_a_failed_key_that_is_made_once_more_and_cancelled_while_its_client_comes_back() -> None:
    scene = scene_with("w1")
    scene.submit("a -> b", wanted=["b"])
    scene.lose("c")
    scene.return_client()
    scene.finish("a", on="w1")
    scene.finish("b", on="w1")
    scene.told("c")
    scene.cancel("a")
    assert scene.told("c") == []
    # It believes of b what an earlier scheduler has said.
    scene.event("c", ConfirmKeys([], [scene.parties["c"].ids["b"]]))
    assert scene.told("c") == ["cancelled b: already forgotten"]


def test_a_client_that_was_given_up_wants_its_failed_keys_still() -> None:
    scene = scene_with("w1")
    scene.client("d")
    scene.submit("a")
    scene.attach("a", client="d")
    scene.fail("a", on="w1")
    scene.event("c", ConnectionLost(False))
    scene.return_client()
    scene.event("c", ConfirmKeys([], [scene.parties["c"].ids["a"]]))
    scene.release("a", client="d")
    assert scene.state("a") == "erred"
    scene.retry("a")
    assert scene.state("a") == "processing"
