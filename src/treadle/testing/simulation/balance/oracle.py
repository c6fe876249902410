"""What must hold whenever no message is on its way: judged from outside, by what the workers do and what was asked for.

The rules are those of somebody who looks at the cluster and knows how long tasks take. Nothing of the scheduler's placement is called.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

from treadle.testing.simulation.balance.cluster import BalanceCluster
from treadle.testing.simulation.balance.parties import TimedWorker, Work
from treadle.testing.simulation.balance.scenario import Submit

#: Simulated seconds that something may be wrong before it counts: so long may it take to hear of it and to mend it.
PATIENCE_S: Final = 5.0
#: A task that waits on a worker is no worse off than on another one while its turn comes so soon, seconds.
SOON_S: Final = 0.3
#: Time after which a suspect is tried beside other tasks, and a margin.
SUSPECTS_S: Final = 45.0
#: A worker may have so many times the copies that it had if all had the same, and a few more.
MOST_UNEVEN: Final = 3
FEW: Final = 8
#: A worker's booked load is right if it is off by no more than that factor, and by so many seconds a task, once so many have finished.
MOST_WRONG: Final = 3.0
SLACK_S: Final = 0.1
KNOWN: Final = 30
#: Names that the scheduler may keep what it has learned by, when nothing is left to do.
MOST_NAMES: Final = 2_000


class Oracle:
    """``look`` at quiet moments; ``look_at_end`` when everything has been done. Both raise AssertionError."""

    def __init__(self, cluster: BalanceCluster) -> None:
        self.cluster = cluster
        #: What is wrong, as a name of it, since when.
        self._since: dict[Any, float] = {}
        #: For two accounts that have both been waiting since then: what each had been served.
        self._both_wait: dict[tuple[str, str], tuple[float, float]] = {}
        self._is_simple = cluster.scenario.saturation < 10 and all(
            step.workers is None and not step.resources and step.needs == "nothing" and step.priority == 0
            for step in cluster.scenario.steps
            if isinstance(step, Submit)
        )
        self.looks = 0

    # ------------------------------------------------------------------------------------------------ progress

    def look(self) -> None:
        self.looks += 1
        now = self.cluster.world.now
        taking = self._taking()
        patience = SUSPECTS_S if self.cluster.deaths else PATIENCE_S
        wrong = {what: (patience, line) for what, line in self._beside_idle_workers(taking).items()}
        wrong.update({what: (PATIENCE_S, line) for what, line in self._on_workers_that_leave(taking).items()})
        wrong.update({what: (PATIENCE_S, line) for what, line in self._wrong_loads(taking).items()})
        self._look_at_shares(taking)
        timeout_s = self.cluster.scenario.no_workers_timeout_s
        if timeout_s is not None:
            wrong.update({what: (timeout_s + PATIENCE_S, line) for what, line in self._without_workers(taking).items()})
        self._since = {what: self._since.get(what, now) for what in wrong}
        for what, (limit, line) in wrong.items():
            assert now - self._since[what] < limit, f"for {now - self._since[what]:.1f} s: {line}"

    def _taking(self) -> list[TimedWorker]:
        """Workers that take tasks."""
        return [worker for worker in self.cluster.workers.values() if worker.connected and not worker.paused and not worker.retiring]

    def _on_workers_that_leave(self, taking: list[TimedWorker]) -> dict[Any, str]:
        """Tasks that have not begun on a worker that is to have no tasks, and that others may run."""
        wrong: dict[Any, str] = {}
        for worker in self.cluster.workers.values():
            if not worker.retiring and not worker.paused:
                continue
            for key in worker.waiting():
                if any(self._might_run(other, self.cluster.works[key], taking) for other in taking):
                    wrong["leaves", worker.name] = f"{key!r} waits on {worker.name}, which retires or pauses, with {len(worker.waiting())}"
                    break
        return wrong

    def _without_workers(self, taking: list[TimedWorker]) -> dict[Any, str]:
        """Ready tasks that nobody may run."""
        wrong: dict[Any, str] = {}
        possible: dict[Any, bool] = {}
        for key, work in self.cluster.open.items():
            if work.error or work.done or not all(need.done for need in work.needs):
                continue
            if work.wish not in possible:
                possible[work.wish] = any(self._might_run(worker, work, taking) for worker in taking)
            if not possible[work.wish]:
                wrong["nobody", key] = f"{key!r} has no worker ({work.wish}), and is not given up: {self.cluster.core.story(key)}"
        return wrong

    def _beside_idle_workers(self, taking: list[TimedWorker]) -> dict[Any, str]:
        """Tasks that could begin at once on another worker than where they wait, if they were there."""
        idle = [worker for worker in taking if worker.free_threads > 0]
        given: dict[Any, TimedWorker] = {}
        soon: set[Any] = set()
        for worker in self.cluster.workers.values():
            waiting = worker.waiting()
            ahead = self._left_to_execute(worker)
            stands_still = worker.paused or worker.retiring
            for key in waiting:
                given[key] = worker
                if not stands_still and ahead / worker.nthreads < SOON_S:
                    soon.add(key)
                ahead += self.cluster.works[key].duration_s
        running = {key for worker in self.cluster.workers.values() for key in worker.begun}
        wrong: dict[Any, str] = {}
        seen: set[Any] = set()
        for key, work in self.cluster.open.items():
            if key in running or key in soon or work.error or work.done or not all(need.done for need in work.needs):
                continue
            where = given.get(key)
            kind = (work.wish, None if where is None else where.name)
            if kind in seen:
                continue
            seen.add(kind)
            for worker in idle:
                if worker is not where and self._may_run(worker, work, taking):
                    place = "in the scheduler" if where is None else f"on {where.name} ({len(where.waiting())} wait there)"
                    wrong[kind, worker.name] = f"{key!r} waits {place} while {worker.name} stands idle and may run it ({work.wish})"
                    break
        return wrong

    def _wrong_loads(self, taking: list[TimedWorker]) -> dict[Any, str]:
        """Workers whose load is booked wrongly although it is known how long tasks of these functions take."""
        cluster = self.cluster
        wrong: dict[Any, str] = {}
        if cluster.scenario.saturation == inf:
            # What was assigned before anything was known is not booked anew.
            return wrong
        for worker in taking:
            works = [cluster.works[key] for key in [*worker.begun, *worker.waiting()]]
            if not works or any(cluster.finished.get(work.function, 0) < KNOWN for work in works):
                continue
            if len({work.naming for work in works}) != len({work.function for work in works}):
                continue
            true = sum(work.duration_s for work in works)
            booked = cluster.core.state.by_name[worker.name].occupancy
            slack = SLACK_S * len(works)
            if not true / MOST_WRONG - slack <= booked <= true * MOST_WRONG + slack:
                wrong["load", worker.name] = f"{worker.name} has work for {true:.3f} s, the scheduler expects {booked:.3f} s"
        return wrong

    def _look_at_shares(self, taking: list[TimedWorker]) -> None:
        """Clients that all have tasks waiting, which any worker may run, are served alike, but for what is under way."""
        if not self._is_simple or not taking:
            return
        cluster = self.cluster
        running = {key for worker in cluster.workers.values() for key in worker.begun}
        waiting = dict.fromkeys(work.account for key, work in cluster.open.items() if key not in running and not work.error)
        slack = 2.0 + 4 * max(cluster.scenario.durations, default=0.0) * sum(worker.nthreads for worker in taking)
        both: dict[tuple[str, str], tuple[float, float]] = {}
        for one in waiting:
            for other in waiting:
                if one >= other:
                    continue
                served = (cluster.served.get(one, 0.0), cluster.served.get(other, 0.0))
                before = both[one, other] = self._both_wait.get((one, other), served)
                shares = [(served[at] - before[at]) / cluster.scenario.weights.get(name, 1.0) for at, name in enumerate((one, other))]
                assert abs(shares[0] - shares[1]) < slack, f"since {one} and {other} both wait, they were served {shares} s by weight"
        self._both_wait = both

    def _left_to_execute(self, worker: TimedWorker) -> float:
        now = self.cluster.world.now
        left = 0.0
        for key, since in worker.begun.items():
            left += max(0.0, self.cluster.works[key].duration_s - (now - since))
        return left

    def _might_run(self, worker: TimedWorker, work: Work, taking: list[TimedWorker]) -> bool:
        """Whether it fulfils all wishes, if it had nothing else to do."""
        if work.workers is not None and not _is_named(worker, work.workers):
            if not work.allow_other_workers or any(_is_named(other, work.workers) and _has(other, work) for other in taking):
                return False
        return _has(worker, work)

    def _may_run(self, worker: TimedWorker, work: Work, taking: list[TimedWorker]) -> bool:
        """Whether it can begin it now, if it has a thread to spare."""
        if not self._might_run(worker, work, taking):
            return False
        for name, amount in work.resources.items():
            used = sum(self.cluster.works[key].resources.get(name, 0.0) for key in worker.begun)
            if worker.resources.get(name, 0.0) - used < amount:
                return False
        return True

    # ----------------------------------------------------------------------------------------------- at the end

    def look_at_end(self) -> None:
        """Everything that could be done is done, and nothing else is left to happen."""
        cluster = self.cluster
        for work in cluster.works.values():
            if work.done or work.error:
                continue
            needs = work.needs
            if any(need.error or (need.scattered and not need.done) for need in needs):
                continue
            if all(need.done for need in needs):
                possible = any(self._might_run(worker, work, self._taking()) for worker in self._taking())
                assert not possible, f"{work.key!r} was never done: {cluster.core.story(work.key)}"
        for name, since in cluster.leaving.items():
            raise AssertionError(f"{name} retires for {cluster.world.now - since:.0f} s, and is still here")
        self._copies_are_spread()
        self._names_do_not_pile_up()

    def _copies_are_spread(self) -> None:
        """Of scattered values: the second copies, wherever the first ones were put."""
        cluster = self.cluster
        workers = self._taking()
        if cluster.scenario.scatter_replicas < 2 or len(workers) < 2 or any(worker.paused for worker in cluster.workers.values()):
            return
        used = {need.key for work in cluster.works.values() for need in work.needs}
        for place, works in cluster.asked.items():
            if not works or not works[0].scattered or not all(work.done for work in works):
                continue
            if any(work.key in used for work in works):
                # Workers have copies of what they needed.
                continue
            for work in works:
                copies = sum(work.key in worker.store for worker in workers)
                assert copies >= 2, f"{work.key!r} has {copies} copies, and there are {len(workers)} workers"
            # Who has joined later had nothing to take.
            held = {
                worker.name: sum(work.key in worker.store for work in works) for worker in workers if worker.name in cluster.there[place]
            }
            # The workers that they were put on have all of them.
            others = sorted(count for name, count in held.items() if name not in cluster.onto[place])
            if others and not cluster.deaths and not cluster.has_retired:
                mean = sum(others) / len(others)
                assert others[-1] <= MOST_UNEVEN * mean + FEW, f"step {place}: copies by worker are {held}"

    def _names_do_not_pile_up(self) -> None:
        state = self.cluster.core.state
        assert len(state.prefixes) <= MOST_NAMES, f"{len(state.prefixes)} prefixes are kept"
        assert len(state.groups) <= MOST_NAMES + len(self.cluster.works) / 2, f"{len(state.groups)} groups are kept"


def _has(worker: TimedWorker, work: Work) -> bool:
    return all(worker.resources.get(name, 0.0) >= amount for name, amount in work.resources.items())


def _is_named(worker: TimedWorker, names: tuple[str, ...]) -> bool:
    return worker.name in names or worker.address in names or worker.host in names
