"""Frames on a byte stream: fixed header, lengths of the buffers, body, buffers. No I/O: bytes in, frames out.

Every length is checked against ``CommLimits`` before memory is taken for it. Layout, little-endian::

    u64 length of the body | u32 number of buffers | u64 length of each buffer ... | body | buffers ...
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from treadle.comm.interface import Buffer, CommLimits
from treadle.exceptions import PeerProtocolError

#: A body and the buffers beside it.
Frame: TypeAlias = tuple[Buffer, list[Buffer]]

_HEADER: Final = struct.Struct("<QI")
HEADER_BYTES: Final = _HEADER.size
#: Memory of this size or more is mapped as untouched pages: a ``bytearray`` would be zeroed first, in vain.
_MAPPED_BYTES: Final = 2**20
_PRIVATE: Final = getattr(mmap, "MAP_PRIVATE", None)
#: From this size on it is mapped in huge pages where the system has them: allocating 200 MB page by page costs as much as receiving it.
_HUGE_BYTES: Final = 2**23
_HUGE_PAGES: Final = getattr(mmap, "MADV_HUGEPAGE", None)


def byte_view(buffer: Buffer) -> Buffer:
    """The same memory as flat bytes. Raises ValueError for a buffer that is not C-contiguous."""
    if type(buffer) is bytes or type(buffer) is bytearray:
        return buffer
    view = memoryview(buffer)
    if view.ndim == 1 and view.format == "B" and view.contiguous:
        return view
    if not view.nbytes:
        return b""
    if not view.c_contiguous:
        raise ValueError("a buffer of a frame must be C-contiguous; copy it first")
    return view.cast("B")


def frame_pieces(body: Buffer, buffers: Sequence[Buffer], limits: CommLimits) -> tuple[list[Buffer], int]:
    """The pieces to write for a frame, in order, and their total length in bytes.

    Large memory is not copied. Raises ValueError when the frame is over a cap.
    """
    body = byte_view(body)
    size = len(body)
    if size > limits.max_body_bytes:
        raise ValueError(f"the body of a frame has {size} bytes, the limit is {limits.max_body_bytes}; send it in parts")
    if not buffers:
        return [_HEADER.pack(size, 0), body], HEADER_BYTES + size
    count = len(buffers)
    if count > limits.max_buffers:
        raise ValueError(f"a frame has {count} buffers, the limit is {limits.max_buffers}; send it in parts")
    views = [byte_view(buffer) for buffer in buffers]
    lengths = [len(view) for view in views]
    if max(lengths) > limits.max_buffer_bytes:
        raise ValueError(f"a buffer has {max(lengths)} bytes, the limit is {limits.max_buffer_bytes}; split it")
    head = _HEADER.pack(size, count) + struct.pack(f"<{count}Q", *lengths)
    pieces: list[Buffer] = [head, body]
    pieces += [view for view in views if len(view)]
    return pieces, len(head) + size + sum(lengths)


def allocate(size: int) -> Buffer:
    """Writable memory of ``size`` bytes; its content is undefined. Raises MemoryError."""
    if size >= _MAPPED_BYTES and _PRIVATE is not None:
        try:
            area = mmap.mmap(-1, size, flags=_PRIVATE)
            if size >= _HUGE_BYTES and _HUGE_PAGES is not None:
                with suppress(OSError):  # a kernel without huge pages
                    area.madvise(_HUGE_PAGES)
            return memoryview(area)
        except (OSError, OverflowError, ValueError):
            pass  # e.g. too many mappings: the allocator may still have room
    return bytearray(size)


class FrameReader:
    """Splits the incoming bytes into frames. Small frames are copied out of a staging area, many at a time; a part that has
    not arrived in full is received into memory of its own.

    For each read: put ``rest`` at the front of the staging area; read into ``target`` if there is one, and then into the
    staging area behind ``rest``; call ``received``. All readers of a thread may share one staging area: nothing stays in it
    between reads.
    """

    def __init__(self, limits: CommLimits) -> None:
        self._limits = limits
        #: The beginning of a header whose rest has not arrived; empty while a frame is under way.
        self._rest = b""
        #: Lengths of the parts of the current frame that are still to come, in reverse; [] between frames.
        self._lengths: list[int] = []
        self._parts: list[Buffer] = []
        #: The next part is the table of lengths.
        self._in_table = False
        self._part: Buffer | None = None
        self._view: memoryview | None = None
        self._filled = 0

    @property
    def target(self) -> memoryview | None:
        """Where the next bytes belong; None if they belong in the staging area."""
        return None if self._view is None else self._view[self._filled :]

    @property
    def rest(self) -> bytes:
        """Bytes to put at the front of the staging area before the next read; empty when there is a ``target``."""
        return self._rest

    @property
    def between_frames(self) -> bool:
        """Whether no frame is under way, so that the stream may end here."""
        return not (self._rest or self._lengths)

    def received(self, count: int, staging: bytearray, frames: list[Frame]) -> None:
        """Take ``count`` new bytes from the target and the staging area; append all complete frames to ``frames``.

        Raises PeerProtocolError for a frame over a cap (the frames before it are in ``frames``), and MemoryError.
        """
        if self._view is None:
            end = len(self._rest) + count
            self._rest = b""
            self._take(staging, end, frames)
            return
        missing = len(self._view) - self._filled
        if count < missing:
            self._filled += count
            return
        part = self._part
        assert part is not None
        self._view = self._part = None
        self._finish_part(part, frames)
        self._take(staging, count - missing, frames)  # even when nothing is left: empty parts may follow

    def _take(self, staging: bytearray, end: int, frames: list[Frame]) -> None:
        start = 0
        limits = self._limits
        while True:
            if not self._lengths:
                if end - start < HEADER_BYTES:
                    self._rest = bytes(staging[start:end])
                    return
                size, count = _HEADER.unpack_from(staging, start)
                if size > limits.max_body_bytes:
                    raise PeerProtocolError(f"a frame with a body of {size} bytes arrived, the limit is {limits.max_body_bytes}")
                start += HEADER_BYTES
                if not count and start + size <= end:
                    frames.append((staging[start : start + size], []))
                    start += size
                    continue
                self._begin(size, count)
            length = self._lengths[-1]
            if start + length > end:
                self._receive_directly(length, staging, start, end)
                return
            self._finish_part(staging[start : start + length], frames)
            start += length

    def _begin(self, size: int, count: int) -> None:
        if count > self._limits.max_buffers:
            raise PeerProtocolError(f"a frame with {count} buffers arrived, the limit is {self._limits.max_buffers}")
        self._lengths.append(size)
        self._in_table = count > 0
        if count:
            self._lengths.append(8 * count)

    def _receive_directly(self, length: int, staging: bytearray, start: int, end: int) -> None:
        """Allocate memory for the part whose bytes so far end at ``end``, and receive its rest there."""
        part = allocate(length)
        view = memoryview(part)
        view[: end - start] = memoryview(staging)[start:end]
        self._part, self._view, self._filled = part, view, end - start

    def _finish_part(self, part: Buffer, frames: list[Frame]) -> None:
        self._lengths.pop()
        if self._in_table:
            self._in_table = False
            lengths = struct.unpack(f"<{len(part) // 8}Q", part)
            if max(lengths) > self._limits.max_buffer_bytes:
                raise PeerProtocolError(f"a buffer of {max(lengths)} bytes arrived, the limit is {self._limits.max_buffer_bytes}")
            body = self._lengths.pop()
            self._lengths.extend(reversed(lengths))
            self._lengths.append(body)
            return
        self._parts.append(part)
        if not self._lengths:
            frames.append((self._parts[0], self._parts[1:]))
            self._parts = []
