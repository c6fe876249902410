"""Small values that ride along with the news that they are there."""

import pytest

from treadle.messages.client_scheduler import KeysInMemory
from treadle.messages.worker_scheduler import ComputeTasks
from treadle.testing.scheduler_scene import SchedulerScene


@pytest.fixture
def env():
    env = SchedulerScene()
    env.client("c")
    env.worker("w", nthreads=4)
    env.sent("w")
    env.sent("c")
    return env


def told(env, name):
    return [(message.ids, message.values) for message in env.messages(name) if type(message) is KeysInMemory]


def eager_keys(env):
    found = [message for message in env.messages("w") if type(message) is ComputeTasks]
    return [message.keys[row] for message in found for row in message.eager or ()]


def test_only_wanted_rows_of_eager_submissions_are_asked_for(env):
    env.submit("a -> b; a -> c", wanted=["b", "c"], eager=True)
    env.submit("d -> e")
    assert eager_keys(env) == []
    env.finish("a", on="w")
    env.finish("d", on="w")
    assert eager_keys(env) == ["b", "c"]


def test_values_are_passed_on_and_not_kept(env):
    env.submit("a; b; c", eager=True)
    env.sent("w")
    env.finish("a", "b", "c", on="w", values=[b"", b"two", b""])
    a, b, c = [env.task_id(key) for key in "abc"]
    assert told(env, "c") == [([a, b, c], [b"", b"two", b""])]
    env.client("d")
    env.attach("b", client="d")
    assert told(env, "d") == [([b], None)]


def test_all_who_want_a_key_get_its_value(env):
    env.client("d")
    env.submit("a", eager=True)
    env.attach("a", client="d")
    env.sent("w")
    env.finish("a", on="w", values=[b"one"])
    assert told(env, "c") == told(env, "d") == [([env.task_id("a")], [b"one"])]


def test_values_of_other_types_are_other_news(env):
    env.submit("a; b; c", eager=True)
    env.sent("w")
    env.finish("a", on="w", values=[b"one"])
    env.finish("b", on="w", type="str", values=[b"two"])
    env.finish("c", on="w", type="str")
    a, b, c = [env.task_id(key) for key in "abc"]
    assert told(env, "c") == [([a], [b"one"]), ([b], [b"two"]), ([c], None)]


def test_a_column_of_another_length_is_refused(env):
    env.submit("a", eager=True)
    env.sent("w")
    env.finish("a", on="w", values=[])
    assert env.state("a") != "memory"
