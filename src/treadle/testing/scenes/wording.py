"""Messages in the words of scenes, with names in place of ids: ``"ComputeTasks b attempt 1 (needs a at w1)"``. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ClientPeers,
    ClientPeersGone,
    ClientRefused,
    ClientWelcome,
    ConfirmKeys,
    KeysAliased,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysLost,
    KeysPending,
    ReattachKeys,
    Received,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
)
from treadle.messages.worker_scheduler import (
    CloseWorker,
    ComputeTasks,
    DropKeys,
    FetchReplicas,
    HoldersChanged,
    Inventory,
    KeysRenumbered,
    RegisterWorker,
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TakeBack,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerPeers,
    WorkerPeersGone,
    WorkerRefused,
    WorkerStatus,
    WorkerWelcome,
)
from treadle.testing.shorthand import Names

#: Introductions, which precede the first message that needs them. They do not interest a reader.
SILENT = (ClientPeers, ClientPeersGone, WorkerPeers, WorkerPeersGone)
STAGES = ("not started", "executing", "seceded")

Form = Callable[[Names, Any], str]


def _keys(names: Names, ids: list[int]) -> str:
    return ", ".join([names.key(id) for id in ids]) or "nothing"


def _held(names: Names, holders: Any) -> str:
    return f"{names.key(holders.id)} at {' or '.join([names.worker(number) for number in holders.workers])}"


def _attempts(names: Names, ids: list[int], attempts: list[int]) -> str:
    return ", ".join([f"{names.key(id)} attempt {attempt}" for id, attempt in zip(ids, attempts, strict=True)])


def _compute(names: Names, message: ComputeTasks) -> str:
    held = {holders.id: _held(names, holders) for holders in message.holders or ()}
    rows = []
    for row, id in enumerate(message.ids):
        needs = message.dependencies[row] if message.dependencies is not None else []
        beside = f" (needs {', '.join([held[need] for need in needs])})" if needs else ""
        rows.append(f"{names.key(id)} attempt {message.attempts[row]}{beside}")
    return ", ".join(rows)


def _taken_back(names: Names, message: TasksTakenBack) -> str:
    parts = [_attempts(names, message.ids, message.attempts)] if message.ids else []
    if message.kept:
        parts.append(f"kept {_keys(names, message.kept)}")
    return "; ".join(parts)


def inventory_words(names: Names, found: Inventory) -> str:
    """``"holds a; executing b attempt 1; fetching c"``"""
    parts = []
    if found.ids:
        parts.append(f"holds {_keys(names, found.ids)}")
    for stage, word in enumerate(STAGES):
        rows = [row for row, at in enumerate(found.stages) if at == stage]
        if rows:
            some = _attempts(names, [found.assigned[row] for row in rows], [found.attempts[row] for row in rows])
            parts.append(f"{word} {some}")
    if found.erred:
        parts.append(f"erred {_attempts(names, [row.id for row in found.erred], [row.attempt for row in found.erred])}")
    if found.fetching:
        parts.append(f"fetching {_keys(names, found.fetching)}")
    return "; ".join(parts) or "has nothing"


def _submit(names: Names, message: SubmitTasks) -> str:
    needs = message.dependencies or [[] for _ in message.ids]
    rows = [f"{names.key(id)}({_keys(names, needs[row])})" if needs[row] else names.key(id) for row, id in enumerate(message.ids)]
    return ", ".join(rows)


def _columns(names: Names, message: Any) -> str:
    return _keys(names, message.ids)


def _rows(names: Names, message: Any) -> str:
    return _attempts(names, message.ids, message.attempts)


def _places(names: Names, message: Any) -> str:
    return ", ".join([_held(names, holders) for holders in message.holders])


def _failed(names: Names, message: KeysErred) -> str:
    """The keys, with the first sentence of the error."""
    text = message.error.exception_text.splitlines()[0].split(". ")[0]
    return f"{_keys(names, message.ids)}; because {message.blame}: {text}"


def _welcome(names: Names, message: ClientWelcome) -> str:
    return f"has the frames up to {message.received}" if message.known else "does not know the client"


_FORMS: dict[type, Form] = {
    ComputeTasks: _compute,
    DropKeys: _columns,
    TakeBack: _rows,
    HoldersChanged: _places,
    FetchReplicas: _places,
    KeysRenumbered: _columns,
    WorkerWelcome: lambda names, message: "knows the worker" if message.known else "does not know the worker",
    WorkerRefused: lambda names, message: message.text,
    CloseWorker: lambda names, message: message.reason,
    KeysInMemory: lambda names, message: f"{_keys(names, message.ids)} at {names.worker(message.worker)}",
    KeysErred: _failed,
    KeysPending: _columns,
    KeysLost: _columns,
    KeysAliased: _columns,
    KeysCancelled: lambda names, message: f"{_keys(names, message.ids)}; because {message.reason}",
    ClientWelcome: _welcome,
    ClientRefused: lambda names, message: message.text,
    Received: lambda names, message: str(message.sequence),
    TasksFinished: _rows,
    TasksStarted: _rows,
    TasksSeceded: _rows,
    TasksRescheduled: _rows,
    TasksErred: lambda names, message: ", ".join(
        [f"{names.key(row.id)} attempt {row.attempt} ({row.error.exception_text})" for row in message.tasks]
    ),
    TasksTakenBack: _taken_back,
    ReplicasAdded: _columns,
    ReplicasDropped: _columns,
    ReplicasMissing: lambda names, message: ", ".join(
        [f"{names.key(id)} at {names.worker(holder)}" for id, holder in zip(message.ids, message.holders, strict=True)]
    ),
    WorkerStatus: lambda names, message: message.status,
    RegisterWorker: lambda names, message: inventory_words(names, message.inventory) if message.inventory else "is new",
    SubmitTasks: _submit,
    ReleaseKeys: _columns,
    CancelKeys: _columns,
    RetryKeys: _columns,
    AttachKeys: _columns,
    ConfirmKeys: _columns,
    ReattachKeys: _columns,
    Sent: lambda names, message: f"frame {message.sequence}",
}


def worded(names: Names, message: Any) -> str:
    """``"DropKeys a, b"``. Raises KeyError for a kind of message that scenes have no words for."""
    return f"{type(message).__name__} {_FORMS[type(message)](names, message)}"
