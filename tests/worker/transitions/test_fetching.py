"""Scenes of values that are needed here and are elsewhere."""

from treadle.messages.worker_scheduler import WorkerWelcome


def test_a_task_waits_for_its_values_then_runs(env):
    env.meet(1, 2)
    env.compute("t", needs="ab", at={"a": [1], "b": [2]})
    assert env.requests == {1: ["a"], 2: ["b"]}
    assert not env.executing
    env.arrive(1, got="a")
    assert env.said() == [("added", "a")]
    env.arrive(2, got="b")
    assert env.executing["t"].dependencies == ["a", "b"]
    env.finish("t")
    assert env.said() == [("added", "b"), ("finished", "t", 1)]
    assert set(env.store) == {"a", "b", "t"}, "fetched values stay until the scheduler drops them"


def test_values_that_are_here_are_not_fetched(env):
    env.compute("a")
    env.finish("a")
    env.compute("t", needs="a", at=[9])
    assert "t" in env.executing
    assert not env.requests


def test_several_values_of_one_peer_in_one_request_bounded_in_bytes(make_env):
    env = make_env(max_request_bytes=25)
    env.meet(1)
    env.compute("t", needs="abc", at=[1])
    assert env.requests == {1: ["a", "b"]}
    env.arrive(1, got="ab")
    assert env.requests == {1: ["c"]}


def test_a_value_over_the_bound_goes_alone(make_env):
    env = make_env(max_request_bytes=5)
    env.meet(1)
    env.compute("t", needs="ab", at=[1])
    assert env.requests == {1: ["a"]}


def test_requests_under_way_have_a_budget(make_env):
    env = make_env(fetch_budget_bytes=35)
    env.meet(1, 2, 3)
    env.compute("t", needs="abcd", at={"a": [1], "b": [1], "c": [2], "d": [3]})
    assert env.requests == {1: ["a", "b"], 2: ["c"]}
    env.arrive(2, got="c")
    assert env.requests == {1: ["a", "b"], 3: ["d"]}
    assert env.core.statistics().fetching_bytes == 30
    env.arrive(1, got="ab")
    env.arrive(3, got="d")
    assert env.core.statistics().fetching_bytes == 0 and "t" in env.executing


def test_what_does_not_come_gives_its_share_of_the_budget_back(make_env):
    env = make_env(fetch_budget_bytes=10)
    env.meet(1, 2)
    env.compute("t", needs="ab", at={"a": [1], "b": [2]})
    assert env.requests == {1: ["a"]}
    env.busy(1)
    assert env.requests == {2: ["b"]}


def test_a_value_over_the_budget_goes_alone_and_is_not_overtaken_for_ever(make_env):
    env = make_env(fetch_budget_bytes=25)
    env.meet(1, 2, 3)
    env.compute("r", needs="a", at=[1], priority=1)
    env.compute("s", needs="b", at=[2], priority=2, nbytes=1000)
    env.compute("t", needs="c", at=[3], priority=3)
    assert env.requests == {1: ["a"]}
    env.arrive(1, got="a")
    assert env.requests == {2: ["b"]}
    env.arrive(2, got="b")
    assert env.requests == {3: ["c"]}


def test_connections_are_bounded_and_the_neediest_goes_first(make_env):
    env = make_env(max_outgoing=1)
    env.meet(1, 2, 3)
    env.compute("s", needs="a", at=[1], priority=5)
    env.compute("t", needs="b", at=[2], priority=4)
    env.compute("u", needs="c", at=[3], priority=1)
    assert env.requests == {1: ["a"]}
    env.arrive(1, got="a")
    assert env.requests == {3: ["c"]}
    env.arrive(3, got="c")
    assert env.requests == {2: ["b"]}


def test_a_more_urgent_task_makes_its_value_more_urgent(make_env):
    env = make_env(max_outgoing=1)
    env.meet(1, 2)
    env.compute("s", needs="a", at=[1], priority=1)
    env.compute("t", needs="b", at=[2], priority=5)
    env.compute("u", needs="c", at=[2], priority=4)
    env.compute("v", needs="b", at=[2], priority=2)
    env.arrive(1, got="a")
    assert env.requests == {2: ["b", "c"]}


