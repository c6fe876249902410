"""The states of a server's life."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """States of schedulers, workers, nannies and clusters."""

    undefined = "undefined"
    created = "created"
    init = "init"
    starting = "starting"
    running = "running"
    paused = "paused"
    stopping = "stopping"
    stopped = "stopped"
    closing = "closing"
    closing_gracefully = "closing_gracefully"
    closed = "closed"
    failed = "failed"
