"""Events of the scheduler's core that never travel: its shell makes them."""

from __future__ import annotations

import msgspec


class ConnectionLost(msgspec.Struct, gc=False):
    """The party's stream is gone without a goodbye. ``blame``: what a worker was executing may be the reason."""

    blame: bool = True


class Tick(msgspec.Struct, gc=False):
    """Time has passed."""


class Forget(msgspec.Struct, gc=False):
    """Cancel and forget all tasks of everybody; ``reason`` is what clients are told."""

    reason: str
