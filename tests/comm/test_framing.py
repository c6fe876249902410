"""Frames survive any way of cutting the stream; nothing over a cap is taken; garbage does no harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.comm.framing import Frame, FrameReader, allocate, frame_pieces
from treadle.comm.interface import CommLimits
from treadle.exceptions import PeerProtocolError

LIMITS = CommLimits()
TINY = CommLimits(max_body_bytes=100, max_buffer_bytes=200, max_buffers=3)


def to_bytes(body: bytes, buffers: list[bytes], limits: CommLimits = LIMITS) -> bytes:
    pieces, size = frame_pieces(body, buffers, limits)
    data = b"".join(pieces)
    assert len(data) == size
    return data


def read(stream: bytes, cuts: list[int], staging_bytes: int, limits: CommLimits = LIMITS) -> tuple[list[Frame], FrameReader]:
    """What a reader makes of a stream that arrives in pieces of these sizes, over and over."""
    reader, frames = FrameReader(limits), []
    staging = bytearray(staging_bytes)
    position = turn = 0
    while position < len(stream):
        want = min(cuts[turn % len(cuts)], len(stream) - position)
        turn += 1
        target = reader.target
        count = 0
        if target is not None:
            count = min(want, len(target))
            target[:count] = stream[position : position + count]
            more = min(want - count, len(staging))
            staging[:more] = stream[position + count : position + count + more]
            count += more
        else:
            rest = reader.rest
            staging[: len(rest)] = rest
            count = min(want, len(staging) - len(rest))
            staging[len(rest) : len(rest) + count] = stream[position : position + count]
        position += count
        reader.received(count, staging, frames)
    return frames, reader


def plain(frames: list[Frame]) -> list[tuple[bytes, list[bytes]]]:
    return [(bytes(body), [bytes(buffer) for buffer in buffers]) for body, buffers in frames]


frames_strategy = st.lists(st.tuples(st.binary(max_size=80), st.lists(st.binary(max_size=60), max_size=4)), max_size=8)


@settings(deadline=None)
@given(frames=frames_strategy, cuts=st.lists(st.integers(1, 70), min_size=1, max_size=6), staging_bytes=st.integers(16, 200))
def test_frames_arrive_whole_and_in_order_however_the_stream_is_cut(frames, cuts, staging_bytes) -> None:
    stream = b"".join(to_bytes(body, buffers) for body, buffers in frames)
    got, reader = read(stream, cuts, staging_bytes)
    assert plain(got) == frames
    assert reader.between_frames


@settings(deadline=None)
@given(body=st.binary(max_size=40), buffers=st.lists(st.binary(max_size=30), max_size=3), missing=st.integers(1, 200))
def test_a_stream_that_ends_in_a_frame_is_noticed(body, buffers, missing) -> None:
    stream = to_bytes(body, buffers)
    stream = stream[: max(0, len(stream) - missing)]
    frames, reader = read(stream, [1000], 4096)
    assert frames == []
    assert reader.between_frames == (not stream)


@settings(deadline=None, max_examples=300)
@given(garbage=st.binary(max_size=300), cuts=st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_garbage_raises_a_protocol_error_or_nothing(garbage, cuts) -> None:
    try:
        frames, _ = read(garbage, cuts, 64, TINY)
    except PeerProtocolError:
        return
    for body, buffers in frames:
        assert len(body) <= TINY.max_body_bytes
        assert len(buffers) <= TINY.max_buffers
        assert all(len(buffer) <= TINY.max_buffer_bytes for buffer in buffers)


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<QI", 101, 0),
        struct.pack("<QI", 2**63, 0),
        struct.pack("<QI", 5, 4),
        struct.pack("<QIQ", 5, 1, 201),
        struct.pack("<QIQQ", 5, 2, 0, 2**64 - 1),
    ],
)
def test_lengths_over_a_cap_are_refused_before_their_bytes_arrive(stream: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="limit"):
        read(stream, [1000], 4096, TINY)


def test_frames_before_a_bad_one_are_still_there() -> None:
    reader, frames = FrameReader(TINY), []
    staging = bytearray(to_bytes(b"good", []) + struct.pack("<QI", 101, 0))
    with pytest.raises(PeerProtocolError):
        reader.received(len(staging), staging, frames)
    assert plain(frames) == [(b"good", [])]


def test_a_frame_over_a_cap_is_not_sent() -> None:
    for body, buffers in [(b"x" * 101, []), (b"", [b"x" * 201]), (b"", [b""] * 4)]:
        with pytest.raises(ValueError, match="limit"):
            frame_pieces(body, buffers, TINY)


def test_large_memory_is_not_copied_on_the_way_out() -> None:
    buffer = bytearray(1000)
    pieces, _ = frame_pieces(b"body", [buffer], LIMITS)
    assert any(piece is buffer for piece in pieces)


def test_buffers_may_have_any_shape_but_must_be_contiguous() -> None:
    matrix = memoryview(bytearray(range(24))).cast("B", (4, 6))
    assert to_bytes(b"", [matrix]).endswith(bytes(range(24)))
    assert to_bytes(b"", [memoryview(bytearray(16)).cast("d")]).endswith(bytes(16))
    with pytest.raises(ValueError, match="contiguous"):
        frame_pieces(b"", [memoryview(b"abcdef")[::2]], LIMITS)


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20, 5_000_000])
def test_allocated_memory_is_writable_and_has_the_size(size: int) -> None:
    view = memoryview(allocate(size))
    assert (view.nbytes, view.readonly) == (size, False)


def test_memory_that_cannot_be_had_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        allocate(2**62)


def test_what_arrives_is_writable_and_its_own() -> None:
    stream = to_bytes(b"a", [b"x" * 10, b"y" * 3_000_000]) * 2
    frames, _ = read(stream, [64 * 1024], 64 * 1024)
    for _, buffers in frames:
        assert not any(memoryview(buffer).readonly for buffer in buffers)
    frames[0][1][0][0] = 0
    assert bytes(frames[1][1][0]) == b"x" * 10
