"""Read the segments of a journal. A torn tail ends the journal; damage anywhere else is an error that names the file and the place."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from treadle.exceptions import JournalError
from treadle.journal.format import Header, Record, marker_bytes, unpack_header, unpack_record


class Segment:
    """One file of a journal. Iterate over ``records`` to the end; then the first ``good_bytes`` of its ``size`` bytes are sound."""

    def __init__(self, path: Path, data: memoryview | None = None) -> None:
        """``data``: the content, if it is not in a file. Raises JournalError for content that is no segment of this version,
        OSError when the file cannot be read."""
        self.path = path
        self._data = _contents(path) if data is None else data
        self.size = len(self._data)
        found = unpack_header(self._data, str(path))
        #: None when the process died before it had written the header; then the segment holds no record.
        self.header: Header | None = None if found is None else found[0]
        #: Length of the header and of the records that were read so far.
        self.good_bytes = 0 if found is None else found[1]

    def records(self, last: bool) -> Iterator[Record]:
        """The records in order. ``last``: this is the newest segment, which may end in the middle of a record.

        Raises JournalError at a damaged record that cannot be the torn end of the last write.
        """
        header = self.header
        if header is None:
            if not last:
                raise self._damaged()
            return
        whole = False
        while self.good_bytes < self.size:
            record = unpack_record(self._data, self.good_bytes, header.marker)
            if record is None:
                if header.snapshot or not last:
                    raise self._damaged()
                self._check_torn(header.marker)
                return
            self.good_bytes = record.end
            whole = not record.body
            if not whole:
                yield record
        if header.snapshot and not whole:
            # A snapshot was complete when it got its name.
            raise self._damaged()

    def _check_torn(self, marker: int) -> None:
        """Raise unless the unreadable part may be a torn tail, that is, no later record says that it had been on disk."""
        wanted = marker_bytes(marker)
        whole = bytes(self._data[self.good_bytes + 1 :])
        at = whole.find(wanted)
        while at >= 0:
            later = unpack_record(self._data, self.good_bytes + 1 + at, marker)
            if later is not None and later.synced > self.good_bytes:
                raise self._damaged()
            at = whole.find(wanted, at + 1)

    def _damaged(self) -> JournalError:
        return JournalError(
            f"{self.path} is damaged at byte {self.good_bytes}: records that were safely on disk cannot be read any more. "
            "Restore the file from a copy, or name an empty directory to start anew"
        )


def _contents(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
