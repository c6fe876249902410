"""Scenes of a client's bookkeeping, without I/O."""

import pytest

from treadle.client.session.ledger import CANCELLED, ERROR, FINISHED, LOST, PENDING, Ledger, Waiter
from treadle.messages.base import TaskError
from treadle.messages.client_scheduler import KeysAliased, KeysCancelled, KeysErred, KeysInMemory, KeysLost, KeysPending

ERR = TaskError(b"", b"", "ValueError('x')", "")


class Env:
    def __init__(self):
        self.ledger = Ledger()
        self.ledger.set_number(3)
        self.wake = []

    def add(self, *keys):
        return [self.ledger.add(key, id) for key, id in zip(keys, self.ledger.new_ids(len(keys)), strict=True)]

    def hear(self, message):
        self.wake = []
        self.ledger.handle(message, self.wake)


@pytest.fixture
def env():
    return Env()


def test_ids_carry_the_clients_number_and_are_never_given_twice(env):
    assert list(env.ledger.new_ids(2)) == [(3 << 32) + 1, (3 << 32) + 2]
    assert list(env.ledger.new_ids(1)) == [(3 << 32) + 3]


def test_a_key_finishes_and_its_waiter_wakes_once(env):
    a, b = env.add("a", "b")
    waiter = Waiter(lambda: None)
    assert env.ledger.attach([a, b, a], waiter) == 3
    env.hear(KeysInMemory(7, "int", [a.id]))
    assert (a.status, a.worker, a.type) == (FINISHED, 7, "int")
    assert env.wake == []
    env.hear(KeysInMemory(8, "int", [b.id]))
    assert env.wake == [waiter]


def test_fail_fast_wakes_at_the_first_failure(env):
    a, b = env.add("a", "b")
    patient, hasty = Waiter(lambda: None), Waiter(lambda: None, fail_fast=True)
    env.ledger.attach([a, b], patient)
    env.ledger.attach([a, b], hasty)
    env.hear(KeysErred([a.id], ERR, ["x", 1]))
    assert env.wake == [hasty]
    assert a.status is ERROR
    assert a.failure.blame == ("x", 1)
    env.hear(KeysInMemory(1, "int", [b.id]))
    assert env.wake == [patient]


def test_a_collecting_waiter_hears_of_each(env):
    a, b = env.add("a", "b")
    waiter = Waiter(lambda: None, collect=True)
    env.ledger.attach([a, b], waiter)
    env.hear(KeysInMemory(1, "int", [b.id]))
    assert env.wake == [waiter]
    assert waiter.settled == [b]
    waiter.woken = False
    env.hear(KeysLost([a.id]))
    assert env.wake == [waiter]
    assert waiter.settled == [b, a]
    assert a.status is LOST


def test_who_waits_no_more_is_dropped(env):
    (a,) = env.add("a")
    for _ in range(5):
        waiter = Waiter(lambda: None)
        env.ledger.attach([a], waiter)
        waiter.active = False
    last = Waiter(lambda: None)
    env.ledger.attach([a], last)
    env.hear(KeysInMemory(1, "int", [a.id]))
    assert env.wake == [last]


def test_release_at_the_last_reference(env):
    a, b = env.add("a", "b")
    a_id = a.id
    a.refcount += 1
    assert env.ledger.release([a]) == []
    assert env.ledger.release([a]) == [a_id]
    assert "a" not in env.ledger.states
    assert list(env.ledger.by_id.values()) == [b]
    env.hear(KeysInMemory(1, "int", [a_id]))
    assert a.status is PENDING
    assert env.ledger.release([a]) == []


def test_another_id_is_used_once_told(env):
    (a,) = env.add("a")
    env.hear(KeysAliased([a.id], [(1 << 32) + 9]))
    env.hear(KeysInMemory(2, "str", [(1 << 32) + 9]))
    assert a.status is FINISHED
    assert env.ledger.release([a]) == [(1 << 32) + 9]
    assert not env.ledger.by_id


