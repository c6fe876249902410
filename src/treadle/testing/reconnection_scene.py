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
    """Parties may be away for 10 seconds. See ``SchedulerScene``."""

    def __init__(self, **limits: Any) -> None:
        graces = {"worker_grace_s": GRACE_S, "client_grace_s": GRACE_S, "recovery_grace_s": GRACE_S}
        self._limits = {"validate": True, **graces, **limits}
        super().__init__(**{**graces, **limits})

    def fresh_core(self) -> Transitions:
        return Transitions(Limits(**self._limits), "another scheduler")

    def another_scheduler(self) -> None:
        """The scheduler is another one, which knows nobody. What parties were sent is theirs still."""
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
        met: Sequence[str] = (),
        ids: dict[Any, int] | None = None,
        status: str = "running",
        nthreads: int = 1,
    ) -> None:
        """The worker registers again, with what it has; assignments and failures of the attempts that it was sent last.

        ``ids``: its ids of keys, where they are not those that the scheduler uses, or used last.
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
            [number for number, worker in self.names.workers.items() if worker in met],
            status,
        )
        address = f"tcp://host-of-{name}:{party.number}"
        host = f"host-of-{name}"
        self.event(name, RegisterWorker(WorkerIdentity(f"id of {name}", address, name, host, nthreads, 0, {}, 1, "/", {}, None), inventory))

    def return_client(self, name: str = "c") -> None:
        self.event(name, RegisterClient(f"id of {name}", {}, self.parties[name].number))

    def confirm(self, *keys: Any, client: str = "c") -> None:
        """The client asks where everything stands; ``keys``: what it wants, all that it has an id for unless given."""
        ids = self.parties[client].ids
        self.event(client, ConfirmKeys([ids[key] for key in keys or ids]))

    def reattach(self, *keys: Any, client: str = "c") -> None:
        """A client of before wants these, under the ids that it has for them."""
        ids = self.parties[client].ids
        self.event(client, ReattachKeys([ids[key] for key in keys], list(keys)))

    def frame(self, sequence: int, *, client: str = "c", urgent: bool = False) -> None:
        """The frame that ends here has that number."""
        self.event(client, Sent(sequence, urgent))
