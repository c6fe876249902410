"""Published datasets: objects that clients give a name to, and keys that are kept for them until somebody takes the name back. Pure."""

from __future__ import annotations

from typing import Any

from treadle.exceptions import PeerProtocolError
from treadle.messages.client_scheduler import ClientRefused, ClientReply, PublishData, UnpublishData
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import ClientState, Published, TaskState
from treadle.scheduler.transitions.state import ClusterState
from treadle.scheduler.transitions.wants import find_task, unwant, want
from treadle.utils.keys import is_key, key_from_wire


def publish(state: ClusterState, client: ClientState, message: PublishData, out: Outbox) -> None:
    """Answered by ClientReply, or by ClientRefused with a KeyError: the name is taken, or a key is not known."""
    name = _name_of(message)
    known = state.published.get(name)
    if known is not None and message.again and known.body == message.body:
        # The answer was lost.
        _done(client, message, out)
        return
    if known is not None and not message.override:
        _refuse(client, message, f"there is a dataset {name!r} already: give this one another name, or publish it with override=True", out)
        return
    tasks: list[TaskState] = []
    for id in message.ids:
        task = find_task(state, client, id)
        if task is None:
            _refuse(client, message, f"the dataset {name!r} cannot be published: some of its keys were cancelled or released", out)
            return
        tasks.append(task)
    dataset = Published(name, message.body)
    for task in tasks:
        want(state, dataset.wants, task, out)
    if known is not None:
        _release(state, known)
    state.published[name] = dataset
    _done(client, message, out)


def unpublish(state: ClusterState, client: ClientState, message: UnpublishData, out: Outbox) -> None:
    """Answered by ClientReply, or by ClientRefused with a KeyError: there is no such name."""
    name = _name_of(message)
    known = state.published.pop(name, None)
    if known is not None:
        _release(state, known)
    elif not message.again:
        _refuse(client, message, f"there is no dataset {name!r}; there are {[*state.published] or 'none'}", out)
        return
    _done(client, message, out)


def _name_of(message: PublishData | UnpublishData) -> Any:
    if not is_key(message.name):
        raise PeerProtocolError(f"{type(message).__name__}: {message.name!r} cannot be a name")
    return key_from_wire(message.name)


def _release(state: ClusterState, dataset: Published) -> None:
    for task in list(dataset.wants.wants_what):
        unwant(state, dataset.wants, task)


def _done(client: ClientState, message: PublishData | UnpublishData, out: Outbox) -> None:
    out.to_client(client).add(ClientReply(message.request, None))


def _refuse(client: ClientState, message: PublishData | UnpublishData, text: str, out: Outbox) -> None:
    out.to_client(client).add(ClientRefused(message.request, "KeyError", text))
