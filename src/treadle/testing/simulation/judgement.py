"""Whether all is as it should be when the faults are over: each outcome is the right one, or has a reason that was injected."""

from __future__ import annotations

from typing import Any

from treadle.client.session.ledger import CANCELLED, ERROR, FINISHED, LOST, KeyState
from treadle.testing.simulation.client import SimulatedClient
from treadle.testing.simulation.cluster import Cluster
from treadle.testing.simulation.disk import told_by


def judge(cluster: Cluster) -> None:
    """Raises AssertionError for a party that is not there, and for a key that is not what it should be."""
    assert cluster.scheduler is not None, "the scheduler has not come back"
    for name in (f"w{number}" for number in range(cluster.scenario.workers)):
        worker = cluster.workers.get(name)
        assert worker is not None and worker.connected, f"{name} has not come back"
        assert worker.id in cluster.core.state.by_worker_id, f"{name} is not known"
    for client in cluster.clients:
        assert client.connected, f"{client.name} has not come back"
        for key, state in client.holds.items():
            _Judge(cluster, client, key).judge(state)


class _Judge:
    def __init__(self, cluster: Cluster, client: SimulatedClient, key: Any) -> None:
        self.cluster = cluster
        self.client = client
        self.key = key
        self.ancestors = cluster.universe.ancestors[key]
        #: Parties may have been given up.
        self.given_up = cluster.jumped or (bool(cluster.cuts or cluster.schedulers_killed) and cluster.scenario.grace_s < 1)
        retried = any([other.retried for other in cluster.everybody])
        restarted = cluster.replaced or cluster.restarted or cluster.suspended
        lost = cluster.killed or cluster.data_lost or cluster.retirements or restarted or retried or self.given_up
        # Keys that were finished at an earlier scheduler are data without a recipe at this one.
        forgotten = cluster.replaced or any([other.forgotten for other in cluster.everybody])
        self.lost_data = bool(lost and (forgotten or self.ancestors & cluster.scattered))

    def judge(self, state: KeyState) -> None:
        cluster, key = self.cluster, self.key
        about = f"{key!r} of {self.client.name} is {state.status}; {cluster.core.story(key)}"
        if state.status is FINISHED:
            self._finished(state, about)
        elif state.status is ERROR:
            failure = state.failure
            assert failure is not None and failure.blame in self.ancestors, f"blames {failure and failure.blame}: {about}"
            self._error(failure.blame, failure.error.exception_text, about)
        elif state.status is CANCELLED:
            self._cancelled(str(getattr(state.detail, "reason", "")), about)
        else:
            assert state.status is LOST and self.lost_data, f"stuck: {about}"

    def _finished(self, state: KeyState, about: str) -> None:
        cluster = self.cluster
        task = cluster.core.state.by_id.get(state.id)
        assert task is not None and task.key == self.key and task.who_has, f"nobody has it: {about}"
        for holder in task.who_has:
            worker = cluster.by_address[holder.address]
            if cluster.suspended and self.ancestors & cluster.scattered and worker.core.stored_key(task.id) is None:
                # Its clock said that the client had had time enough to speak of it: that it is lost is seen when it is used.
                continue
            assert worker.core.stored_key(task.id) is not None, f"{worker.name} should have it: {about}"
            assert worker.store[self.key] == cluster.universe.expected[self.key], f"{worker.name} has a wrong value: {about}"

    def _cancelled(self, reason: str, about: str) -> None:
        cluster, client, ancestors = self.cluster, self.client, self.ancestors
        if reason == "journal-failed":
            assert cluster.disk is not None and cluster.disk.refusals, f"the disk was never full: {about}"
            return
        lost_meanwhile = bool(cluster.schedulers_killed and self.lost_data)
        if reason == "lost-in-scheduler-restart":
            # It was given up itself, or the one was whose key it has attached to, or who has scattered it, too.
            shared = ancestors & (client.attached | cluster.scattered)
            given_up = self.given_up and any([other.forgotten for other in cluster.everybody if other is client or shared])
            assert cluster.replaced or lost_meanwhile or given_up, f"no scheduler was replaced: {about}"
            return
        asked_for = bool(ancestors & (cluster.forced | client.cancelled)) or cluster.restarted
        # It had attached too late; what it referred to was forgotten, and so is all that was to come of it.
        lost_name = reason in ("already forgotten", "lost dependencies") and bool(ancestors & client.attached)
        # The disk was full; the client may have been away when it was told so.
        refused = reason in ("lost dependencies", "already forgotten") and cluster.disk is not None and cluster.disk.refusals
        # It was away for too long, or what others had brought was.
        forgotten = client.forgotten or (self.given_up and bool(ancestors & client.attached))
        # Nobody brought the data in time; the client may have been away when it was told so.
        not_brought = reason == "already forgotten" and lost_meanwhile
        assert asked_for or lost_name or refused or forgotten or not_brought, f"for no reason ({reason}): {about}"

    def _error(self, blame: Any, text: str, about: str) -> None:
        cluster = self.cluster
        if "KilledWorker" in text:
            died = cluster.killed or cluster.cuts or cluster.schedulers_killed
            assert died and cluster.scenario.allowed_failures < 1000, f"killed nobody: {about}"
        elif "does not know this key" in text:
            # The news of the loss may have died with the scheduler, which had not written it down.
            lost_meanwhile = cluster.schedulers_killed and self.lost_data
            assert self.given_up or cluster.replaced or lost_meanwhile, f"nobody was given up: {about}"
        elif "was scattered" in text:
            # Or it was released by all, and somebody asks anew for what was made of it, and dropped.
            asked_late = self.ancestors & self.client.attached and self.ancestors & cluster.scattered
            assert self.lost_data or asked_late, f"no data was lost: {about}"
        else:
            assert "Injected" in text, f"failed with {text}: {about}"
            assert blame in cluster.universe.broken | cluster.flaky, f"{blame!r} was not to fail: {about}"