def test_finished_keys_may_become_pending_again(env):
    (a,) = env.add("a")
    env.hear(KeysInMemory(2, "str", [a.id]))
    env.hear(KeysPending([a.id]))
    assert (a.status, a.worker) == (PENDING, 0)


def test_cancelled_keys_are_dead(env):
    (a,) = env.add("a")
    waiter = Waiter(lambda: None)
    env.ledger.attach([a], waiter)
    env.hear(KeysCancelled([a.id, 12345], "because", "why"))
    assert env.wake == [waiter]
    assert a.status is CANCELLED
    assert (a.detail.reason, a.detail.msg, a.id) == ("because", "why", 0)
    assert env.ledger.release([a]) == []
    (again,) = env.add("a")
    assert env.ledger.states["a"] is again


def test_retry_makes_erred_keys_pending(env):
    a, b = env.add("a", "b")
    env.hear(KeysErred([a.id], ERR, "a"))
    assert env.ledger.retry([a, b]) == [a.id]
    assert a.status is PENDING
    assert a.failure is None


def test_all_are_cancelled_when_the_scheduler_goes(env):
    a, b = env.add("a", "b")
    waiter = Waiter(lambda: None)
    env.ledger.attach([a, b], waiter)
    wake = []
    env.ledger.cancel_all("scheduler-connection-lost", wake)
    assert wake == [waiter]
    assert {a.status, b.status} == {CANCELLED}
    assert not env.ledger.states


def test_ids_given_before_the_number_is_known_are_raised():
    ledger = Ledger()
    (id,) = ledger.new_ids(1)
    state = ledger.add("a", id)
    assert ledger.set_number(3) == 3 << 32
    assert state.id == (3 << 32) + 1
    assert ledger.by_id == {state.id: state}
    assert list(ledger.new_ids(1)) == [(3 << 32) + 2]


def test_small_values_come_along(env):
    a, b = env.add("a", "b")
    env.hear(KeysInMemory(7, "int", [a.id, b.id], [b"one", b""]))
    assert (a.value, b.value) == (b"one", None)
    env.hear(KeysPending([a.id]))
    assert (a.status, a.value) == (PENDING, None)
    env.hear(KeysInMemory(8, "int", [a.id]))
    assert (a.status, a.value) == (FINISHED, None)


def test_what_is_lost_stays_lost_and_knows_why(env):
    a, b = env.add("a", "b")
    waiter = Waiter(lambda: None, collect=True)
    env.ledger.attach([a, b], waiter)
    env.hear(KeysLost([a.id]))
    waiter.woken = False
    env.hear(KeysErred([a.id, b.id], ERR, "a"))
    assert (a.status, b.status) == (LOST, ERROR)
    assert a.failure is b.failure
    assert waiter.settled == [a, b], "each once"
    # Somebody scatters it anew.
    env.hear(KeysInMemory(7, "int", [a.id]))
    assert (a.status, a.failure) == (FINISHED, None)


def test_at_another_scheduler_a_key_has_its_own_id_again(env):
    """What the one before called it may stand for something else there, or for nothing."""
    a, b = env.add("a", "b")
    own, theirs = a.id, (1 << 32) + 9
    env.hear(KeysAliased([own], [theirs]))
    env.ledger.take_own_ids()
    assert a.id == own and env.ledger.by_id == {own: a, b.id: b}
    env.hear(KeysCancelled([theirs], "the user's reason", None))
    assert a.status is PENDING
    env.hear(KeysAliased([own], [theirs]))
    assert env.ledger.release([a]) == [theirs]
    env.ledger.take_own_ids()
    assert env.ledger.by_id == {b.id: b}


def test_a_client_speaks_of_a_key_by_its_own_id_and_hears_of_it_by_either(env):
    a, b = env.add("a", "b")
    own, theirs = a.id, (1 << 32) + 9
    env.hear(KeysAliased([own], [theirs]))
    assert [env.ledger.own_id(state) for state in (a, b)] == [own, b.id]
    # The scheduler has forgotten the other name when it says so.
    env.hear(KeysCancelled([own, own + 1000], "already forgotten", None))
    assert a.status is CANCELLED and b.status is PENDING
