"""How many simulated seconds of a cluster go by in one: 20 workers of a thread each, tasks of 5 s on average, heartbeats as in life."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from time import process_time

from treadle.messages.base import Message
from treadle.messages.client_scheduler import ClientHeartbeat
from treadle.messages.codec import encode
from treadle.messages.worker_scheduler import WorkerHeartbeat
from treadle.testing.simulation.client import SimulatedClient
from treadle.testing.simulation.cluster import Cluster
from treadle.testing.simulation.scenario import Scenario
from treadle.testing.simulation.worker import SimulatedWorker

WORKERS = 20
TASK_S = 5.0
WORKER_HEARTBEAT_S = 1.0
CLIENT_HEARTBEAT_S = 5.0


@dataclass(frozen=True)
class Speed:
    """Times in seconds; ``wall_s`` is processor time."""

    simulated_s: float
    wall_s: float
    tasks: int
    steps: int

    def __str__(self) -> str:
        rate = self.simulated_s / self.wall_s
        return (
            f"{rate:.0f} simulated seconds of {WORKERS} workers a second "
            f"({self.simulated_s:.0f} s with {self.tasks} tasks in {self.wall_s:.2f} s, {self.steps} steps)"
        )


def measure(tasks: int = 8000) -> Speed:
    """Layers of tasks over each other, on a cluster without faults; the invariants are not looked at."""
    scenario = Scenario(
        1, tasks=tasks, shape="layers", workers=WORKERS, acts=0, duration_s=TASK_S, grace_s=5.0, recovery_grace_s=5.0, script=()
    )
    cluster = Cluster(scenario, validate_every=0)
    cluster.tick_until = float("inf")
    world = cluster.world
    for number in range(WORKERS):
        cluster.start_worker(f"w{number}")
    cluster.start_client("c")
    world.run(10**6, 1.0)
    (client,) = cluster.clients
    for worker in cluster.workers.values():
        _beat(cluster, worker, WorkerHeartbeat({}), WORKER_HEARTBEAT_S)
    _beat(cluster, client, ClientHeartbeat({}), CLIENT_HEARTBEAT_S)
    client.submit(cluster.universe.keys, cluster.universe.keys, 1)
    # As servers do, which have as many objects that live long.
    gc.collect()
    gc.freeze()
    start, started, steps = process_time(), world.now, world.steps
    while cluster.core.state.total_finished < tasks:
        world.run(10**7, world.now + 20.0)
    gc.unfreeze()
    return Speed(world.now - started, process_time() - start, tasks, world.steps - steps)


def _beat(cluster: Cluster, party: SimulatedWorker | SimulatedClient, message: Message, interval_s: float) -> None:
    body = encode([message])

    def beat() -> None:
        if party.connection is not None:
            party.connection.send(body)
        cluster.world.later(interval_s, beat)

    beat()
