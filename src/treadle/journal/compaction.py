"""Write a snapshot, which replaces all segments before it: under another name, synced, then renamed; so the journal is always whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from treadle.journal.directory import Directory
from treadle.journal.format import END, Buffer, Header, pack_header, pack_record
from treadle.utils.private import create_private


def write_snapshot(directory: Directory, number: int, header: Header, records: Iterable[tuple[Buffer, Sequence[Buffer]]]) -> int:
    """Write ``records`` (body, buffers) as the segment ``number`` and return its size in bytes. ``Directory.tidy`` removes the
    segments that it replaces.

    Raises OSError; then nothing has changed.
    """
    path = directory.new_path_of(number)
    size = 0
    try:
        path.unlink(missing_ok=True)
        with open(create_private(path), "wb", buffering=2**20) as file:
            size += file.write(pack_header(header))
            for body, buffers in records:
                for piece in pack_record(header.marker, 0, body, buffers):
                    size += file.write(piece)
            for piece in pack_record(header.marker, 0, END):
                size += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        path.rename(directory.path_of(number))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    directory.sync()
    return size
