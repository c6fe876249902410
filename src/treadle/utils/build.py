"""How this installation was built."""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec


def is_compiled() -> bool:
    """Whether the scheduler's core is a compiled extension module, or would be if it were imported."""
    spec = find_spec("treadle.scheduler.transitions.machine")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
