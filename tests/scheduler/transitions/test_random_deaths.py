"""Random lives of a cluster in which workers die, retire, pause and reschedule. Every invariant is checked after every event."""

import random

import pytest

from treadle.messages.base import TaskOptions
from treadle.messages.scheduler_local import Retire
from treadle.scheduler.transitions.rules.quarantine import PATIENCE_S
from treadle.testing.scheduler_scene import SchedulerScene


class Life:
    """What may happen next, and what is known of who does what."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.scene = SchedulerScene(scatter_replicas=2, allowed_failures=2, no_workers_timeout_s=self.random.choice([None, 1000.0]))
        self.scene.client("c")
        self.born = 0
        self.keys = 0
        self.wanted = []
        for _ in range(3):
            self.come()

    @property
    def state(self):
        return self.scene.core.state

    def workers(self):
        return [worker for worker in self.state.workers.values() if worker.connected]

    def come(self):
        if len(self.state.workers) < 5:
            self.born += 1
            host = f"h{self.random.randrange(3)}"
            resources = {"gpu": 1.0} if self.random.random() < 0.5 else None
            nanny = f"n{self.born}" if self.random.random() < 0.7 else None
            self.scene.worker(f"w{self.born}", self.random.choice([1, 2]), host=host, resources=resources, nanny=nanny)

    def submit(self):
        names = []
        for _ in range(self.random.randint(1, 6)):
            self.keys += 1
            names.append(f"k{self.keys}")
        needs = [key for key in self.wanted if self.random.random() < 0.2]
        options = None
        if self.random.random() < 0.4:
            options = self.random.choice(
                [
                    TaskOptions(workers=[f"h{self.random.randrange(3)}"]),
                    TaskOptions(workers=[f"h{self.random.randrange(3)}"], allow_other_workers=True),
                    TaskOptions(resources={"gpu": 1.0}),
                    TaskOptions(actor=True),
                ]
            )
        self.scene.submit(" ".join(needs) + (" -> " if needs else "") + " ".join(names), wanted=names, options=options)
        self.wanted += names

    def pick(self):
        busy = [worker for worker in self.workers() if worker.processing]
        if not busy:
            return None, None
        worker = self.random.choice(busy)
        tasks = list(worker.processing)[: worker.nthreads + 1]
        return worker.name, self.random.choice(tasks).key

    def finish(self):
        name, key = self.pick()
        if name is not None:
            self.scene.finish(key, on=name)

    def start(self):
        name, key = self.pick()
        if name is not None:
            self.scene.start(key, on=name)
            if self.random.random() < 0.3:
                self.scene.secede(key, on=name)

    def reschedule(self):
        name, key = self.pick()
        if name is not None:
            self.scene.reschedule(key, on=name)

    def give_back(self):
        for worker in self.workers():
            if worker.taking_back:
                keys = [task.key for task in worker.taking_back]
                cut = self.random.randint(0, len(keys))
                self.scene.give_back(*keys[:cut], on=worker.name, kept=keys[cut:])
                return

    def die(self):
        workers = self.workers()
        if workers:
            worker = self.random.choice(workers)
            executing = [task.key for task in worker.processing][: worker.nthreads]
            if worker.nanny is not None and self.random.random() < 0.7:
                self.scene.die(worker.name, *executing, planned=self.random.random() < 0.2)
            else:
                self.scene.lose(worker.name, blame=self.random.random() < 0.8)

    def pause(self):
        workers = self.workers()
        if workers:
            worker = self.random.choice(workers)
            (self.scene.resume if worker.status == "paused" else self.scene.pause)(worker.name)

    def retire(self):
        workers = self.workers()
        if workers:
            worker = self.random.choice(workers)
            self.scene.turn([("", Retire([worker.number], retiring=worker.status != "closing_gracefully"), [])])

    def scatter(self):
        workers = self.workers()
        if workers:
            self.keys += 1
            self.scene.scatter(f"k{self.keys}", to=[self.random.choice(workers).name])
            self.wanted.append(f"k{self.keys}")

    def copy(self):
        for task, recipients in self.state.replicating.items():
            self.scene.copy(task.key, on=self.random.choice(recipients).name)
            return

    def release(self):
        if self.wanted:
            key = self.wanted.pop(self.random.randrange(len(self.wanted)))
            self.scene.release(key)

    def tick(self):
        self.scene.tick(self.random.choice([0.5, 3.0, PATIENCE_S + 1]))

    def live(self, steps):
        acts = [self.finish] * 5 + [self.start] * 2 + [self.submit, self.come, self.give_back, self.copy, self.tick] * 2
        acts += [self.die, self.pause, self.retire, self.scatter, self.release, self.reschedule]
        for _ in range(steps):
            self.random.choice(acts)()

    def settle(self):
        """All faults stop, and there is a worker for everything: what is wanted comes to its end."""
        for host in range(3):
            self.scene.worker(f"last{host}", 2, host=f"h{host}", resources={"gpu": 1.0})
        for worker in self.workers():
            if worker.status == "paused":
                self.scene.resume(worker.name)
            if worker.status == "closing_gracefully":
                self.scene.turn([("", Retire([worker.number], retiring=False), [])])
        for _ in range(2000):
            self.give_back()
            busy = [worker for worker in self.workers() if worker.processing]
            if not busy:
                self.scene.tick(5)
                if not any(worker.processing for worker in self.workers()):
                    return
            else:
                worker = busy[0]
                self.scene.finish(next(iter(worker.processing)).key, on=worker.name)
        raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_all_is_done_or_failed_for_a_reason_and_nothing_is_left(seed):
    life = Life(seed)
    life.live(250)
    life.settle()
    states = {key: life.scene.state(key) for key in life.wanted}
    assert set(states.values()) <= {"memory", "erred"}, states
    if life.wanted:
        life.scene.release(*life.wanted)
    life.scene.nothing_left()
    state = life.state
    assert not state.reserved and not state.suspects and not state.queues and not state.avoided
    assert not state.replicating and not state.under_replicated
