"""What happens in a simulation, as a few numbers and a script; everything else follows from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from treadle.testing.simulation.graphs import SHAPES, Shape


class Step(NamedTuple):
    """``what`` is done ``at`` that simulated second (see ``trial``); ``salt`` decides to whom, and how."""

    at: float
    what: str
    salt: int


@dataclass(frozen=True)
class Scenario:
    """Counts are of steps in the whole script, shares of tasks between 0 and 1."""

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
    #: Workers that are killed and started again; whether nannies tell of that.
    deaths: int = 0
    nannies: bool = False
    allowed_failures: int = 1000
    pauses: int = 0
    data_losses: int = 0
    #: Keys whose values clients bring; how many copies of these are kept.
    scattered: int = 0
    scatter_replicas: int = 1
    cancels: bool = True
    #: Clients that say goodbye, and that are killed.
    leaves: bool = True
    client_deaths: int = 0
    #: Everything is forgotten once, as by a restart.
    restart: bool = False
    #: Simulated seconds in which things happen; how much slower than usual messages are; how long tasks take on average.
    horizon_s: float = 0.3
    slowness: float = 1.0
    duration_s: float = 0.002
    saturation: float = 1.1
    prefetch_time_s: float = 0.01
    #: Streams that break and come back: both ways, one way, or because their party connects a second time; streams that stand still.
    cuts: int = 0
    stalls: int = 0
    #: How long the scheduler waits for parties, and for what parties of an earlier one may bring; simulated seconds.
    grace_s: float = 0.0
    recovery_grace_s: float = 0.0
    #: Schedulers that are killed, and whether they have a journal; when that is compacted; times at which the disk is slow, or full.
    scheduler_deaths: int = 0
    #: Their numbers are drawn, as those of real ones are; else they grow.
    drawn: bool = False
    journal: bool = False
    compaction_bytes: int = 2**20
    slow_disks: int = 0
    full_disks: int = 0
    #: Workers that are emptied and closed; clocks that jump.
    retirements: int = 0
    clock_jumps: int = 0
    #: What happens; None: what follows from the numbers above.
    script: tuple[Step, ...] | None = None


#: Acts of clients, with their weights.
ACTS = {"submit": 4, "release": 3, "attach": 1, "retry": 1, "fire and forget": 1, "forget function": 1}


def with_script(scenario: Scenario) -> Scenario:
    """The same, with its script written out."""
    if scenario.script is not None:
        return scenario
    chance = random.Random(f"script {scenario.seed}")
    weights = dict(ACTS)
    if scenario.cancels:
        weights["cancel"] = 2
    if scenario.leaves:
        weights["leave"] = 1
    steps: list[Step] = []

    def add(times: int, what: str, at: float | None = None) -> None:
        for _ in range(times):
            when = chance.uniform(0.05, 0.05 + scenario.horizon_s) if at is None else at
            steps.append(Step(round(when, 6), what, chance.randrange(10**6)))

    add(1 if scenario.acts else 0, "submit", chance.uniform(0.05, 0.1))
    for _ in range(scenario.acts):
        add(1, chance.choices(list(weights), list(weights.values()))[0])
    add(scenario.deaths, "kill worker")
    add(scenario.client_deaths, "kill client")
    add(scenario.pauses, "pause")
    add(scenario.data_losses, "lose data")
    add(scenario.scattered * 2, "scatter")
    add(3, "tick")
    for _ in range(scenario.cuts):
        add(1, chance.choice(("cut", "cut", "cut one way", "connect again", "cut all", "cut one after the other")))
    add(scenario.stalls, "stall")
    add(1 if scenario.restart else 0, "forget everything")
    add(scenario.scheduler_deaths, "kill scheduler")
    add(scenario.slow_disks if scenario.journal else 0, "slow disk")
    add(scenario.full_disks if scenario.journal else 0, "full disk")
    add(scenario.retirements, "retire")
    add(scenario.clock_jumps, "jump")
    return replace(scenario, script=tuple(sorted(steps)))


def scenario_of(seed: int, drawn: bool = True) -> Scenario:
    """A scenario with everything in it, more or less of it by chance. ``drawn`` False: as seeds were meant before numbers were drawn."""
    chance = random.Random(f"scenario {seed}")

    def some(*values: float) -> float:
        return chance.choice(values)

    scenario = Scenario(
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
        nannies=chance.random() < 0.3,
        allowed_failures=chance.choice((1000, 1000, 0)),
        pauses=chance.choice((0, 0, 2)),
        data_losses=chance.choice((0, 0, 2, 10)),
        scattered=chance.choice((0, 0, 2)),
        scatter_replicas=chance.choice((1, 2)),
        cancels=chance.random() < 0.7,
        leaves=chance.random() < 0.5,
        client_deaths=chance.choice((0, 0, 0, 1, 2)),
        restart=chance.random() < 0.1,
        horizon_s=some(0.1, 0.3, 1.0),
        slowness=some(1.0, 1.0, 5.0, 20.0),
        duration_s=some(0.002, 0.002, 0.01, 0.05),
        saturation=some(1.1, 1.1, float("inf"), 2.0),
        prefetch_time_s=some(0.01, 0.1, 0.0),
        cuts=chance.choice((0, 0, 2, 5, 20)),
        stalls=chance.choice((0, 0, 3)),
        grace_s=some(5.0, 5.0, 5.0, 0.03, 0.0),
        recovery_grace_s=2.0,
        scheduler_deaths=chance.choice((0, 0, 1, 1, 3)),
        drawn=drawn,
        journal=chance.random() < 0.7,
        compaction_bytes=chance.choice((2**20, 4000)),
        slow_disks=chance.choice((0, 0, 2)),
        full_disks=chance.choice((0, 0, 0, 1)),
        retirements=chance.choice((0, 0, 2)),
        clock_jumps=chance.choice((0, 0, 0, 2)),
    )
    return with_script(scenario)
