"""No worker stands idle beside work that it may do, and nothing piles up: clusters of the real cores, judged from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treadle.testing.simulation.balance.scenario import (
    BalanceScenario,
    Die,
    Join,
    Leave,
    Pause,
    Scatter,
    Submit,
    balance_scenario_of,
)
from treadle.testing.simulation.balance.trial import simulate_balance


@pytest.mark.parametrize("block", range(10))
def test_progress_and_balance(block: int) -> None:
    for seed in range(5 * block, 5 * block + 5):
        simulate_balance(balance_scenario_of(seed))


def _workers(count: int, *, at: float = 0.0, first: int = 0, nthreads: int = 1) -> tuple[Join, ...]:
    return tuple(Join(at, f"w{number}", nthreads) for number in range(first, first + count))


def test_tasks_that_need_a_resource_go_to_workers_that_join_later() -> None:
    first = Join(0.0, "w0", resources={"GPU": 1.0})
    later = [Join(3.0, f"w{number}", resources={"GPU": 1.0}) for number in range(1, 10)]
    tasks = Submit(1.0, "c", 0, 40, resources={"GPU": 1.0})
    cluster = simulate_balance(BalanceScenario(1, (first, *later, tasks), (5.0,)))
    # 200 s of work for ten.
    assert cluster.world.now < 80.0


def test_tasks_that_name_workers_go_to_those_that_join_later() -> None:
    names = tuple(f"w{number}" for number in range(10))
    tasks = Submit(1.0, "c", 0, 40, workers=names)
    simulate_balance(BalanceScenario(1, (*_workers(1), *_workers(9, at=3.0, first=1), tasks), (5.0,)))


def test_tasks_that_need_data_and_a_resource_go_to_workers_that_join_later() -> None:
    first = Join(0.0, "w0", resources={"GPU": 1.0})
    later = [Join(4.0, f"w{number}", resources={"GPU": 1.0}) for number in range(1, 10)]
    asked = (Scatter(1.0, "c", 40, ("w0",)), Submit(2.0, "c", 0, 40, resources={"GPU": 1.0}, needs="own", of=0))
    simulate_balance(BalanceScenario(1, (first, *later, *asked), (5.0,)))


def test_assigned_ahead_without_limit_restricted_tasks_are_taken_back_for_those_who_may_run_them() -> None:
    first = Join(0.0, "w0", resources={"GPU": 1000.0})
    later = [Join(3.0, f"w{number}", resources={"GPU": 1.0}) for number in range(1, 10)]
    tasks = Submit(1.0, "c", 0, 40, resources={"GPU": 1.0})
    simulate_balance(BalanceScenario(1, (first, *later, tasks), (5.0,), saturation=float("inf")))


def test_task_without_a_worker_is_given_up_in_time_whatever_suspects_do() -> None:
    """The suspect has the other worker for itself for 200 s; that is no reason to wait for it."""
    killer = Submit(1.0, "c", 0, 1)
    impossible = Submit(4.0, "c", 1, 1, resources={"GPU": 1.0})
    simulate_balance(BalanceScenario(1, (*_workers(2), killer, Die(2.0, "w0"), impossible), (200.0, 1.0)))


def test_task_whose_only_worker_is_kept_for_a_suspect_waits_for_it() -> None:
    pinned = Submit(4.0, "c", 1, 1, workers=("w1",))
    cluster = simulate_balance(BalanceScenario(1, (*_workers(2), Submit(1.0, "c", 0, 1), Die(2.0, "w0"), pinned), (60.0, 1.0)))
    assert all(work.done for work in cluster.works.values())


def test_second_copies_of_scattered_values_are_spread() -> None:
    simulate_balance(BalanceScenario(1, (*_workers(100), Scatter(1.0, "c", 500, ("w0",))), ()))


def test_copies_of_values_that_are_scattered_one_by_one_are_spread() -> None:
    one_by_one = [Scatter(1.0 + 0.1 * number, "c", 1, ("w0",)) for number in range(200)]
    cluster = simulate_balance(BalanceScenario(1, (*_workers(100), *one_by_one), ()))
    held = [len(worker.store) for name, worker in cluster.workers.items() if name != "w0"]
    assert not any(held), "they are released at the end"


def test_workers_that_have_too_much_are_looked_at_in_turn() -> None:
    """Eight of them have nothing that may move; what the ninth has is wanted by an idle one."""
    pinned = [Submit(0.5, "c", 0, 20, workers=(f"w{number}",)) for number in range(8)]
    movable = (Scatter(1.0, "c", 1, ("w8",)), Submit(2.0, "c", 0, 18, "tuple", needs="own", of=8))
    steps = (*_workers(9), *pinned, *movable, *_workers(1, at=4.0, first=9))
    simulate_balance(BalanceScenario(1, steps, (5.0,), saturation=float("inf"), scatter_replicas=1))


@pytest.mark.parametrize("leave", [Leave(3.0, "w0"), Pause(3.0, "w0", 60.0)], ids=["retires", "pauses"])
def test_worker_that_retires_or_pauses_gives_back_all_that_it_has_not_begun(leave: Leave | Pause) -> None:
    tasks = Submit(1.0, "c", 0, 1200)
    steps = (*_workers(1), tasks, *_workers(1, at=2.5, first=1, nthreads=4), leave)
    simulate_balance(BalanceScenario(1, steps, (0.5,), saturation=float("inf")))


def test_command_judges_balance() -> None:
    command = [sys.executable, "-m", "treadle.testing.simulation", "--balance", "--seeds", "2", "--first", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "2 of 2 seeds passed" in done.stdout
