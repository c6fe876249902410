"""What a worker says it has when it comes back to a scheduler, and how it takes the answer."""

from treadle.messages.worker_scheduler import DropKeys, KeysRenumbered, WorkerPeersGone


def letters(ids):
    return "".join(map(chr, ids))


def inventory(env):
    return env.core.inventory(env.now)


def test_nothing(env):
    found = inventory(env)
    assert not (found.ids or found.assigned or found.fetching or found.erred or found.fresh or found.peers)
    assert found.status == "running"


def test_values_and_assignments_in_every_state(make_env):
    env = make_env(resources={"slot": 1})
    env.meet(1)
    env.compute("a")
    env.finish("a", value="x")
    env.compute("b", attempt=3)
    env.start("b")
    env.compute("c", attempt=4)
    env.secede("c")
    env.compute("d", attempt=5)
    env.compute("e", attempt=6, needs="n", at=[1])
    env.replicate("r", at=[1])
    found = inventory(env)
    assert (letters(found.ids), found.keys, found.nbytes) == ("a", ["a"], [8])
    assert [found.type_names[number] for number in found.types] == ["int"]
    rows = dict(zip(letters(found.assigned), zip(found.attempts, found.stages, strict=True), strict=True))
    assert rows == {"b": (3, 1), "c": (4, 2), "d": (5, 0), "e": (6, 0)}
    assert found.assigned_keys == list(letters(found.assigned))
    assert sorted(letters(found.fetching)) == ["n", "r"]
    assert found.peers == [1]


def test_what_is_missing_is_waited_for(env):
    env.meet(1)
    env.compute("e", needs="n", at=[1])
    env.arrive(1, missing="n")
    assert env.state("n") == "missing"
    assert letters(inventory(env).fetching) == "n"


def test_what_was_given_up_is_not_an_assignment(env):
    env.compute("a")
    env.start("a")
    env.drop("a")
    assert env.state("a") == "cancelled"
    assert inventory(env).assigned == []


def test_failures_are_remembered_for_a_while(env):
    env.compute("a", attempt=7)
    env.fail("a", "boom")
    (row,) = inventory(env).erred
    assert (chr(row.id), row.attempt, row.error.exception_text) == ("a", 7, "boom")
    env.now += 61
    assert inventory(env).erred == []


def test_not_too_many_failures_are_remembered(env):
    for attempt in range(1000):
        env.compute("a", attempt=attempt)
        env.fail("a")
    rows = inventory(env).erred
    assert len(rows) <= 200
    assert rows[-1].attempt == 999


def test_values_that_clients_put_are_fresh_for_a_while(env):
    env.put("a")
    assert letters(inventory(env).fresh) == "a"
    env.now += 61
    env.put("b")
    assert letters(inventory(env).fresh) == "b"
    assert list(env.core.state.recent_puts) == [ord("b")]


def test_a_pause_is_said(env):
    env.pause()
    assert inventory(env).status == "paused"


def test_the_same_peer_again(env):
    env.meet(1)
    env.compute("e", needs="n", at=[1])
    peer = env.core.state.peers[1]
    env.meet(1)
    assert env.core.state.peers[1] is peer and peer.flying
    env.arrive(1, got="n")
    assert env.state("e") == "ready"


def test_a_value_gets_another_id(env):
    env.compute("a")
    env.finish("a", value="x")
    env.said()
    env.hear(KeysRenumbered([ord("a")], [ord("z")]))
    assert env.core.stored_key(ord("a")) is None
    assert env.core.stored_key(ord("z"))[0] == "a"
    env.compute("b", needs="z", at=[])
    assert env.state("b") == "ready"
    env.finish("b")
    env.hear(DropKeys([ord("z"), ord("b")]))
    assert not env.store and not env.core.state.tasks


def test_another_id_of_what_is_not_here(env):
    env.compute("a")
    env.hear(KeysRenumbered([ord("a"), ord("q")], [ord("z"), ord("y")]))
    assert env.state("a") == "ready" and env.state("z") is None


def test_to_another_scheduler_nothing_of_the_old_one_matters(env):
    """As one that does not know the worker answers: everything is dropped, then the peers are gone."""
    env.meet(1, 2)
    env.compute("a")
    env.finish("a")
    env.compute("e", needs="n", at=[1, 2])
    env.said()
    found = inventory(env)
    env.hear(DropKeys([*found.ids, *found.assigned, *found.fetching]), WorkerPeersGone(found.peers))
    assert env.said() == []
    for peer in list(env.requests):
        env.unreachable(peer)
    assert env.is_idle()
