"""All outputs of one turn: queues of messages for each worker and client, gathered into as few as order allows.

Order for a worker: a key is dropped after what was sent before about it, and computed after it was dropped. A batch of
assignments and a batch of drops are open at a time; the drops go out behind the assignments, so only an assignment of
a key that waits to be dropped closes both.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.messages.base import Holders, Message, Peer, TaskError, TaskOptions
from treadle.messages.client_scheduler import (
    ClientPeers,
    KeysAliased,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysLost,
    KeysPending,
    Received,
)
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    DropKeys,
    FetchReplicas,
    HoldersChanged,
    KeysRenumbered,
    LearnFunctions,
    TakeBack,
    UnlearnFunctions,
    WorkerPeers,
)
from treadle.scheduler.transitions.records import AWAY, RECALLING, ClientState, FunctionState, TaskState, WorkerState

#: Holders of a value that a worker is told at once.
MOST_HOLDERS_TOLD: Final = 16


#: A message with more than that is closed, and another one begun.
MESSAGE_BYTES: Final = 16 * 2**20


class WorkerQueue:
    """What one worker is told in this turn."""

    def __init__(self, worker: WorkerState) -> None:
        self.worker: WorkerState = worker
        self.messages: list[Message] = []
        self.frames: list[Any] = []
        self.functions: list[int] = []
        self.bodies: list[bytes] = []
        self.peers: list[Peer] = []
        self.compute: list[TaskState] = []
        #: Of their payloads, and of functions that go with them.
        self.compute_bytes: int = 0
        #: Where each task stands in ``compute``: made when the first of them is called off, and then kept up. None as a rule.
        self.places: dict[TaskState, int] | None = None
        #: Function of the last of ``compute``: the worker knows it.
        self.function: FunctionState | None = None
        self.drops: dict[int, None] = {}
        #: Those of ``drops`` that may be there although they are not counted on.
        self.unconfirmed: dict[int, None] = {}

    def seal(self) -> None:
        """Close the open batches: what follows is said after them."""
        self.compute_bytes = 0
        if self.functions:
            self.messages.append(LearnFunctions(self.functions, self.bodies))
            self.functions = []
            self.bodies = []
        compute = self._compute_tasks() if self.compute else None
        if self.peers:
            self.messages.append(WorkerPeers(self.peers))
            self.peers = []
        if compute is not None:
            self.messages.append(compute)
        if self.drops:
            unconfirmed = None
            if self.unconfirmed:
                unconfirmed = list(self.unconfirmed)
                self.unconfirmed = {}
            self.messages.append(DropKeys(list(self.drops), unconfirmed))
            self.drops = {}

    def meet(self, holder: WorkerState) -> None:
        """Before ``holder`` is mentioned: does the worker know its address?"""
        if holder.number not in self.worker.met:
            self.worker.met.add(holder.number)
            holder.known_to[self.worker.number] = None
            self.peers.append(Peer(holder.number, holder.address))

    def holders(self, task: TaskState) -> Holders:
        """Who has the value: of many, some, and others for each worker. It asks again when none of those has it."""
        who_has = task.who_has
        count = len(who_has)
        numbers: list[int] = []
        if count <= MOST_HOLDERS_TOLD:
            for holder in who_has:
                self.meet(holder)
                numbers.append(holder.number)
            return Holders(task.id, task.key, task.nbytes, numbers)
        if task in self.worker.has_what:
            # It is to say so when it has not.
            numbers.append(self.worker.number)
        first = (self.worker.number + task.id) % count
        for at in range(MOST_HOLDERS_TOLD):
            holder = who_has[(first + at) % count]
            if holder is not self.worker:
                self.meet(holder)
                numbers.append(holder.number)
        return Holders(task.id, task.key, task.nbytes, numbers)

    def call_off(self, task: TaskState) -> bool:
        """Whether ``task`` was among the open batch of assignments: it is not any more."""
        if not self.compute:
            return False
        places = self.places
        if places is None:
            places = self.places = {}
            for at, other in enumerate(self.compute):
                places[other] = at
        at = places.pop(task, -1)
        if at < 0:
            return False
        last = self.compute.pop()
        if last is not task:
            self.compute[at] = last
            places[last] = at
        return True

    def _compute_tasks(self) -> ComputeTasks:
        """The open batch of assignments as a message. Attempts are those of now: a batch is sealed before they change."""
        tasks = self.compute
        self.compute = []
        self.places = None
        ids: list[int] = []
        keys: list[Any] = []
        attempts: list[int] = []
        functions: list[int] = []
        payloads: list[bytes] = []
        priorities: list[tuple[float, float, int]] = []
        dependencies: list[list[int]] | None = None
        holders: dict[int, Holders] = {}
        options: list[tuple[int, TaskOptions]] = []
        buffers: list[tuple[int, int]] = []
        eager: list[int] = []
        for row, task in enumerate(tasks):
            ids.append(task.id)
            keys.append(task.key)
            attempts.append(task.attempt)
            function = task.function
            functions.append(0 if function is None else function.id)
            payload = task.payload
            assert payload is not None
            payloads.append(payload)
            priorities.append(task.priority)
            if task.dependencies:
                if dependencies is None:
                    dependencies = [[] for _ in range(row)]
                needs: list[int] = []
                for dependency in task.dependencies:
                    needs.append(dependency.id)
                    if dependency.id not in holders:
                        holders[dependency.id] = self.holders(dependency)
                dependencies.append(needs)
            elif dependencies is not None:
                dependencies.append([])
            if task.options is not None:
                options.append((row, task.options))
            if task.eager:
                eager.append(row)
            if task.buffers is not None:
                buffers.append((row, len(task.buffers)))
                self.frames.extend(task.buffers)
        return ComputeTasks(
            ids,
            keys,
            attempts,
            functions,
            payloads,
            priorities,
            dependencies,
            list(holders.values()) if holders else None,
            options or None,
            buffers or None,
            eager or None,
        )


class ClientQueue:
    """What one client is told in this turn."""

    def __init__(self, client: ClientState) -> None:
        self.client: ClientState = client
        self.messages: list[Message] = []
        #: Ids of the last message, as long as it is a KeysInMemory of this worker and type.
        self.memory_ids: list[int] | None = None
        #: That message, and its values; empty as long as none rides along.
        self.memory: KeysInMemory | None = None
        self.memory_values: list[bytes] = []
        self.memory_bytes: int = 0
        self.memory_worker: int = 0
        self.memory_type: str = ""
        #: The client wants to hear what is received of it, even if there is nothing else to say.
        self.acknowledge: bool = False

    def add(self, message: Message) -> None:
        self.messages.append(message)
        self.memory_ids = None

    def in_memory(self, task: TaskState, worker: WorkerState, value: bytes = b"") -> None:
        ids = self.memory_ids
        if (
            ids is not None
            and self.memory_worker == worker.number
            and self.memory_type == task.type_name
            and self.memory_bytes < MESSAGE_BYTES
        ):
            ids.append(task.id)
            if value or self.memory_values:
                self._ride(value)
            return
        if worker.number not in self.client.met:
            self.client.met.add(worker.number)
            worker.known_to[self.client.number] = None
            self.messages.append(ClientPeers([Peer(worker.number, worker.address)]))
        ids = [task.id]
        self.memory = KeysInMemory(worker.number, task.type_name, ids)
        self.messages.append(self.memory)
        self.memory_ids = ids
        self.memory_worker = worker.number
        self.memory_type = task.type_name
        self.memory_values = []
        self.memory_bytes = 0
        if value:
            self._ride(value)

    def _ride(self, value: bytes) -> None:
        """``value`` is that of the last id."""
        values, ids, message = self.memory_values, self.memory_ids, self.memory
        assert ids is not None and message is not None
        if not values:
            message.values = values
            for _ in range(len(ids) - 1):
                values.append(b"")
        values.append(value)
        self.memory_bytes += len(value)


class Outbox:
    """The queues of one turn. ``flush`` gives them as (session number, messages, frames that ride beside)."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerQueue] = {}
        self.clients: dict[int, ClientQueue] = {}
        #: The queue that was asked for last: several things in a row are mostly for the same worker.
        self._last: WorkerQueue | None = None

    # ------------------------------------------------------------------------------------------- to workers

    def to_worker(self, worker: WorkerState) -> WorkerQueue:
        last = self._last
        if last is not None and last.worker is worker:
            return last
        queue = self.workers.get(worker.number)
        if queue is None:
            queue = WorkerQueue(worker)
            self.workers[worker.number] = queue
        self._last = queue
        return queue

    def compute(self, task: TaskState, worker: WorkerState) -> None:
        queue = self.to_worker(worker)
        if queue.drops and task.id in queue.drops:
            queue.seal()
        function = task.function
        if function is not None and function is not queue.function:
            queue.function = function
            if worker.number not in function.workers:
                function.workers[worker.number] = None
                worker.functions[function] = None
                queue.functions.append(function.id)
                queue.bodies.append(function.body)
                queue.compute_bytes += len(function.body)
        if queue.places is not None:
            queue.places[task] = len(queue.compute)
        queue.compute.append(task)
        payload = task.payload
        if payload is not None:
            queue.compute_bytes += len(payload)
            if queue.compute_bytes > MESSAGE_BYTES:
                # The next ones go in a message of their own.
                queue.seal()

    def drop(self, task: TaskState, worker: WorkerState) -> None:
        """The worker shall forget the value that it has, as is known."""
        self.to_worker(worker).drops[task.id] = None

    def drop_id(self, id: int, worker: WorkerState) -> None:
        """The worker shall forget that key, whatever it has of it; also one that the scheduler no longer knows."""
        queue = self.to_worker(worker)
        queue.drops[id] = None
        queue.unconfirmed[id] = None

    def abandon(self, task: TaskState, worker: WorkerState) -> None:
        """The assignment of ``task`` to ``worker`` is void. When it was not sent yet, nothing is said at all."""
        queue = self.to_worker(worker)
        if not queue.call_off(task):
            queue.drops[task.id] = None
            queue.unconfirmed[task.id] = None

    def say(self, worker: WorkerState, message: Message) -> None:
        """Any other message, behind what was queued before it."""
        queue = self.to_worker(worker)
        queue.seal()
        queue.messages.append(message)

    def take_back(self, worker: WorkerState, tasks: list[TaskState]) -> None:
        self.say(worker, TakeBack([task.id for task in tasks], [task.attempt for task in tasks]))

    def holders_changed(self, worker: WorkerState, tasks: list[TaskState]) -> None:
        queue = self.to_worker(worker)
        holders = [queue.holders(task) for task in tasks]
        self.say(worker, HoldersChanged(holders))

    def fetch(self, worker: WorkerState, tasks: list[TaskState]) -> None:
        queue = self.to_worker(worker)
        holders = [queue.holders(task) for task in tasks]
        self.say(worker, FetchReplicas(holders))

    def renumber(self, worker: WorkerState, id: int, canonical: int) -> None:
        """What the worker calls ``id`` is ``canonical`` here."""
        queue = self.to_worker(worker)
        queue.seal()
        if queue.messages and isinstance(queue.messages[-1], KeysRenumbered):
            queue.messages[-1].ids.append(id)
            queue.messages[-1].canonical.append(canonical)
        else:
            queue.messages.append(KeysRenumbered([id], [canonical]))

    def unlearn(self, worker: WorkerState, function_id: int) -> None:
        queue = self.to_worker(worker)
        queue.seal()
        if queue.messages and isinstance(queue.messages[-1], UnlearnFunctions):
            queue.messages[-1].ids.append(function_id)
        else:
            queue.messages.append(UnlearnFunctions([function_id]))

    # ------------------------------------------------------------------------------------------- to clients

    def to_client(self, client: ClientState) -> ClientQueue:
        queue = self.clients.get(client.number)
        if queue is None:
            queue = ClientQueue(client)
            self.clients[client.number] = queue
        return queue

    def in_memory(self, task: TaskState, worker: WorkerState, value: bytes = b"") -> None:
        for client in task.who_wants:
            if client.number:
                self.to_client(client).in_memory(task, worker, value)

    def erred(self, task: TaskState) -> None:
        for client in task.who_wants:
            if client.number:
                self.erred_for(client, task)

    def erred_for(self, client: ClientState, task: TaskState) -> None:
        error, blame = task.error, task.blame
        assert error is not None
        queue = self.to_client(client)
        last = queue.messages[-1] if queue.messages else None
        if isinstance(last, KeysErred) and last.error is error:
            last.ids.append(task.id)
        else:
            queue.add(KeysErred([task.id], error, task.key if blame is None else blame.key))

    def pending(self, task: TaskState, retried: bool = False) -> None:
        for client in task.who_wants:
            # One that says once more what it had said takes it for failed until it hears, at the end, where all stands: it may be about
            # to cancel it, and does not ask about what has failed.
            if client.number and not (retried and client.phase == RECALLING):
                queue = self.to_client(client)
                last = queue.messages[-1] if queue.messages else None
                if isinstance(last, KeysPending):
                    last.ids.append(task.id)
                else:
                    queue.add(KeysPending([task.id]))

    def lost(self, task: TaskState) -> None:
        for client in task.who_wants:
            if client.number:
                self.to_client(client).add(KeysLost([task.id]))

    def cancelled(self, client: ClientState, ids: list[int], reason: str, msg: str | None) -> None:
        if client.number and ids:
            self.to_client(client).add(KeysCancelled(ids, reason, msg))

    def aliased(self, client: ClientState, ids: list[int], canonical: list[int]) -> None:
        self.to_client(client).add(KeysAliased(ids, canonical))

    # ------------------------------------------------------------------------------------------- performing

    def forget_session(self, number: int) -> None:
        """The party is gone: nothing more is for it."""
        self.workers.pop(number, None)
        self.clients.pop(number, None)
        self._last = None

    def flush(self) -> list[tuple[int, list[Message], list[Any]]]:
        """(session number, messages, frames) for each party that is told something."""
        sends: list[tuple[int, list[Message], list[Any]]] = []
        for number, queue in self.workers.items():
            queue.seal()
            queue.worker.shrink()
            # What an absent party is not told, it is told in another way when it comes back.
            if queue.messages and queue.worker.connected:
                sends.append((number, queue.messages, queue.frames))
        for number, told in self.clients.items():
            client = told.client
            if (told.messages or told.acknowledge) and client.phase != AWAY:
                if client.durable != client.acknowledged:
                    client.acknowledged = client.durable
                    told.messages.append(Received(client.durable))
                if told.messages:
                    sends.append((number, told.messages, []))
        return sends


__all__ = ["ClientQueue", "Outbox", "TaskError", "WorkerQueue"]