def nothing_is_left(cluster: Cluster) -> None:
    """All clients have released all. Raises AssertionError when a task, a value or a row is left anywhere."""
    state = cluster.core.state
    left: dict[str, Any] = {
        "tasks": list(state.tasks.values()),
        "ids": list(state.by_id),
        "functions": list(state.functions),
        "groups": list(state.groups),
        "unrunnable": list(state.unrunnable),
        "orphans": list(state.orphans),
        "awaited": list(state.awaited),
        "absent": [*state.absent_workers, *state.absent_clients],
        "queue": state.queue.live,
        "queues": list(state.queues),
        "bytes": state.total_nbytes,
        "copies under way": list(state.replicating),
        "deaths": list(state.deaths),
        "reserved": list(state.reserved),
        "fire and forget": list(state.fire_and_forget.wants_what),
    }
    for client in state.clients.values():
        left[client.id] = [*client.wants_what, *client.aliases, *client.alias_ids, *client.expecting]
    for worker in state.workers.values():
        left[worker.name] = [*worker.has_what, *worker.processing, *worker.actors]
        left[f"occupancy of {worker.name}"] = worker.occupancy
    left = {what: some for what, some in left.items() if some}
    assert not left, f"left on the scheduler: {left}"
    assert len(state.workers) == cluster.scenario.workers, f"{len(state.workers)} workers are there"
    for simulated in cluster.registered_workers():
        assert not simulated.left_over(), f"left on {simulated.name}: {simulated.left_over()}"
    for party in cluster.clients:
        assert not party.left_over(), f"left on {party.name}: {party.left_over()}"
    if cluster.disk is not None:
        told = told_by(cluster.disk).state
        if told.fire_and_forget.wants_what:
            # Of a value with a recipe it knows one copy: it takes what was there all the time for lost, and may have it made once more.
            assert cluster.killed or cluster.cuts or cluster.retirements, f"to be done: {list(told.fire_and_forget.wants_what)}"
            return
        rows = [*told.tasks, *told.functions, *[task for worker in told.workers.values() for task in worker.has_what]]
        assert not rows, f"left in the journal: {rows}"
        assert len(told.workers) == cluster.scenario.workers, f"{len(told.workers)} workers are in the journal"
