"""Scenes of tasks that run, fail, are given back and dropped."""

import pytest

from treadle.exceptions import PeerProtocolError
from treadle.messages.local import BuffersCame, DataLost, ExecutionsDone, StoreFailed
from treadle.messages.worker_scheduler import TaskErred, TasksFinished
from treadle.worker.transitions.records import STATE_NAMES
from treadle.worker.transitions.table import LEGAL


def test_a_task_runs_is_stored_reported_and_dropped(env):
    env.compute("a", attempt=3)
    assert list(env.executing) == ["a"]
    env.finish("a", value=42)
    assert env.said() == [("finished", "a", 3)]
    assert env.store == {"a": 42}
    env.drop("a")
    assert env.is_idle()


def test_a_failure_is_reported_and_nothing_is_kept(env):
    env.compute("a")
    env.fail("a", "oh no")
    assert env.said() == [("erred", "a", 1, "oh no")]
    assert env.is_idle()


def test_a_rescheduled_task_is_forgotten(env):
    env.compute("a")
    env.reschedule("a")
    assert env.said() == [("rescheduled", "a", 1)]
    assert env.is_idle()


def test_what_is_in_memory_is_reported_again_for_a_new_attempt(env):
    env.compute("a")
    env.finish("a")
    env.said()
    env.compute("a", attempt=2)
    assert env.said() == [("finished", "a", 2)]
    assert not env.executing


def test_an_execution_that_was_dropped_ends_unheard(env):
    env.compute("a")
    env.start("a")
    env.drop("a")
    assert env.state("a") == "cancelled"
    env.said()
    env.finish("a")
    assert env.is_idle()


def test_an_execution_that_was_dropped_and_failed_ends_unheard(env):
    env.compute("a")
    env.start("a")
    env.said()
    env.drop("a")
    env.fail("a")
    assert env.is_idle()


def test_a_dropped_task_that_is_assigned_again_runs_on_under_the_new_attempt(env):
    env.compute("a")
    env.start("a")
    env.drop("a")
    env.said()
    env.compute("a", attempt=2)
    assert env.said() == [("started", "a", 2)]
    assert len(env.executing) == 1
    env.finish("a")
    assert env.said() == [("finished", "a", 2)]


def test_a_newer_attempt_of_a_running_task_takes_its_report(env):
    env.compute("a")
    env.compute("a", attempt=2)
    env.finish("a")
    assert env.said() == [("finished", "a", 2)]


def test_a_seceded_task_that_comes_back_says_so_again(env):
    env.compute("a")
    env.secede("a")
    assert env.said() == [("started", "a", 1), ("seceded", "a", 1)]
    env.drop("a")
    env.compute("a", attempt=2)
    assert env.said() == [("started", "a", 2), ("seceded", "a", 2)]
    assert env.state("a") == "long-running"


def test_started_is_said_once(env):
    env.compute("a")
    env.start("a")
    env.start("a")
    assert env.said() == [("started", "a", 1)]


def test_what_was_dropped_before_it_started_is_abandoned(env):
    env.compute("a")
    env.drop("a")
    env.answer_take_back(taken="a")
    assert env.is_idle()


def test_dropped_and_assigned_again_before_the_executor_answered(env):
    env.compute("a")
    env.drop("a")
    env.compute("a", attempt=2)
    env.answer_take_back(taken="a")
    assert list(env.executing) == ["a"]
    env.finish("a")
    assert env.said() == [("finished", "a", 2)]


def test_given_back_when_not_started(env):
    env.compute("a")
    env.take_back("a")
    assert env.said() == []
    env.answer_take_back(taken="a")
    assert env.said() == [("given back", "a", 1)]
    assert env.is_idle()


def test_kept_when_started_finished_or_unknown(env):
    env.compute("a")
    env.take_back("a")
    env.answer_take_back(kept="a")
    assert env.said() == [("kept", "a")]
    env.start("a")
    env.take_back("a")
    assert env.said() == [("started", "a", 1), ("kept", "a")]
    env.finish("a")
    env.take_back("a")
    env.take_back("z")
    assert env.said() == [("finished", "a", 1), ("kept", "a"), ("kept", "z")]


def test_an_old_attempt_is_not_given_back(env):
    env.compute("a", attempt=2)
    env.take_back("a", attempt=1)
    assert env.said() == [("kept", "a")]


def test_asked_back_dropped_and_assigned_again_each_question_has_one_answer(env):
    env.compute("a")
    env.take_back("a")
    env.drop("a")
    env.compute("a", attempt=2)
    env.to_take_back = ["a"]
    env.answer_take_back(taken="a")
    assert env.said() == [("kept", "a")]
    assert list(env.executing) == ["a"]
    env.finish("a")
    assert env.said() == [("finished", "a", 2)]


def test_a_task_that_comes_and_goes_in_one_turn(env):
    from treadle.messages.worker_scheduler import DropKeys

    env.hear(env.compute_message("a"), DropKeys([ord("a")]))
    env.answer_take_back(taken="a")
    assert env.is_idle()


