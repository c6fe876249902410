"""A scheduler's core among parties that send it random messages. A party that breaks the protocol is dropped; nothing else may go wrong."""

from __future__ import annotations

import traceback
import typing
from random import Random
from typing import Any, Final

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import ClientToScheduler, RegisterClient, Sent, SubmitTasks
from treadle.messages.codec import decode_client_to_scheduler, decode_worker_to_scheduler, encode
from treadle.messages.scheduler_local import ConnectionLost, Tick
from treadle.messages.worker_scheduler import ComputeTasks, RegisterWorker, TasksFinished, WorkerToScheduler
from treadle.scheduler.sessions import events_of_messages
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.records import ERRED, MEMORY, ClientState, WorkerState
from treadle.scheduler.transitions.state import Limits
from treadle.scheduler.turns import FOR_THE_SHELL
from treadle.testing.fuzz.messages import Pool

_FROM_CLIENTS: Final = [kind for kind in typing.get_args(ClientToScheduler) if kind not in FOR_THE_SHELL]
_FROM_WORKERS: Final = [kind for kind in typing.get_args(WorkerToScheduler) if kind not in FOR_THE_SHELL]


class Failure(Exception):
    """What went wrong, and which messages came before."""


class CoreFuzz:
    """One core, and the parties whose messages a seed decides. ``run`` raises Failure."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.pool = Pool(self.random)
        limits = Limits(validate=True, worker_grace_s=self.random.choice((0.0, 5.0)), client_grace_s=self.random.choice((0.0, 5.0)))
        self.core = Transitions(limits, "fuzzed")
        self.now = 0.0
        self.numbers = 0
        self.submissions = 0
        self.given = 0
        #: Number of each connected party -> whether it is a worker.
        self.parties: dict[int, bool] = {}
        #: Assignments that workers know: (worker, id, attempt).
        self.assigned: list[tuple[int, int, int]] = []
        self.log: list[str] = []
        self.refused = 0

    # ------------------------------------------------------------------------------------------------ the world

    def say(self, number: int, messages: list[Any], buffers: list[bytes] | None = None) -> None:
        """The party sends a frame, which passes through the codec."""
        self.log.append(f"{number}: {messages}")
        decode = decode_worker_to_scheduler if self.parties.get(number, False) else decode_client_to_scheduler
        try:
            events = events_of_messages(number, decode(encode(messages)), list(buffers or ()))
        except (PeerProtocolError, OverflowError) as error:
            self.log.append(f"   refused: {error}")
            self.refused += 1
            self.parties.pop(number, None)
            events = [Event(number, ConnectionLost(blame=False))]
        self.handle(events)

    def handle(self, events: list[Event]) -> None:
        self.now += self.random.choice((0.0, 0.001, 1.0))
        try:
            result = self.core.handle(events, self.now)
        except Exception as error:
            story = "\n".join(self.log[-40:])
            raise Failure(f"seed {self.seed}: the core failed: {traceback.format_exc()}\nIt had been told:\n{story}") from error
        for number, messages, _frames in result.sends:
            encode(messages)
            for message in messages:
                if isinstance(message, ComputeTasks):
                    self.assigned += [(number, id, attempt) for id, attempt in zip(message.ids, message.attempts, strict=True)]
                    self.pool.integers += [*message.ids, *message.attempts]
        for number, why in result.closes:
            self.log.append(f"   closed {number}: {why}")
            self.parties.pop(number, None)
        self.refused += len(result.offenders)

    def join(self, is_worker: bool) -> int:
        self.numbers += 1
        number = self.numbers
        self.parties[number] = is_worker
        self.pool.integers.append(number)
        name = f"p{number}"
        self.pool.texts.append(name)
        if is_worker:
            self.say(
                number,
                [RegisterWorker(WorkerIdentity(name, f"tcp://{name}:1", name, "h", 2, 0, {"R": 1.0} if number % 2 else {}, 1, "/", {}))],
            )
        else:
            self.say(number, [RegisterClient(name, {})])
        return number

    def come_back(self) -> None:
        """A party whose stream broke registers again, a worker with a random inventory."""
        state = self.core.state
        away: list[WorkerState | ClientState] = [*state.absent_workers, *state.absent_clients]
        if not away:
            return
        party = self.random.choice(away)
        self.parties[party.number] = isinstance(party, WorkerState)
        if isinstance(party, ClientState):
            self.say(party.number, [RegisterClient(party.id, {}, party.number)])
            return
        message = self.pool.message(RegisterWorker)
        identity = message.identity
        identity.id, identity.name, identity.address = party.id, party.name, party.address
        self.say(party.number, [message])

    # ------------------------------------------------------------------------------------- what is as it should be

    def submit(self, number: int, changed: bool = False) -> None:
        """Submit a small graph. ``changed``: with one field that no client would send."""
        random = self.random
        self.submissions += 1
        count = random.randint(1, 5)
        ids = [number << 32 | (self.given + row + 1) for row in range(count)]
        self.given += count
        keys = [random.choice((f"k{self.given + row}", ["x", self.given + row])) for row in range(count)]
        dependencies = [[id for id in ids[:row] if random.random() < 0.4] for row in range(count)]
        message = SubmitTasks(self.submissions, ids, keys, [0] * count, [b""] * count, dependencies)
        message.wanted = [id for id in ids if random.random() < 0.5]
        if random.random() < 0.3:
            message.options = TaskOptions(resources={"R": 1.0}, retries=random.randint(0, 2))
        if random.random() < 0.3:
            message.later_dependents = [random.randint(0, 1) for _ in ids]
        self.pool.integers += ids
        self.pool.keys += keys
        if random.random() < 0.3:
            message.priority = random.choice((-1.0, 2.5, 1e99))
        if changed:
            self.pool.mutate(message)
        self.say(number, [message, Sent(self.submissions)])

    def finish(self, changed: bool = False) -> None:
        """A worker has finished an assignment."""
        if self.assigned:
            number, id, attempt = self.assigned.pop(self.random.randrange(len(self.assigned)))
            if number in self.parties:
                message = TasksFinished([id], [attempt], [8], [0], ["int"], [1.0], [2.0])
                if changed:
                    self.pool.mutate(message)
                self.say(number, [message])

    # ------------------------------------------------------------------------------------------------------ the run

    def step(self) -> None:
        random = self.random
        clients = [number for number, is_worker in self.parties.items() if not is_worker]
        workers = [number for number, is_worker in self.parties.items() if is_worker]
        if len(clients) < 2 or len(workers) < 3:
            self.join(len(clients) >= 2)
            return
        dice = random.random()
        if dice < 0.15:
            self.submit(random.choice(clients), random.random() < 0.3)
        elif dice < 0.4:
            self.finish(random.random() < 0.1)
        elif dice < 0.45:
            self.log.append("tick")
            self.handle([Event(0, Tick())])
        elif dice < 0.5:
            number = random.choice(list(self.parties))
            del self.parties[number]
            self.log.append(f"{number}: lost")
            self.handle([Event(number, ConnectionLost())])
        elif dice < 0.55:
            self.come_back()
        else:
            number = random.choice(clients + workers)
            kind = random.choice(_FROM_WORKERS if self.parties[number] else _FROM_CLIENTS)
            message = self.pool.message(kind)
            if isinstance(message, RegisterClient):
                message.number = 0
            ids = getattr(message, "ids", None)
            if isinstance(ids, list) and not self.parties[number] and random.random() < 0.5:
                # Ids that this client may assign.
                self.given += len(ids)
                message.ids = [number << 32 | (self.given - at) for at in range(len(ids))]
                self.pool.integers += message.ids
            if isinstance(message, SubmitTasks) and random.random() < 0.8:
                message.functions = [0] * len(message.functions)
            self.say(number, [message], [b"x"] * sum(count for _, count in getattr(message, "buffers", None) or () if 0 < count < 5))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.still_works()

    def still_works(self) -> None:
        """Check that a new worker computes a new client's task, whatever has happened before."""
        number = self.join(False)
        worker = self.join(True)
        id = number << 32 | 1
        options = TaskOptions(workers=[f"p{worker}"])
        self.say(number, [SubmitTasks(1, [id], ["the last"], [0], [b""], options=options, priority=1e99), Sent(1)])
        for _ in range(1000):
            task = self.core.state.by_id.get(id)
            if task is not None and task.state in (MEMORY, ERRED):
                break
            mine = [entry for entry in self.assigned if entry[0] == worker]
            self.assigned = [entry for entry in self.assigned if entry[0] != worker]
            for _number, task_id, attempt in mine:
                self.say(worker, [TasksFinished([task_id], [attempt], [8], [0], ["int"], [1.0], [2.0])])
            self.handle([Event(0, Tick())])
        if task is None or task.state != MEMORY:
            raise Failure(f"seed {self.seed}: a sane task was not computed in the end: {task!r}\n" + "\n".join(self.log[-40:]))


def fuzz(seed: int, steps: int = 150) -> CoreFuzz:
    """Raises Failure."""
    run = CoreFuzz(seed)
    run.run(steps)
    return run


__all__ = ["CoreFuzz", "Failure", "fuzz"]
