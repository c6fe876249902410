"""Standard output and error, which may be closed or missing."""

from __future__ import annotations

import contextlib
import subprocess
import sys


def flush_standard_streams() -> None:
    """Before the process ends without Python's own way out."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def stdout_for_child() -> int | None:
    """What ``subprocess`` takes as ``stdout`` so that a child writes where this process does, if that is open at all.

    Where it was closed, descriptor 1 may be anything that was opened since; a child must not write into that.
    """
    return subprocess.DEVNULL if sys.__stdout__ is None or sys.__stdout__.closed else None
