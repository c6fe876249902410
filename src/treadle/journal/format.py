"""The bytes of a segment: a header that identifies the journal, then records, each with two checksums. No I/O.

Layout, little-endian::

    segment:  "TREADLEJ" | u32 version | u32 length | u32 CRC-32 of these | header in MessagePack | u32 CRC-32 of all before | record ...
    record:   u32 marker | u64 length | u64 synced | u32 number of buffers | u32 CRC-32 of the content | u32 CRC-32 of these | content
    content:  u64 length of each buffer ... | body | buffers ...

``marker`` is random for each segment, so that records behind damage can be found. ``synced`` is how many bytes of the
segment were known to be on disk when the record was written: damage before that place is no torn tail.
A snapshot ends with a record whose body is empty; no other record has an empty body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from treadle.exceptions import JournalError

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = b"TREADLEJ"
#: Grows when the layout, or the meaning of a record, changes.
VERSION: Final = 3
#: Body of the last record of a snapshot.
END: Final = b""

_START: Final = struct.Struct("<8sIII")
_CHECKSUM: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<IQQIII")
_CHECKED_BYTES: Final = _RECORD.size - _CHECKSUM.size
RECORD_HEADER_BYTES: Final = _RECORD.size


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What a segment says of itself."""

    #: The scheduler that wrote the segment, and how often the journal had been opened for writing by then.
    scheduler_id: str
    epoch: int
    marker: int
    #: Whether the segment is a snapshot, which replaces all segments before it.
    snapshot: bool
    #: The release of treadle that wrote it, for people.
    release: str


def pack_header(header: Header) -> bytes:
    body = msgspec.msgpack.encode(header)
    start = _START.pack(MAGIC, VERSION, len(body), 0)[: -_CHECKSUM.size]
    start += _CHECKSUM.pack(zlib.crc32(start)) + body
    return start + _CHECKSUM.pack(zlib.crc32(start))


def unpack_header(data: Buffer, name: str) -> tuple[Header, int] | None:
    """The header and its length in bytes; None when the file ends inside its header.

    Raises JournalError, which names the file, for anything that is not such a header.
    """
    magic = bytes(data[: len(MAGIC)])
    if not MAGIC.startswith(magic):
        raise JournalError(f"{name} is not a segment of a journal; move it away, or name another directory")
    if len(data) < _START.size:
        return None
    _magic, version, length, checksum = _START.unpack_from(data)
    if version != VERSION:
        raise JournalError(
            f"{name} is of version {version} of the journal's format, this treadle reads and writes version {VERSION}. "
            "Let the release that wrote it finish its work, or name an empty directory to start anew"
        )
    damaged = JournalError(f"the header of {name} is damaged; restore the file from a copy, or name an empty directory to start anew")
    if zlib.crc32(data[: _START.size - _CHECKSUM.size]) != checksum:
        raise damaged
    end = _START.size + length
    if len(data) < end + _CHECKSUM.size:
        return None
    if zlib.crc32(data[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        raise damaged
    try:
        header = msgspec.msgpack.decode(data[_START.size : end], type=Header)
    except msgspec.MsgspecError as error:
        raise JournalError(f"the header of {name} cannot be read: {error}") from error
    return header, end + _CHECKSUM.size


def pack_record(marker: int, synced: int, body: Buffer, buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """The pieces to write for a record, in order. Bodies and buffers are flat bytes."""
    length = len(body)
    checksum = 0
    if buffers:
        table = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
        length += len(table) + sum(map(len, buffers))
        checksum = zlib.crc32(table)
    checksum = zlib.crc32(body, checksum)
    for buffer in buffers:
        checksum = zlib.crc32(buffer, checksum)
    start = _RECORD.pack(marker, length, synced, len(buffers), checksum, 0)[:_CHECKED_BYTES]
    start += _CHECKSUM.pack(zlib.crc32(start))
    if buffers:
        return [start, table, body, *buffers]
    return [start, body]


class Record:
    """One record of a segment. ``end`` is where the next record begins."""

    __slots__ = ("body", "buffers", "end", "synced")

    def __init__(self, body: memoryview, buffers: list[memoryview], synced: int, end: int) -> None:
        self.body = body
        self.buffers = buffers
        self.synced = synced
        self.end = end


def unpack_record(data: memoryview, start: int, marker: int) -> Record | None:
    """The record that begins at ``start``; None when no whole and undamaged record is there."""
    begin = start + _RECORD.size
    if begin > len(data):
        return None
    found, length, synced, count, checksum, own = _RECORD.unpack_from(data, start)
    if found != marker or zlib.crc32(data[start : start + _CHECKED_BYTES]) != own:
        return None
    end = begin + length
    if end > len(data) or 8 * count > length or zlib.crc32(data[begin:end]) != checksum:
        return None
    at = begin + 8 * count
    lengths: tuple[int, ...] = struct.unpack_from(f"<{count}Q", data, begin)
    body_end = end - sum(lengths)
    if body_end < at:
        return None
    buffers: list[memoryview] = []
    place = body_end
    for size in lengths:
        buffers.append(data[place : place + size])
        place += size
    return Record(data[at:body_end], buffers, synced, end)


def marker_bytes(marker: int) -> bytes:
    """The bytes that every record of a segment with this marker begins with."""
    return _CHECKSUM.pack(marker)
