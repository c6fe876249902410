"""A worker that comes back says what it has; here that is compared with what is known, and the difference is made good. Pure.

A worker that is known goes on where it was: what it finished meanwhile is finished, what it executes goes on, what it was
never sent is sent again, what nobody knows or wants is dropped, and the lists of holders are corrected both ways.
One that is not known (it served an earlier scheduler, or was away for too long) is a new worker, whose values are
looked up by their keys and may have other ids here. What nobody knows may be known soon, when clients come back: see ``orphans``.
"""

from __future__ import annotations

from typing import Any

from treadle.exceptions import PeerProtocolError
from treadle.messages.client_scheduler import KeysPending, ReattachKeys
from treadle.messages.worker_scheduler import DropKeys, Inventory, UnlearnFunctions, WorkerPeersGone
from treadle.scheduler.transitions import reports
from treadle.scheduler.transitions.graph import add_task, get_group
from treadle.scheduler.transitions.membership import forget_met
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    MEMORY,
    NOT_RUNNING,
    PAUSED,
    RELEASED,
    RUNNING,
    SECEDED,
    WAITING,
    ClientState,
    Orphan,
    TaskState,
    WorkerState,
)
from treadle.scheduler.transitions.recovery.orphans import (
    NOBODYS,
    accept_value,
    adopt,
    await_value,
    claim,
    forget_orphans,
    give_up,
    is_chosen,
    is_recovering,
    keep_orphan,
    note_stage,
)
from treadle.scheduler.transitions.rules.common import confirm_replica, remove_replica
from treadle.scheduler.transitions.state import HOLDING, RESTORING, ClusterState
from treadle.scheduler.transitions.wants import RECENTLY_S, alias, check_keys, check_own_ids, want, want_quietly
from treadle.utils.keys import group_of, is_key, key_from_wire


def check_inventory(inventory: Inventory) -> None:
    """Raises PeerProtocolError when it contradicts itself; before anything was changed."""
    length = len(inventory.ids)
    for column in (inventory.keys, inventory.nbytes, inventory.types):
        if len(column) != length:
            raise PeerProtocolError("Inventory: columns of different lengths")
    for column in (inventory.assigned_keys, inventory.attempts, inventory.stages):
        if len(column) != len(inventory.assigned):
            raise PeerProtocolError("Inventory: columns of different lengths")
    for number in inventory.types:
        if not 0 <= number < len(inventory.type_names):
            raise PeerProtocolError(f"Inventory: type {number} of {len(inventory.type_names)}")
    if inventory.status not in (RUNNING, PAUSED):
        raise PeerProtocolError(f"Inventory: a worker cannot be {inventory.status!r}")
    for stage in inventory.stages:
        if not NOT_RUNNING <= stage <= SECEDED:
            raise PeerProtocolError(f"Inventory: an assignment cannot be at {stage}")
    for keys in (inventory.keys, inventory.assigned_keys):
        for key in keys:
            if not is_key(key):
                raise PeerProtocolError(f"Inventory: {key!r} cannot be a key")


