"""Memory of tables that were large once. A dict that is emptied one by one keeps the memory of its largest size."""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.records import ClientState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: Smaller ones are not worth a look.
_LARGE: Final = 4096


def has_shrunk(length: int, most: int) -> bool:
    """Whether a table of that length, which had up to ``most`` entries, is to be made anew: at a cost that is small for each that left."""
    return most > _LARGE and length < most // 8


def shrink_tasks(state: ClusterState) -> None:
    """Once a turn."""
    length = len(state.tasks)
    if length > state.most_tasks:
        state.most_tasks = length
    elif has_shrunk(length, state.most_tasks):
        state.tasks = dict(state.tasks)
        state.by_id = dict(state.by_id)
        state.most_tasks = length


def shrink_wishes(client: ClientState) -> None:
    """When something came from it."""
    length = len(client.wants_what)
    if length > client.most_wanted:
        client.most_wanted = length
    elif has_shrunk(length, client.most_wanted):
        client.wants_what = dict(client.wants_what)
        client.most_wanted = length


def shrink_holdings(worker: WorkerState) -> None:
    """When its values have become more or fewer."""
    length = len(worker.has_what)
    if length > worker.most_held:
        worker.most_held = length
    elif has_shrunk(length, worker.most_held):
        worker.has_what = dict(worker.has_what)
        worker.most_held = length
