"""``python -m treadle.scheduler.compacting DIRECTORY NUMBER``: replace all segments before that number by a snapshot of what they say.

A process of its own, started by the scheduler that holds the directory: it reads what was written, so that neither the memory nor the
loop of the scheduler has a part in it, and nothing happens if it fails. Prints the size of the snapshot in bytes.
"""

from __future__ import annotations

import gc
import os
import secrets
import sys

from treadle.journal.compaction import write_snapshot
from treadle.journal.directory import Directory
from treadle.journal.format import Header
from treadle.messages.journal import encode_record
from treadle.scheduler.recovery import recover
from treadle.scheduler.snapshot import snapshot
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.version import __version__


def compact(directory: Directory, number: int) -> int:
    """Write the snapshot ``number``; its size in bytes. Raises JournalError, OSError; then nothing has changed."""
    core = Transitions(Limits(), "compaction")
    recovery = recover(directory, core, below=number)
    header = Header("compaction", recovery.epoch, int.from_bytes(secrets.token_bytes(4), "little"), True, __version__)
    records = snapshot(core.state, recovery.highest_number)
    return write_snapshot(directory, number, header, ((encode_record(record), buffers) for record, buffers in records))


def main() -> None:
    # It makes millions of records that all live until it ends.
    gc.disable()
    if hasattr(os, "nice"):
        os.nice(10)
    print(compact(Directory(sys.argv[1], lock=False), int(sys.argv[2])))


if __name__ == "__main__":
    main()
