"""Messages in a short form that people can read at a glance: ``"compute c with a@w1"``, ``"memory a@w1"``. Pure.

Each task that a message mentions gets a line. The caller provides names, because ids and numbers mean nothing to a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.messages.client_scheduler import (
    ClientPeers,
    ClientPeersGone,
    ClientWelcome,
    KeysAliased,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysLost,
    KeysPending,
    KeysRedefined,
)
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    DropKeys,
    FetchReplicas,
    HoldersChanged,
    LearnFunctions,
    TakeBack,
    UnlearnFunctions,
    WorkerPeers,
    WorkerPeersGone,
    WorkerRefused,
    WorkerWelcome,
)

#: Introductions, which are left out unless asked for.
POLITE = (WorkerWelcome, WorkerPeers, WorkerPeersGone, ClientWelcome, ClientPeers, ClientPeersGone)


class Names:
    """The names that a reader knows tasks, functions and workers by."""

    def __init__(self) -> None:
        #: Keys of tasks by id, names of functions by id, names of workers by number.
        self.keys: dict[int, Any] = {}
        self.functions: dict[int, str] = {}
        self.workers: dict[int, str] = {}

    def key(self, id: int) -> str:
        return str(self.keys.get(id, id))

    def worker(self, number: int) -> str:
        return self.workers.get(number, str(number))

    def held(self, holders: Any) -> str:
        """``"a@w1,w2"``"""
        return f"{self.key(holders.id)}@{','.join([self.worker(number) for number in holders.workers])}"


def _compute(names: Names, message: ComputeTasks) -> list[str]:
    held = {holders.id: names.held(holders) for holders in message.holders or ()}
    lines = []
    for row, id in enumerate(message.ids):
        needs = message.dependencies[row] if message.dependencies is not None else []
        beside = [held[need] for need in needs]
        lines.append(f"compute {names.key(id)}" + (f" with {' '.join(beside)}" if beside else ""))
    return lines


def _each(verb: str) -> Callable[[Names, Any], list[str]]:
    return lambda names, message: [f"{verb} {names.key(id)}" for id in message.ids]


_FORMS: dict[type, Callable[[Names, Any], list[str]]] = {
    ComputeTasks: _compute,
    DropKeys: _each("drop"),
    TakeBack: _each("take back"),
    KeysPending: _each("pending"),
    KeysLost: _each("lost"),
    HoldersChanged: lambda names, message: [f"holders {names.held(holders)}" for holders in message.holders],
    FetchReplicas: lambda names, message: [f"fetch {names.held(holders)}" for holders in message.holders],
    LearnFunctions: lambda names, message: [f"learn {names.functions.get(id, id)}" for id in message.ids],
    UnlearnFunctions: lambda names, message: [f"unlearn {names.functions.get(id, id)}" for id in message.ids],
    WorkerRefused: lambda names, message: [f"refused: {message.text}"],
    WorkerPeers: lambda names, message: [f"meet {names.worker(peer.number)}" for peer in message.peers],
    ClientPeers: lambda names, message: [f"meet {names.worker(peer.number)}" for peer in message.peers],
    WorkerPeersGone: lambda names, message: [f"gone {names.worker(number)}" for number in message.numbers],
    ClientPeersGone: lambda names, message: [f"gone {names.worker(number)}" for number in message.numbers],
    WorkerWelcome: lambda names, message: ["welcome"],
    ClientWelcome: lambda names, message: ["welcome"],
    KeysInMemory: lambda names, message: [f"memory {names.key(id)}@{names.worker(message.worker)}" for id in message.ids],
    KeysErred: lambda names, message: [f"erred {names.key(id)}: {message.error.exception_text}, by {message.blame}" for id in message.ids],
    KeysCancelled: lambda names, message: [f"cancelled {names.key(id)}: {message.reason}" for id in message.ids],
    KeysAliased: lambda names, message: [f"aliased {names.key(id)}" for id in message.ids],
    KeysRedefined: _each("redefined"),
}


def short_form(names: Names, message: Any) -> list[str]:
    """The lines of one message. Raises KeyError for a kind of message without a short form."""
    return _FORMS[type(message)](names, message)
