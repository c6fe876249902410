"""A simulated client: the real ledger and messages, driven by chance instead of a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.client.session.frames import SentFrames, confirmation, recollections
from treadle.client.session.ledger import ERROR, KeyState, Ledger, Waiter
from treadle.messages.base import Message, TaskOptions
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ClientRefused,
    ClientWelcome,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysScattered,
    LeaveClient,
    Received,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, encode
from treadle.serialize.spec import dumps_call, dumps_function, dumps_node
from treadle.testing.simulation.functions import leaf
from treadle.testing.simulation.graphs import Universe
from treadle.testing.simulation.network import Connection, Mailbox, World
from treadle.testing.simulation.worker import SimulatedWorker


class _Function:
    """As it was defined."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.name = "leaf"
        self.body = dumps_function(leaf)


class SimulatedClient:
    """One life of a client."""

    def __init__(self, world: World, name: str, universe: Universe) -> None:
        self.world = world
        self.name = name
        self.id = name
        self.universe = universe
        self.ledger = Ledger()
        #: It has a number; its stream, once it has one; and whether the scheduler at the other end has welcomed it.
        self.welcomed = False
        self.connection: Connection | None = None
        self.connected = False
        self.gone = False
        self.number = 0
        #: It came back to a scheduler that did not know it, or not any more.
        self.forgotten = False
        self._sent = SentFrames()
        self._unsent: list[Message] = []
        #: What the user holds on to, a reference each.
        self.holds: dict[Any, KeyState] = {}
        #: Keys it cancelled, and keys that it attached to: these may turn out to be cancelled.
        self.cancelled: set[Any] = set()
        self.attached: set[Any] = set()
        #: It asked for failed tasks to be run again: what they need may be gone for good by then.
        self.retried = False
        #: Submissions of which chunks are still to be sent.
        self.streaming = 0
        self.scattering: set[Any] = set()
        self._mailbox = Mailbox(world, self._take)
        self._function = 0
        self._submissions = 0
        self.refusals = 0

    # ------------------------------------------------------------------------------------------------ messages

    def register(self, connection: Connection) -> None:
        """For the first time, or again."""
        self.connection = connection
        connection.send(encode([RegisterClient(self.id, {}, self.number)]))

    def lose_connection(self) -> None:
        """The stream is broken, what came on it counts; the user goes on."""
        self._mailbox.flush()
        self.connection = None
        self.connected = False

    def _to_scheduler(self, body: bytes) -> None:
        if self.connection is not None:
            self.connection.send(body)

    def _settle_return(self, welcome: ClientWelcome) -> None:
        """As a session does."""
        assert welcome.number == self.number, "it keeps its number"
        self.ledger.take_own_ids()
        if welcome.known:
            self._sent.received(welcome.received)
        else:
            self.forgotten = True
            functions = [_Function(self._function)] if self._function else []
            lost = recollections(self.ledger, self.number, functions, [*self._sent.messages(), *self._unsent])
            if lost:
                self._sent.put_first(encode([*lost, Sent(self._sent.acknowledged)]))
        for frame in self._sent:
            self._to_scheduler(frame.body)
        self.connected = True
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._send(*unsent)
        self._send(confirmation(self.ledger))

    def receive(self, body: bytes) -> None:
        for message in decode_scheduler_to_client(body):
            self._mailbox.add(message)

    def _take(self, messages: list[Any]) -> None:
        wake: list[Waiter] = []
        for message in messages:
            if isinstance(message, ClientWelcome):
                if self.welcomed:
                    self._settle_return(message)
                else:
                    self.number = message.number
                    self.ledger.set_number(message.number)
                    self.welcomed = self.connected = True
            elif isinstance(message, ClientRefused):
                # The journal cannot be written: what is submitted is cancelled.
                self.refusals += 1
            elif isinstance(message, Received):
                self._sent.received(message.sequence)
            else:
                self.ledger.handle(message, wake)

    def _send(self, *messages: Message) -> None:
        if self.gone:
            return
        if self.connected:
            body = encode([*messages, Sent(self._sent.sequence + 1, self.world.random.random() < 0.1)])
            self._sent.keep(body, ())
            self._to_scheduler(body)
        else:
            self._unsent.extend(messages)

    # --------------------------------------------------------------------------------------------- submissions

    def submit(self, targets: Sequence[Any], extra_wanted: Sequence[Any], chunks: int, **fields: Any) -> None:
        """The targets, and what they need and this client has no name for, in so many messages over time."""
        live = {key for key, state in self.ledger.states.items() if state.id}
        available = [key for key in targets if not (self._scattered_under(key) - live)]
        keys = self.universe.closure(available, live)
        if not keys:
            return
        if self.scattering & set(keys):
            # The key would be given two ids at once.
            return
        wanted = {key for key in keys if key in targets or key in extra_wanted}
        # What is referred to stays alive until the last chunk is on its way.
        outside = {need: self.ledger.states[need] for key in keys for need in self.universe.needs[key] if need not in keys}
        for state in outside.values():
            state.refcount += 1
        ids = dict(zip(keys, self.ledger.new_ids(len(keys)), strict=True))
        self._submissions += 1
        size = -(-len(keys) // chunks)
        parts = [keys[start : start + size] for start in range(0, len(keys), size)]
        submission = self._submissions
        self.streaming += 1

        def send(number: int) -> None:
            if self.gone:
                return
            later = set().union(*parts[number + 1 :])
            rows = self._rows(submission, parts[number], ids, outside, wanted, later)
            rows.first_rank = number * size
            for name, value in fields.items():
                setattr(rows, name, value)
            self._send(rows)
            if number + 1 < len(parts):
                self.world.later(self.world.latency(), lambda: send(number + 1))
            else:
                self.streaming -= 1
                self._release(list(outside.values()))

        send(0)

    def _scattered_under(self, key: Any) -> set[Any]:
        return self.universe.ancestors[key] & set(self.universe.scattered)

    def _rows(
        self, submission: int, keys: list[Any], ids: dict[Any, int], outside: dict[Any, KeyState], wanted: set[Any], later: set[Any]
    ) -> SubmitTasks:
        universe = self.universe
        functions, payloads, dependencies, wanted_ids = [], [], [], []
        for key in keys:
            if universe.is_call(key):
                functions.append(self._define())
                payloads.append(dumps_call(*universe.call(key))[0])
            else:
                functions.append(0)
                payloads.append(dumps_node(universe.node(key))[0])
            dependencies.append([ids[need] if need in ids else self.ledger.own_id(outside[need]) for need in universe.needs[key]])
            if key in wanted:
                if key not in self.ledger.states:
                    wanted_ids.append(ids[key])
                # Else it has attached to it meanwhile: the scheduler knows that it wants it, under that id.
                self._hold(key, ids[key])
        brought = [sum(key in universe.needs[other] for other in later) for key in keys]
        return SubmitTasks(
            submission,
            [ids[key] for key in keys],
            keys,
            functions,
            payloads,
            dependencies,
            wanted_ids,
            later_dependents=brought if any(brought) else None,
        )

    def _define(self) -> int:
        if not self._function:
            self._function = self.ledger.new_function_id()
            self._send(DefineFunctions([self._function], ["leaf"], [dumps_function(leaf)]))
        return self._function

    def forget_function(self) -> None:
        """It may define it anew later."""
        if self._function and not self.streaming:
            self._send(ForgetFunctions([self._function]))
            self._function = 0

    def _hold(self, key: Any, id: int) -> None:
        state = self.ledger.states.get(key)
        if state is None:
            state = self.ledger.add(key, id)
        else:
            state.refcount += 1
        self._keep(key, state)

    def _keep(self, key: Any, state: KeyState) -> None:
        """The user holds one reference, whatever was there before."""
        before = self.holds.get(key)
        self.holds[key] = state
        if before is not None:
            self._release([before])

    # ---------------------------------------------------------------------------------------- what users do else

    def _release(self, states: list[KeyState]) -> None:
        ids = self.ledger.release(states)
        if ids:
            self._send(ReleaseKeys(ids))

    def release(self, keys: Sequence[Any]) -> None:
        self._release([self.holds.pop(key) for key in keys])

    def cancel(self, keys: Sequence[Any], force: bool) -> None:
        self.cancelled.update(keys)
        ids = self.ledger.cancel([self.holds.pop(key) for key in keys], "the user's reason", None, [])
        if ids:
            self._send(CancelKeys(ids, force, "the user's reason"))

    def retry(self) -> None:
        self.retried = True
        ids = self.ledger.retry([state for state in self.holds.values() if state.status is ERROR])
        if ids:
            self._send(RetryKeys(ids))

    def attach(self, keys: Sequence[Any]) -> None:
        for key in keys:
            if key in self.scattering:
                continue
            (state,), new, ids = self.ledger.claim([key])
            if new:
                self.attached.add(key)
                self._send(AttachKeys(list(ids), [key]))
            self._keep(key, state)

    def fire_and_forget(self, keys: Sequence[Any]) -> None:
        ids = [self.holds[key].id for key in keys if self.holds[key].id]
        if ids:
            self._send(FireAndForget(ids))
        self.release(keys)

    def scatter(self, key: Any, workers: Sequence[tuple[int, SimulatedWorker]]) -> None:
        """Put the value on these workers (number, worker), and tell the scheduler when all have it."""
        if key in self.ledger.states or key in self.scattering or self.streaming:
            return
        self.scattering.add(key)
        (id,) = self.ledger.new_ids(1)
        takers: list[int] = []
        answers: list[bool] = []

        def answered(number: int, stored: bool) -> None:
            answers.append(stored)
            if stored:
                takers.append(number)
            if len(answers) < len(workers):
                return
            self.scattering.discard(key)
            if takers and not self.gone:
                self._send(KeysScattered([id], [key], [takers], [28], ["int"]))
                self._hold(key, id)
                self.ledger.finish(self.holds[key], takers[0], "int", [])

        for number, worker in workers:
            worker.put(id, key, self.universe.expected[key], lambda stored, number=number: answered(number, stored))  # type: ignore[misc]

    def is_handing_over(self) -> bool:
        """It has put values on workers of which only it can tell the scheduler: they would stay there if it died now."""
        told = [*self._sent.messages(), *self._unsent]
        return bool(self.scattering) or any(isinstance(message, KeysScattered) for message in told)

    def leave(self) -> None:
        """Say goodbye."""
        self._send(LeaveClient())
        self.vanish()

    def vanish(self) -> None:
        self.gone = True
        self.holds.clear()
        self._mailbox.open = False

    def left_over(self) -> dict[str, Any]:
        """What is still here when the user holds nothing any more. (The last frames may be acknowledged with what comes next.)"""
        left: dict[str, Any] = {
            "keys": list(self.ledger.states),
            "ids": list(self.ledger.by_id),
            "unsent": self._unsent,
            "unacknowledged": len(self._sent) if len(self._sent) > 16 else 0,
        }
        return {what: some for what, some in left.items() if some}


def options_for(chance: Any, workers: Sequence[str], retries: int, restricted_share: float, resource: bool) -> TaskOptions | None:
    """What a user may ask of the tasks of a submission."""
    options = TaskOptions(retries=retries)
    if chance.random() < restricted_share:
        options.workers = [chance.choice(list(workers))]
        options.allow_other_workers = chance.random() < 0.5
    elif resource and chance.random() < restricted_share:
        options.resources = {"slot": 1.0}
    return None if options == TaskOptions() else options
