"""How the threads of a process that only runs a server share the interpreter."""

from __future__ import annotations

import sys
from typing import Final

#: Seconds that a thread may keep the interpreter when another one waits for it.
_SWITCH_S: Final = 0.001


def answer_quickly() -> None:
    """Call once in a worker's process. Its loop serves peers while tasks compute in Python, and with Python's default of 5 ms each
    message in or out would wait that long."""
    sys.setswitchinterval(_SWITCH_S)
