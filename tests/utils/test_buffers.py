"""Buffers that ride beside messages."""

from __future__ import annotations

from treadle.utils.buffers import Buffers, buffers_by_row


def test_they_are_taken_in_order() -> None:
    beside = Buffers([b"a", b"b", b"c"])
    assert beside.take(0) == []
    assert beside.take(2) == [b"a", b"b"]
    assert beside.left == 1
    assert beside.take(5) == [b"c"]
    assert beside.left == 0
    assert beside.take(1) == []


def test_by_row() -> None:
    assert buffers_by_row([(3, 2), (1, 0), (7, 1)], [b"a", b"b", b"c"]) == {3: [b"a", b"b"], 1: [], 7: [b"c"]}
    assert buffers_by_row(None, []) == {}
