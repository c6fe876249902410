"""Standard output and error, which may be closed or missing."""

from __future__ import annotations

import contextlib
import subprocess
import sys


def flush_standard_streams() -> None:
    """Call before the process ends by ``os._exit``, which flushes nothing."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def stdout_for_child() -> int | None:
    """The ``stdout`` argument of ``subprocess`` with which a child writes where this process does, if that is open at all.

    If standard output was closed, descriptor 1 may be any file that was opened since, and a child must not write into that.
    """
    return subprocess.DEVNULL if sys.__stdout__ is None or sys.__stdout__.closed else None
