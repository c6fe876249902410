"""Values in the text of an error."""

from __future__ import annotations

import reprlib
from typing import Any


def shown(value: Any) -> str:
    """The value's repr, cut short; its type if it has no repr (Python prints no integer of thousands of digits)."""
    try:
        return reprlib.repr(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
