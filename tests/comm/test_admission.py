"""Who may be in its handshake, and who makes room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.comm.admission import Admission, host_of


def test_who_comes_from_elsewhere_is_given_a_place_of_the_host_with_most() -> None:
    admission = Admission(3, patience_s=1.0)
    other, _ = admission.enter("10.0.0.2", 0.0)
    first, _ = admission.enter("10.0.0.1", 0.0)
    second, _ = admission.enter("10.0.0.1", 0.0)
    assert first is not None
    admission.has_spoken(first)
    new, evicted = admission.enter("10.0.0.3", 0.0)
    assert new is not None and evicted is second, "the one that is silent goes, though it is younger"
    # Each host has one now: nobody goes at once.
    assert admission.enter("10.0.0.4", 0.9) == (None, None)
    new, evicted = admission.enter("10.0.0.4", 1.0)
    assert new is not None and evicted is other
    assert (admission.evicted, admission.refused, len(admission)) == (2, 1, 3)


def test_a_host_waits_for_its_own_until_they_have_had_their_time() -> None:
    admission = Admission(2, patience_s=1.0)
    admission.enter("10.0.0.1", 0.0)
    admission.enter("10.0.0.1", 0.5)
    assert admission.enter("10.0.0.1", 0.9) == (None, None)
    new, evicted = admission.enter("10.0.0.1", 1.0)
    assert new is not None and evicted is not None and evicted.began_s == 0.0


def test_places_are_given_back() -> None:
    admission = Admission(1, patience_s=1.0)
    for _ in range(3):
        place, evicted = admission.enter("10.0.0.1", 0.0)
        assert place is not None and evicted is None
        admission.has_spoken(place)
        admission.leave(place)
        admission.leave(place)
        admission.has_spoken(place)
    assert len(admission) == 0 and admission.first_to_go() is None


def test_no_places_at_all() -> None:
    assert Admission(0, patience_s=1.0).enter("10.0.0.1", 0.0) == (None, None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_there_are_never_too_many_and_all_are_counted(steps: list[tuple[str, int, int]]) -> None:
    admission = Admission(4, patience_s=2.0)
    here = []
    for now, (host, what, which) in enumerate(steps):
        if what < 2:
            place, evicted = admission.enter(host, float(now))
            if evicted is not None:
                here.remove(evicted)
            if place is not None:
                here.append(place)
            assert place is not None or len(here) == 4
        elif here and what == 2:
            admission.leave(here.pop(which % len(here)))
        elif here:
            admission.has_spoken(here[which % len(here)])
        assert len(admission) == len(here) <= 4
        first = admission.first_to_go()
        assert (first is None) == (not here) and (first is None or first in here)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("something else", "something else"),
    ],
)
def test_whose_address_it_is(address: str, host: str) -> None:
    assert host_of(address) == host
