"""What happens in a simulation, as a few numbers; everything else follows from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from treadle.testing.simulation.graphs import SHAPES, Shape


@dataclass(frozen=True)
class Scenario:
    """Counts are of events in the whole simulation, shares of tasks between 0 and 1."""

    seed: int
    tasks: int = 12
    shape: Shape = "random"
    clients: int = 1
    workers: int = 2
    nthreads: int = 1
    #: Acts of clients: submit, release, cancel, retry, attach and so on.
    acts: int = 5
    #: Most messages that a submission comes in.
    chunks: int = 1
    #: Tasks whose function raises; tasks that fail ``flaky`` times and then succeed; retries that are asked for.
    broken_share: float = 0.0
    flaky_share: float = 0.0
    retries: int = 0
    #: Executions that raise ``Reschedule``.
    reschedule_share: float = 0.0
    #: Submissions that ask for certain workers, or for a resource.
    restricted_share: float = 0.0
    deaths: int = 0
    allowed_failures: int = 1000
    pauses: int = 0
    data_losses: int = 0
    #: Keys whose values clients bring.
    scattered: int = 0
    cancels: bool = True
    leaves: bool = True
    #: Everything is forgotten once, as by a restart.
    restart: bool = False
    #: Simulated seconds in which things happen; how much slower than usual messages are.
    horizon_s: float = 0.3
    slowness: float = 1.0
    saturation: float = 1.1
    prefetch_time_s: float = 0.01
    #: Streams that break and come back; how long the scheduler waits for that, simulated seconds.
    cuts: int = 0
    grace_s: float = 0.0


def scenario_of(seed: int) -> Scenario:
    """A scenario with everything in it, more or less of it by chance."""
    chance = random.Random(f"scenario {seed}")

    def some(*values: float) -> float:
        return chance.choice(values)

    return Scenario(
        seed=seed,
        tasks=chance.choice((1, 3, 8, 20, 50)),
        shape=chance.choice(SHAPES),
        clients=chance.choice((1, 1, 2, 3)),
        workers=chance.choice((1, 2, 3, 5)),
        nthreads=chance.choice((1, 1, 2, 4)),
        acts=chance.choice((1, 3, 10, 25, 60)),
        chunks=chance.choice((1, 1, 2, 5)),
        broken_share=some(0, 0, 0.05, 0.2),
        flaky_share=some(0, 0, 0.1, 0.3),
        retries=chance.choice((0, 0, 1, 3)),
        reschedule_share=some(0, 0, 0.05),
        restricted_share=some(0, 0, 0.3, 1.0),
        deaths=chance.choice((0, 0, 1, 3, 6)),
        allowed_failures=chance.choice((1000, 1000, 0)),
        pauses=chance.choice((0, 0, 2)),
        data_losses=chance.choice((0, 0, 2, 10)),
        scattered=chance.choice((0, 0, 2)),
        cancels=chance.random() < 0.7,
        leaves=chance.random() < 0.5,
        restart=chance.random() < 0.1,
        horizon_s=some(0.1, 0.3),
        slowness=some(1.0, 1.0, 5.0, 20.0),
        saturation=some(1.1, 1.1, float("inf"), 2.0),
        prefetch_time_s=some(0.01, 0.1, 0.0),
        cuts=chance.choice((0, 0, 2, 5, 20)),
        grace_s=5.0,
    )
