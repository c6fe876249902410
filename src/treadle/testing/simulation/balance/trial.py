"""One simulation of progress and balance from beginning to end, and the judgement at quiet moments."""

from __future__ import annotations

from typing import Final

from treadle.testing.simulation.balance.cluster import BalanceCluster
from treadle.testing.simulation.balance.oracle import Oracle
from treadle.testing.simulation.balance.scenario import BalanceScenario

#: Simulated seconds between two looks, and steps of the simulation that are too many.
LOOK_S: Final = 0.5
MOST_STEPS: Final = 2_000_000
#: Simulated seconds after which everything should be done, beyond what the work itself takes.
MOST_S: Final = 600.0


class BalanceFailure(AssertionError):
    """The scenario, what was wrong, and what had happened before."""

    def __init__(self, scenario: BalanceScenario, what: str, log: list[str]) -> None:
        super().__init__(scenario, what, log)
        self.scenario = scenario
        self.what = what
        self.log = log

    def __str__(self) -> str:
        tail = "\n".join(self.log[-60:])
        return f"{self.scenario}\n\n{tail}\n\n{self.what}"


def simulate_balance(scenario: BalanceScenario, *, logging: bool = False) -> BalanceCluster:
    """Run it to its end. Raises BalanceFailure when somebody stands idle beside work, or something piles up, or is never done."""
    cluster = BalanceCluster(scenario, logging=logging)
    try:
        _run(cluster)
    except Exception as error:
        if not logging:
            simulate_balance(scenario, logging=True)
        raise BalanceFailure(scenario, f"at {cluster.world.now:.3f} s: {type(error).__name__}: {error}", cluster.world.log) from error
    return cluster


def _run(cluster: BalanceCluster) -> None:
    world, scenario = cluster.world, cluster.scenario
    oracle = Oracle(cluster)
    last = cluster.schedule()
    next_look = LOOK_S
    settled = 0
    while True:
        world.run(MOST_STEPS, next_look)
        world.run(MOST_STEPS, next_look + 10 * LOOK_S, until_quiet=True)
        if world.is_quiet:
            oracle.look()
            # When all is done, and for as long as it takes to give up the rest.
            timeout = scenario.no_workers_timeout_s or 0.0
            settled = settled + 1 if world.now > last and not _is_at_work(cluster) else 0
            if settled * LOOK_S > timeout + 8.0:
                break
        assert world.now < last + MOST_S, f"not done: {len(cluster.open)} tasks"
        next_look = max(next_look, world.now) + LOOK_S
    oracle.look_at_end()
    cluster.ticking = False
    for client in cluster.clients.values():
        client.release_all()
    world.run(MOST_STEPS)
    left = list(cluster.core.tasks)
    assert not left, f"left on the scheduler: {left[:5]}"
    cluster.core.validate()


def _is_at_work(cluster: BalanceCluster) -> bool:
    return any(worker.begun for worker in cluster.workers.values())
