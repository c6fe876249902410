"""Values in the text of an error."""

from __future__ import annotations

import reprlib
from typing import Any


def shown(value: Any) -> str:
    """Its repr, cut short; its type, for one that has none (Python prints no integer of thousands of digits)."""
    try:
        return reprlib.repr(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
