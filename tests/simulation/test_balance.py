"""No worker stands idle beside work that it may do, and nothing piles up: clusters of the real cores, judged from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treadle.testing.simulation.balance.cluster import BalanceCluster
from treadle.testing.simulation.balance.scenario import (
    NAMINGS,
    BalanceScenario,
    Die,
    Join,
    Leave,
    Naming,
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


def test_copies_that_are_on_their_way_count() -> None:
    """One worker has nothing yet, the others have a result each: it does not get all copies of what is scattered at once."""
    early = Submit(0.5, "c", 0, 20)
    steps = (*_workers(20), early, *_workers(1, at=3.0, first=20), Scatter(3.5, "c", 200, ("w0",)))
    simulate_balance(BalanceScenario(1, steps, (0.5,)))


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


def _shares(*, weights: dict[str, float], inside: bool = False) -> BalanceCluster:
    """One client has asked for 600 s of work; another one comes with 20 tasks, or (``inside``) a task of the first one submits them."""
    many = Submit(1.0, "first", 0, 600, "hash")
    few = Submit(10.0, "second", 0, 20, "counter", inside=(0, 0) if inside else None)
    return simulate_balance(BalanceScenario(1, (*_workers(2), many, few), (1.0,), weights=weights))


def test_clients_take_turns() -> None:
    cluster = _shares(weights={})
    # 20 s of its own and as many of the other's, on two workers.
    assert max(cluster.done_at[work.key] for work in cluster.asked[1]) < 40.0


def test_clients_take_turns_by_their_weights() -> None:
    cluster = _shares(weights={"second": 0.25})
    assert 40.0 < max(cluster.done_at[work.key] for work in cluster.asked[1]) < 80.0


def test_what_tasks_submit_counts_as_their_clients() -> None:
    cluster = _shares(weights={}, inside=True)
    assert set(cluster.served) == {"first"}
    account = cluster.core.state.clients["first"].account
    assert abs(account.used_s - 620.0) < 10.0


def test_clients_take_turns_where_tasks_need_a_resource() -> None:
    workers = [Join(0.0, f"w{number}", resources={"GPU": 1.0}) for number in range(2)]
    many = Submit(1.0, "first", 0, 200, resources={"GPU": 1.0})
    few = Submit(10.0, "second", 0, 10, resources={"GPU": 1.0})
    cluster = simulate_balance(BalanceScenario(1, (*workers, many, few), (1.0,)))
    assert max(cluster.done_at[work.key] for work in cluster.asked[1]) < 30.0


def test_a_client_that_was_idle_has_saved_nothing_up() -> None:
    """The second one has had nothing to do for a minute: it does not get the cluster for itself for a minute."""
    early = Submit(1.0, "second", 0, 1)
    many = Submit(2.0, "first", 0, 300)
    late = Submit(60.0, "second", 0, 100)
    simulate_balance(BalanceScenario(1, (*_workers(2), early, many, late), (1.0,)))


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("duration_s", [0.005, 2.0])
def test_durations_are_learned_however_tasks_are_named(naming: Naming, duration_s: float) -> None:
    tasks = Submit(1.0, "c", 0, 300, naming)
    simulate_balance(BalanceScenario(1, (*_workers(5), tasks, Submit(60.0, "c", 0, 200, naming)), (duration_s,), saturation=20.0))


def test_names_that_are_made_up_for_each_task_do_not_pile_up() -> None:
    tasks = [Submit(1.0 + at, "c", 0, 500, "part") for at in range(8)]
    cluster = simulate_balance(BalanceScenario(1, (*_workers(5), *tasks), (0.0001,)))
    assert not cluster.core.state.groups


def test_command_judges_balance() -> None:
    command = [sys.executable, "-m", "treadle.testing.simulation", "--balance", "--seeds", "2", "--first", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "2 of 2 seeds passed" in done.stdout
