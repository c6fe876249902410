"""Record what a process is executing, in memory that can be read after the process has died.

A nanny makes the memory and shares it with its worker process. It has a slot for each thread, with the id and the attempt of the
thread's task. A thread writes its own slot before and after each task; the nanny reads the slots when the process is gone.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

#: Number of slots. The first one is for an accused task; threads for which no slot is left are not recorded.
SLOTS: Final = 1024
_BYTES: Final = SLOTS * 16


class ExecutionRecord:
    """Each slot has two integers: ``cells[at]`` is the id of a task, or 0, and ``cells[at + 1]`` its attempt.

    The attempt is written first, so a slot with an id is complete.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the record of a file descriptor, which may be closed afterwards."""
        self._map = mmap.mmap(descriptor, _BYTES)
        self.cells: memoryview = memoryview(self._map).cast("Q")
        self._free: list[int] = list(range(2 * SLOTS - 2, 0, -2))

    # ---------------------------------------------------------------------------- in the process that executes

    def take_slot(self) -> int:
        """Reserve a slot for the calling thread: its index into ``cells``. 0 when no slot is left; then the thread must write nothing."""
        try:
            return self._free.pop()
        except IndexError:
            return 0

    def give_back(self, slot: int) -> None:
        if slot:
            self.cells[slot] = 0
            self._free.append(slot)

    def accuse(self, id: int, attempt: int) -> None:
        """Note that the process ends because of this task, and not because of anything else that it executes."""
        self.cells[1] = attempt
        self.cells[0] = id

    # --------------------------------------------------------------------------------- in the one that watches

    def executing(self) -> list[tuple[int, int]]:
        """(id, attempt) of the tasks that are executing; if a task was accused, of that one only."""
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
    """A nameless file of the right size, for ``ExecutionRecord`` in this process and in one that inherits the descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("treadle-executing")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, _BYTES)
    return descriptor


_of_process: ExecutionRecord | None = None


def set_record_of_process(record: ExecutionRecord | None) -> None:
    """Workers of this process write to ``record`` from now on."""
    global _of_process
    _of_process = record


def record_of_process() -> ExecutionRecord | None:
    """The record that workers of this process write to; None when nobody reads one."""
    return _of_process
