"""Rows of a submission, gathered into the columns of one message. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle import config
from treadle.client.rows.digests import DIGEST_BYTES
from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import SubmitTasks


class Columns:
    """Tasks, dependencies before dependents."""

    __slots__ = ("beside", "buffers", "dependencies", "digests", "functions", "ids", "keys", "nbytes", "options", "payloads", "wanted")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.keys: list[Any] = []
        self.functions: list[int] = []
        self.payloads: list[bytes] = []
        self.dependencies: list[list[int]] = []
        self.wanted: list[int] = []
        #: (row, options) of rows that have their own.
        self.options: list[tuple[int, TaskOptions]] = []
        #: (row, how many buffers), and the buffers of all rows.
        self.buffers: list[tuple[int, int]] = []
        self.beside: list[Any] = []
        #: (row, digest) of rows whose keys do not say all of their tasks.
        self.digests: list[tuple[int, bytes]] = []
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def add(
        self,
        id: int,
        key: Any,
        function: int,
        payload: bytes,
        buffers: Sequence[Any] = (),
        dependencies: Sequence[int] = (),
        *,
        wanted: bool,
        digest: bytes = b"",
    ) -> None:
        if buffers:
            self.buffers.append((len(self.ids), len(buffers)))
            # Those that can change are the user's own memory, who may go on to use it before they are sent.
            self.beside.extend([buffer if memoryview(buffer).readonly else bytearray(buffer) for buffer in buffers])
        if len(digest) == DIGEST_BYTES:
            self.digests.append((len(self.ids), digest))
        self.ids.append(id)
        self.keys.append(key)
        self.functions.append(function)
        self.payloads.append(payload)
        self.dependencies.append(list(dependencies))
        if wanted:
            self.wanted.append(id)
        self.nbytes += len(payload)

    def message(self, submission: int) -> SubmitTasks:
        """The message of these columns; what all rows share is for the caller to set."""
        return SubmitTasks(
            submission,
            self.ids,
            self.keys,
            self.functions,
            self.payloads,
            dependencies=self.dependencies if any(self.dependencies) else None,
            wanted=None if len(self.wanted) == len(self.ids) else self.wanted,
            row_options=self.options or None,
            buffers=self.buffers or None,
            digests=self.digests or None,
            strict=bool(self.digests) and config.redefined_keys_are_errors(),
        )
