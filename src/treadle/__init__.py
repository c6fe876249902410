"""A distributed task scheduler for dask graphs, with the interface of dask.distributed."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

compiled: bool


def __getattr__(name: str) -> Any:
    if name == "compiled":
        from treadle.utils.build import is_compiled

        return is_compiled()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
