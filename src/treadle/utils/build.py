"""How this installation was built."""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec


def is_compiled() -> bool:
    """Whether the scheduler's core is (or, if nobody imported it yet, would be) a compiled extension module."""
    spec = find_spec("treadle.scheduler.transitions.machine")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