def test_a_peer_on_the_same_host_is_preferred(env):
    env.meet(1, 2, 3)
    env.meet(4, host="here")
    env.compute("t", needs="a", at=[1, 2, 3, 4])
    assert env.requests == {4: ["a"]}


def test_load_is_spread_over_the_holders(env):
    env.meet(1, 2)
    first = set()
    for name in "abcd":
        env.compute(name.upper(), needs=name, at=[1, 2])
        [(peer, _)] = env.requests.items()
        first.add(peer)
        env.arrive(peer, got=name)
    assert first == {1, 2}


def test_another_holder_is_tried_and_the_scheduler_asked_in_the_end(env):
    env.meet(1, 2)
    env.compute("t", needs="a", at=[1, 2])
    [first] = env.requests
    env.unreachable(first)
    [second] = env.requests
    assert {first, second} == {1, 2}
    assert env.said() == []
    env.arrive(second, missing="a")
    assert env.said() == [("missing", "a", first), ("missing", "a", second)]
    assert env.state("a") == "missing"
    env.meet(3)
    env.holders_changed("a", [3])
    env.arrive(3, got="a")
    assert "t" in env.executing


def test_no_holders_named_is_no_news(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    env.unreachable(1)
    env.said()
    env.holders_changed("a", [])
    assert env.said() == []
    assert env.state("a") == "missing"


def test_a_peer_that_fails_again_and_again_is_asked_less_and_less_often(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    waits = []
    for _ in range(12):
        env.unreachable(1)
        assert env.said() == [("missing", "a", 1)]
        env.holders_changed("a", [1])
        assert not env.requests, "not at once"
        waits.append(env.wake_at - env.now)
        env.wait_until_wanted()
        assert env.requests == {1: ["a"]}
    assert waits == sorted(waits)
    assert waits[0] < 0.1 and 1 < waits[-1] < 10


def test_a_peer_that_never_has_what_it_is_said_to_have_is_not_asked_in_a_spin(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    env.arrive(1, missing="a")
    env.holders_changed("a", [1])
    env.arrive(1, missing="a")
    env.holders_changed("a", [1])
    assert not env.requests
    env.wait_until_wanted()
    assert env.requests == {1: ["a"]}


def test_a_busy_peer_is_left_alone_for_a_while_and_others_are_asked(env):
    env.meet(1, 2)
    env.compute("t", needs="a", at=[1])
    env.compute("u", needs="b", at=[1])
    env.busy(1)
    env.holders_changed("b", [1, 2])
    assert env.requests == {2: ["b"]}
    assert env.said() == []
    env.wait_until_wanted()
    assert env.requests == {1: ["a"], 2: ["b"]}


def test_what_an_answer_leaves_out_is_asked_for_again(env):
    env.meet(1)
    env.compute("t", needs="ab", at=[1])
    env.arrive(1, got="a")
    assert env.requests == {1: ["b"]}


def test_a_value_that_cannot_be_had_fails_the_tasks_that_need_it_once(env):
    env.meet(1, 2)
    env.compute("t", needs="a", at=[1])
    env.compute("u", needs="ab", at={"a": [1], "b": [2]})
    env.arrive(1, failed="a")
    assert env.said() == [("erred", "t", 1, "no a"), ("erred", "u", 1, "no a")]
    assert env.state("a") is None
    env.arrive(2, got="b")
    assert env.is_idle(), "nobody needs b any more"


def test_holders_that_left_are_not_asked(env):
    env.meet(1, 2)
    env.compute("s", needs="x", at=[1])
    env.compute("t", needs="a", at=[1])
    env.gone(1)
    assert env.said() == [("missing", "a", 1)]
    env.unreachable(1)
    assert env.said() == [("missing", "x", 1)]
    env.holders_changed("a", [2])
    assert env.requests == {2: ["a"]}


def test_this_worker_named_as_holder_of_what_it_does_not_have_says_so(env):
    env.compute("t", needs="a", at=[9])
    assert env.said() == [("dropped", "a"), ("missing", "a", 9)]


def test_a_dropped_task_stops_the_fetching_for_it(make_env):
    env = make_env(max_outgoing=1)
    env.meet(1, 2)
    env.compute("t", needs="ab", at={"a": [1], "b": [2]})
    [peer] = env.requests
    env.drop("t")
    env.arrive(peer, got=env.requests[peer][0])
    assert env.is_idle()


def test_a_value_dropped_in_flight_is_discarded(env):
    env.meet(1)
    env.replicate("a", at=[1])
    env.drop("a")
    env.arrive(1, got="a")
    assert env.is_idle()


def test_a_value_dropped_in_flight_and_needed_again_is_used(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    env.drop("t")
    assert env.state("a") == "cancelled"
    env.compute("u", needs="a", at=[1])
    env.arrive(1, got="a")
    assert "u" in env.executing


def test_a_dropped_value_that_a_task_still_needs_is_asked_for(env):
    env.compute("a")
    env.finish("a")
    env.meet(1)
    env.compute("t", needs="ab", at={"a": [9], "b": [1]})
    env.said()
    env.drop("a")
    assert env.said() == [("dropped", "a"), ("missing", "a", 9)]
    env.arrive(1, got="b")
    assert not env.executing
    env.holders_changed("a", [1])
    env.arrive(1, got="a")
    assert "t" in env.executing


def test_a_value_and_the_task_that_needs_it_dropped_together(env):
    env.compute("a")
    env.finish("a")
    env.meet(1)
    env.compute("t", needs="ab", at={"a": [9], "b": [1]})
    env.said()
    env.drop("at")
    assert env.said() == []
    env.arrive(1, got="b")
    assert env.is_idle()


def test_an_execution_that_found_its_value_gone_waits_for_it(env):
    env.compute("a")
    env.finish("a")
    env.compute("t", needs="a", at=[9])
    env.drop("a")
    env.unready("t")
    assert env.state("t") == "waiting"
    env.put("a")
    assert "t" in env.executing


def test_copies_are_fetched_kept_and_reported(env):
    env.meet(1)
    env.replicate("a", at=[1])
    env.arrive(1, got="a")
    assert env.said() == [("added", "a")]
    env.replicate("a", at=[1])
    assert env.said() == [("added", "a")]
    env.drop("a")
    # It was said twice to be here: the scheduler may hear the second time after the drop.
    assert env.said() == [("dropped", "a")]
    assert env.is_idle()


def test_a_copy_that_nobody_has_is_forgotten_when_dropped(env):
    env.meet(1)
    env.replicate("a", at=[1])
    env.arrive(1, missing="a")
    assert env.said() == [("missing", "a", 1)]
    env.drop("a")
    assert env.is_idle()


def test_values_handed_over_wake_those_who_wait(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    env.put("a", value=5)
    assert env.store == {"a": 5}
    assert "t" in env.executing
    env.arrive(1, got="a")
    assert env.store == {"a": 5}


def test_a_value_to_fetch_that_is_to_be_computed_here_instead(env):
    env.meet(1)
    env.compute("t", needs="a", at=[1])
    env.unreachable(1)
    env.said()
    env.compute("a", attempt=4)
    assert "a" in env.executing
    env.finish("a")
    assert env.said() == [("finished", "a", 4)]
    assert "t" in env.executing


def test_the_same_key_under_a_new_id_in_one_turn(env):
    from treadle.messages.local import DataPut
    from treadle.messages.worker_scheduler import DropKeys

    env.put("a", value="old")
    env.hear(DropKeys([ord("a")]), DataPut([1000], ["a"], ["new"], [8], ["str"]))
    assert env.store == {"a": "new"}


def test_a_value_that_comes_and_goes_in_one_turn(env):
    from treadle.messages.local import FetchDone
    from treadle.messages.worker_scheduler import DropKeys

    env.meet(1)
    env.replicate("a", at=[1])
    asked = [ord(key) for key in env.requests.pop(1)]
    env.hear(FetchDone(1, asked, asked, [1], [8], ["int"], [], []), DropKeys(asked))
    assert env.is_idle()


def test_a_worker_that_is_welcomed_again_does_not_go_on_to_want_copies(env):
    env.meet(1)
    env.replicate("a", at=[1])
    env.compute("t", needs="a", at=[1])
    env.replicate("b", at=[1])
    env.hear(WorkerWelcome(7, "the scheduler", True))
    assert env.state("b") is None
    assert env.state("a") == "flight"
    # With the task that needs it, nobody wants it.
    env.drop("t")
    env.arrive(1, got="a")
    assert env.said() == []
    assert env.is_idle()
