"""What a process executes at this moment, written where it can be read after the process has died.

Memory that a nanny makes and shares with its worker process: a slot for each thread, with the id and the attempt of its task.
A thread writes its own slot before and after each task; whoever reads does so when the process is gone, or for people to look at.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

#: Threads that can be told apart; what further ones execute is not recorded. The first slot is the culprit's.
SLOTS: Final = 1024
_BYTES: Final = SLOTS * 16


class ExecutionRecord:
    """Two integers a slot: ``cells[at]`` is the id of a task, 0 for none, and ``cells[at + 1]`` its attempt.

    The attempt is written first: a slot that has an id is whole.
    """

    def __init__(self, descriptor: int) -> None:
        """The record of that file descriptor, which may be closed afterwards."""
        self._map = mmap.mmap(descriptor, _BYTES)
        self.cells: memoryview = memoryview(self._map).cast("Q")
        self._free: list[int] = list(range(2 * SLOTS - 2, 0, -2))

    # ---------------------------------------------------------------------------- in the process that executes

    def take_slot(self) -> int:
        """A slot for the calling thread: its index into ``cells``. 0 when there is none left; nothing is to be written then."""
        try:
            return self._free.pop()
        except IndexError:
            return 0

    def give_back(self, slot: int) -> None:
        if slot:
            self.cells[slot] = 0
            self._free.append(slot)

    def accuse(self, id: int, attempt: int) -> None:
        """The process ends because of that task; whatever else executes has no part in it."""
        self.cells[1] = attempt
        self.cells[0] = id

    # --------------------------------------------------------------------------------- in the one that watches

    def executing(self) -> list[tuple[int, int]]:
        """(id, attempt) of what is executing, or of the one task that is the reason for the end."""
        cells = self.cells
        if cells[0]:
            return [(cells[0], cells[1])]
        return [(cells[at], cells[at + 1]) for at in range(2, 2 * SLOTS, 2) if cells[at]]

    @property
    def accused(self) -> bool:
        return self.cells[0] != 0

    def close(self) -> None:
        self.cells.release()
        self._map.close()


def make_descriptor() -> int:
    """A file without a name, of the right size, for ``ExecutionRecord`` here and in a process that inherits it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("treadle-executing")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, _BYTES)
    return descriptor


_of_process: ExecutionRecord | None = None


def set_record_of_process(record: ExecutionRecord | None) -> None:
    """From here on workers of this process write there."""
    global _of_process
    _of_process = record


def record_of_process() -> ExecutionRecord | None:
    """Where the workers of this process write what they execute; None: nobody reads it."""
    return _of_process
