"""Functions that servers are asked to run (see ``RunFunction``) by those who may not import them."""

from __future__ import annotations

from typing import Any


def explain_on_worker(id: int, dask_worker: Any) -> dict[str, Any]:
    """What a worker knows of the task with that id, and what it waits for there: see ``treadle.worker.explaining``."""
    explanation: dict[str, Any] = dask_worker.explain(id)
    return explanation
