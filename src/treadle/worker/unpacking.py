"""Unpack values that arrive at a worker. Futures in them belong to the client of the worker's tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from treadle.comm.interface import Buffer
from treadle.context import current_worker
from treadle.messages.base import Block
from treadle.serialize.values import unpack_block

#: The values of a block. Raises what unpickling raises.
Unpack: TypeAlias = Callable[[Block, Sequence[Buffer]], list[Any]]


def unpack_for(worker: Any, block: Block, buffers: Sequence[Buffer]) -> list[Any]:
    """As ``unpack_block``, for a block that came to ``worker``. To be called in a thread if the block ``belongs_in_a_thread``."""
    token = current_worker.set(worker)
    try:
        return unpack_block(block, buffers)
    finally:
        current_worker.reset(token)
