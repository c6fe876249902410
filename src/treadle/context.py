"""The worker, client and task that the running code belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

#: The ``treadle.worker.server.Worker`` that runs the current task; set in its threads and coroutines.
current_worker: ContextVar[Any] = ContextVar("current_worker", default=None)
#: The ``treadle.client.client.Client`` that ``with client:`` or ``client.as_current()`` has entered last.
current_client: ContextVar[Any] = ContextVar("current_client", default=None)
#: The running task, a ``treadle.worker.execution.RunningTask`` (key, id, attempt, start time).
current_task: ContextVar[Any] = ContextVar("current_task", default=None)