class Reconciliation:
    """One inventory, compared with the state. ``known``: the worker is the one it was, and its ids are those of here."""

    def __init__(self, state: ClusterState, worker: WorkerState, inventory: Inventory, known: bool, out: Outbox) -> None:
        self.state: ClusterState = state
        self.worker: WorkerState = worker
        self.inventory: Inventory = inventory
        self.known: bool = known
        self.out: Outbox = out
        self.drops: dict[int, None] = {}
        #: (id at the worker, id here) of values.
        self.renames: list[tuple[int, int]] = []
        #: Tasks whose values are here, and assignments that go on.
        self.held: dict[TaskState, None] = {}
        self.going: dict[TaskState, None] = {}
        #: Said by clients to be here, of which the inventory does not know.
        self.unsure: list[TaskState] = []
        #: Executing, and not assigned to it: (task, stage, attempt).
        self.adoptable: list[tuple[TaskState, int, int]] = []

    def run(self) -> None:
        out, worker = self.out, self.worker
        if self.worker.orphans:
            forget_orphans(self.state, worker, {*self.inventory.ids, *self.inventory.assigned})
        self._take_values()
        self._take_assignments()
        moved = self._take_wishes()
        if self.drops:
            # What it was fetching may have come, and the news of it be behind the inventory.
            out.say(worker, DropKeys(list(self.drops), list(self.drops)))
        for id, canonical in self.renames:
            out.renumber(worker, id, canonical)
        self._take_acquaintances()
        if moved:
            out.holders_changed(worker, moved)
        confirm_replica(self.state, worker, self.unsure, out)
        if self.known:
            self._send_again()
        for task, stage, attempt in self.adoptable:
            if not adopt(self.state, task, worker, stage, attempt, out):
                out.drop_id(task.id, worker)

    def _find(self, id: int, wire: Any) -> TaskState | None:
        if self.known:
            task = self.state.by_id.get(id)
            if task is not None:
                return task
        task = self.state.tasks.get(key_from_wire(wire))
        return None if task is not None and task.id != id and is_chosen(task) else task

    def _is_another(self, task: TaskState, id: int) -> bool:
        """Whether what the worker has under that id, and the task's key, may be another value than the task's."""
        if task.id == id or (len(task.who_has) == 1 and task.who_has[0] is self.worker and task not in self.held):
            # A client has said that it is here, and there is nothing else that could be meant.
            return False
        # Unless the client that gave the id has said that it is the task's.
        client = self.state.clients_by_number.get(id >> 32)
        return client is None or client.aliases.get(id) is not task

    def _kept(self, key: Any, id: int) -> Orphan | None:
        """It, when it is kept for somebody who may ask for it, since the worker came for the first time."""
        orphan = self.worker.orphans.get(id)
        return orphan if orphan is not None and orphan.key == key else None

    def _take_values(self) -> None:
        state, worker, inventory, out = self.state, self.worker, self.inventory, self.out
        fresh = set(inventory.fresh)
        rows: list[int] = []
        others: list[int] = []
        for row, id in enumerate(inventory.ids):
            # Of two values for one key, the one that has its name is meant.
            (rows if id in state.by_id else others).append(row)
        rows += others
        for row in rows:
            id = inventory.ids[row]
            nbytes = inventory.nbytes[row]
            type_name = inventory.type_names[inventory.types[row]]
            task = self._find(id, inventory.keys[row])
            # Put there of late by a client that has not said so: under a key that is known it may be another value, which replaces that.
            is_fresh = id in fresh and (self.known if task is None else self._is_another(task, id))
            # What was not yet in the journal when the scheduler before died, clients send again; perhaps with the number that
            # the worker had with one before that.
            is_unwritten = task is None and state.is_successor and is_recovering(state)
            if is_fresh or is_unwritten or (task is None and not self.known):
                orphan = Orphan(worker, id)
                orphan.nbytes = nbytes
                orphan.type_name = type_name
                orphan.is_fresh = id in fresh
                # The news of a fresh one is on its way, or has come and gone while the worker was away: then nobody asks for it.
                keep_orphan(state, NOBODYS if is_fresh and not is_unwritten else key_from_wire(inventory.keys[row]), orphan)
            elif task is None:
                kept = self._kept(key_from_wire(inventory.keys[row]), id)
                if kept is None:
                    self.drops[id] = None
                else:
                    # It was executing when the worker came before.
                    kept.stage, kept.nbytes, kept.type_name = NOT_RUNNING, nbytes, type_name
            elif task not in self.held and accept_value(state, task, worker, nbytes, type_name, out):
                if task.id != id:
                    self.renames.append((id, task.id))
                self.held[task] = None
            else:
                self.drops[id] = None
        for task in list(worker.has_what):
            if task in self.held:
                continue
            # What a client has announced meanwhile may have come behind the inventory, unless that says that it came and went.
            if task.id in fresh or state.now - worker.announced.get(task, -1e300) > RECENTLY_S:
                remove_replica(state, task, worker)
                worker.actors.pop(task, None)
                if not task.who_has:
                    state.recommend(task, RELEASED)
            else:
                self.unsure.append(task)

    def _take_assignments(self) -> None:
        state, worker, inventory = self.state, self.worker, self.inventory
        for row in range(len(inventory.assigned)):
            id = inventory.assigned[row]
            stage = inventory.stages[row]
            attempt = inventory.attempts[row]
            task = self._find(id, inventory.assigned_keys[row])
            if task is None:
                # Its report may be on its way, and a client may be about to send it once more, under the same id.
                state.first_attempt = max(state.first_attempt, attempt)
                if not self.known and stage != NOT_RUNNING:
                    orphan = Orphan(worker, id)
                    orphan.attempt = attempt
                    orphan.stage = stage
                    keep_orphan(state, key_from_wire(inventory.assigned_keys[row]), orphan)
                elif self._kept(key_from_wire(inventory.assigned_keys[row]), id) is None:
                    self.drops[id] = None
            elif task.id != id:
                self.drops[id] = None
            elif task.processing_on is worker:
                # If it is another attempt there, the assignment is sent again, and goes on under the new number.
                if task.attempt == attempt:
                    self.going[task] = None
                    note_stage(state, task, worker, stage)
            elif stage != NOT_RUNNING or state.phase == HOLDING:
                # While the workers of a journal come back, what one was given stays with it: it may begin at any moment.
                self.adoptable.append((task, stage, attempt))
            else:
                self.drops[id] = None

    def _take_wishes(self) -> list[TaskState]:
        """Values that it waits for. Returns those whose holders it is to be told: copies that it was only to keep are ordered anew."""
        moved: list[TaskState] = []
        needed: dict[TaskState, None] = {}
        for going in self.going:
            for dependency in going.dependencies:
                needed[dependency] = None
        for id in self.inventory.fetching:
            # It may have come by now, and the report of that be on its way.
            task = self.state.by_id.get(id)
            if task is not None and task.state == MEMORY and task not in self.held and task in needed:
                moved.append(task)
            else:
                self.drops[id] = None
        return moved

    def _take_acquaintances(self) -> None:
        """Workers that it has met, and functions that it has learned."""
        state, worker, inventory, out = self.state, self.worker, self.inventory, self.out
        gone: list[int] = []
        forget_met(state, worker.number, worker.met)
        for number in inventory.peers:
            peer = state.by_number.get(number) if self.known else None
            if peer is not None:
                worker.met.add(number)
                peer.known_to[worker.number] = None
            else:
                gone.append(number)
        if gone:
            out.say(worker, WorkerPeersGone(gone))
        learned = set(inventory.functions) if self.known else set()
        for function in list(worker.functions):
            if function.id not in learned:
                del worker.functions[function]
                function.workers.pop(worker.number, None)
        for id in learned:
            known = state.functions.get(id)
            if known is not None:
                known.workers[worker.number] = None
                worker.functions[known] = None
        unlearn = [id for id in inventory.functions if not self.known or id not in state.functions]
        if unlearn:
            out.say(worker, UnlearnFunctions(unlearn))

    def _send_again(self) -> None:
        """Assignments that it does not have never arrived, or were lost with the report of their end."""
        state, worker, out = self.state, self.worker, self.out
        failed = {row.id: row for row in self.inventory.erred}
        for task in list(worker.processing):
            if task in self.going or task.state == MEMORY:
                continue
            worker.executing.pop(task, None)
            row = failed.get(task.id)
            if row is not None and row.attempt == task.attempt:
                reports.task_erred(state, task, row.error)
            elif task in worker.taking_back or not task.has_recipe:
                state.recommend(task, WAITING)
            else:
                out.compute(task, worker)
        worker.taking_back.clear()


def reattach_keys(state: ClusterState, client: ClientState, message: ReattachKeys, out: Outbox) -> None:
    """A client wants keys of before. Those that are not known yet are awaited."""
    if len(message.ids) != len(message.keys):
        raise PeerProtocolError("ReattachKeys: columns of different lengths")
    check_keys(message)
    check_own_ids(state, client, message)
    pending: list[int] = []
    for id, wire in zip(message.ids, message.keys, strict=True):
        key = key_from_wire(wire)
        task = state.tasks.get(key)
        if task is not None:
            alias(client, id, task, out)
            want(state, client, task, out)
        elif key in state.orphans or is_recovering(state) or state.phase == RESTORING:
            task = TaskState(id, key, get_group(state, group_of(key), key), (0.0, state.generation, 0))
            add_task(state, task)
            want_quietly(client, task)
            if not claim(state, task, False, out):
                await_value(state, task, out)
                pending.append(id)
        else:
            give_up(state, client, id, out)
    if pending:
        out.to_client(client).add(KeysPending(pending))
