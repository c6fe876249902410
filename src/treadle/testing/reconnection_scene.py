"""Scenes in which streams break: workers and clients go away and come back, to the same scheduler or to another one. No I/O.

scene = ReconnectionScene()
scene.lose("w1")
scene.come_back("w1", executing=["a"])
assert scene.sent("w1") == ["compute b"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.messages.base import TaskError, WorkerIdentity
from treadle.messages.client_scheduler import ConfirmKeys, ReattachKeys, RegisterClient, Sent
from treadle.messages.worker_scheduler import Inventory, RegisterWorker, TaskErred
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.testing.scheduler_scene import SchedulerScene

GRACE_S = 10.0


class ReconnectionScene(SchedulerScene):
    """A ``SchedulerScene`` in which parties may be away for 10 seconds."""

    def __init__(self, **limits: Any) -> None:
        graces = {"worker_grace_s": GRACE_S, "client_grace_s": GRACE_S, "recovery_grace_s": GRACE_S}
        self._limits = {"validate": True, **graces, **limits}
        super().__init__(**{**graces, **limits})

    def fresh_core(self) -> Transitions:
        return Transitions(Limits(**self._limits), "another scheduler")

    def another_scheduler(self) -> None:
        """Replace the scheduler by one that knows nobody. The parties keep what the first one sent them."""
        self.core = self.fresh_core()
        self.now = 0.0
        self.tick()
        for party in self.parties.values():
            party.inbox = []

    def come_back(
        self,
        name: str,
        *,
        holding: Sequence[Any] = (),
        waiting: Sequence[Any] = (),
        executing: Sequence[Any] = (),
        seceded: Sequence[Any] = (),
        erred: Sequence[Any] = (),
        fetching: Sequence[Any] = (),
        fresh: Sequence[Any] = (),
        functions: Sequence[str] = (),
        peers: Sequence[str] = (),
        ids: dict[Any, int] | None = None,
        status: str = "running",
        nthreads: int = 1,
    ) -> None:
        """The worker registers again with an inventory. Assignments and failures have the attempts that it was sent last.

        ``ids``: its ids of keys, if they differ from those that the scheduler uses or used last.
        """
        party = self.parties[name]
        given = ids or {}

        def known(keys: Sequence[Any]) -> list[int]:
            return [given[key] if key in given else self.task_id(key) for key in keys]

        assigned = [*waiting, *executing, *seceded]
        error = TaskError(b"", b"", "boom", "")
        inventory = Inventory(
            known(holding),
            list(holding),
            [8] * len(holding),
            [0] * len(holding),
            ["int"],
            known(fresh),
            known(assigned),
            assigned,
            [party.attempts.get(key, 1) for key in assigned],
            [0] * len(waiting) + [1] * len(executing) + [2] * len(seceded),
            [TaskErred(id, party.attempts[key], error, 0.0, 0.0) for id, key in zip(known(erred), erred, strict=True)],
            known(fetching),
            [id for id, function in self.names.functions.items() if function in functions],
            [number for number, worker in self.names.workers.items() if worker in peers],
            status,
        )
        address = f"tcp://host-of-{name}:{party.number}"
        host = f"host-of-{name}"
        self.event(name, RegisterWorker(WorkerIdentity(f"id of {name}", address, name, host, nthreads, 0, {}, 1, "/", {}, None), inventory))

    def return_client(self, name: str = "c") -> None:
        self.event(name, RegisterClient(f"id of {name}", {}, self.parties[name].number))

    def confirm(self, *keys: Any, client: str = "c") -> None:
        """The client asks for the state of its keys: ``keys``, or all that it has an id for."""
        ids = self.parties[client].ids
        self.event(client, ConfirmKeys([ids[key] for key in keys or ids]))

    def reattach(self, *keys: Any, client: str = "c") -> None:
        """A client of an earlier scheduler wants these keys, under the ids that it has for them."""
        ids = self.parties[client].ids
        self.event(client, ReattachKeys([ids[key] for key in keys], list(keys)))

    def frame(self, sequence: int, *, client: str = "c", urgent: bool = False) -> None:
        """The client ends a frame with that number."""
        self.event(client, Sent(sequence, urgent))