def test_resources_hold_back_and_let_go_by_priority(make_env):
    env = make_env({"GPU": 1.0})
    env.compute("a", resources={"GPU": 1})
    env.compute("b", resources={"GPU": 1}, priority=5)
    env.compute("c", resources={"GPU": 1}, priority=2)
    env.compute("d", priority=9)
    assert list(env.executing) == ["a", "d"]
    assert env.state("b") == "constrained"
    env.finish("a")
    assert list(env.executing) == ["d", "c"]
    env.fail("c")
    assert list(env.executing) == ["d", "b"]


def test_a_dropped_task_frees_its_resources_when_it_ends(make_env):
    env = make_env({"GPU": 1.0})
    env.compute("a", resources={"GPU": 1})
    env.start("a")
    env.compute("b", resources={"GPU": 1})
    env.drop("a")
    assert list(env.executing) == ["a"]
    env.finish("a")
    assert list(env.executing) == ["b"]


def test_a_constrained_task_is_given_back_at_once(make_env):
    env = make_env({"GPU": 1.0})
    env.compute("a", resources={"GPU": 1})
    env.compute("b", resources={"GPU": 1})
    env.take_back("b")
    assert env.said() == [("given back", "b", 1)]
    env.finish("a")
    assert not env.executing


def test_paused_nothing_starts_until_resumed(env):
    env.pause()
    assert env.said() == [("status", "paused")]
    env.compute("b", priority=2)
    env.compute("a", priority=1)
    assert not env.executing
    env.pause(False)
    assert env.said() == [("status", "running")]
    assert list(env.executing) == ["a", "b"]


def test_a_result_that_the_store_refuses_is_a_failure(env):
    env.compute("a")
    del env.executing["a"]
    out = env.core.handle([done("a")], env.now)
    assert out.withdraw_finished(ord("a")) == (1, 1.0, 2.0)
    assert out.withdraw_finished(ord("a")) is None
    assert out.messages() == []
    env.hear(StoreFailed([TaskErred(ord("a"), 1, failure("disk full"), 1.0, 2.0)]))
    assert env.said() == [("erred", "a", 1, "disk full")]
    assert env.is_idle()


def test_a_value_that_the_store_lost_is_reported(env):
    env.compute("a")
    env.finish("a")
    env.said()
    env.store.clear()
    env.hear(DataLost([ord("a")]))
    assert env.said() == [("dropped", "a")]
    assert env.is_idle()


def test_buffers_reach_their_rows(env):
    first, second = env.compute_message("a"), env.compute_message("b")
    first.ids += second.ids
    first.keys += second.keys
    first.attempts += second.attempts
    first.functions += second.functions
    first.payloads += second.payloads
    first.priorities += second.priorities
    first.buffers = [(1, 2)]
    env.hear(BuffersCame([b"x", b"y"]), first)
    assert env.executing["a"].buffers is None
    assert env.executing["b"].buffers == [b"x", b"y"]


def test_columns_that_do_not_fit_change_nothing(env):
    message = env.compute_message("a")
    message.attempts = []
    with pytest.raises(PeerProtocolError, match="different lengths"):
        env.hear(message)
    message = env.compute_message("a", needs="x", at=[1])
    message.holders = None
    with pytest.raises(PeerProtocolError, match="dependency"):
        env.hear(message)
    message = env.compute_message("a")
    message.buffers = [(0, 1)]
    with pytest.raises(PeerProtocolError, match="buffers"):
        env.hear(message)
    assert env.is_idle()


def test_the_table_is_complete():
    assert set(LEGAL) == set(range(len(STATE_NAMES)))


def test_the_story_tells_what_happened(env):
    env.compute("a")
    env.finish("a")
    env.drop("a")
    steps = [(start, finish) for _, _, start, finish in env.core.story([ord("a")])]
    assert steps == [("new", "ready"), ("ready", "memory"), ("memory", "forgotten")]


def done(key):
    from treadle.messages.local import ExecutionsDone

    return ExecutionsDone([ord(key)], [1], [8], ["int"], [1.0], [2.0])


def failure(text):
    from treadle.messages.base import TaskError

    return TaskError(b"", b"", text, "")


def test_many_results_that_the_store_refuses_are_withdrawn_one_by_one(env):
    for name in "abcd":
        env.compute(name)
    ids = [ord(name) for name in "abcd"]
    done = ExecutionsDone(ids, [1, 2, 3, 4], [8] * 4, ["int"] * 4, [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0])
    out = env.core.handle([done], env.now)
    assert out.withdraw_finished(ord("b")) == (1, 2.0, 3.0)
    assert out.withdraw_finished(ord("d")) == (1, 4.0, 5.0)
    assert out.withdraw_finished(ord("b")) is None
    (finished,) = [message for message in out.messages() if isinstance(message, TasksFinished)]
    assert sorted(zip(finished.ids, finished.starts, strict=True)) == [(ord("a"), 1.0), (ord("c"), 3.0)]
