"""Kill ``dask-scheduler --journal`` again and again in the middle of many tasks."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from treadle.testing.chaos.machine import Machine
from treadle.testing.chaos.run import Run


def run_scheduler(*, seed: int, limit_s: float, tasks: int, kills: int, n_workers: int, threads: int) -> Run:
    """Kill the scheduler ``kills`` times in the middle of ``tasks`` tasks. Check the values, and how often each task ran."""
    run = Run()
    random_numbers = random.Random(seed)
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treadle-chaos-")))
        machine = Machine(home)
        stack.callback(machine.end)
        stack.enter_context(run.limit(limit_s, machine.logs, machine.end))
        run.say(f"{tasks} tasks on {n_workers} workers of {threads} threads; the scheduler is killed {kills} times; seed {seed}")
        scheduler = machine.scheduler()
        for number in range(n_workers):
            machine.worker(f"worker-{number}", threads)
        client = stack.enter_context(machine.client())
        client.wait_for_workers(n_workers)
        ran = home / "ran"
        futures = client.map(_make_step(str(ran)), range(tasks))
        #: At each kill: the length of the file that tasks write to, and the numbers of the tasks whose futures were finished.
        held: list[tuple[int, set[int]]] = []
        for number in range(kills):
            # Each kill happens at a random point of its share of the tasks.
            goal = int(tasks * (number + random_numbers.uniform(0.1, 0.9)) / kills)
            done = _wait_for(futures, goal)
            scheduler.kill()
            scheduler.wait()
            written = ran.stat().st_size
            held.append((written, done))
            run.say(f"kill {number + 1} when {len(done)} of {tasks} futures were finished")
            scheduler = machine.scheduler()
        values = client.gather(futures)
        run.say("all futures are finished")
        run.check(values == [number * number for number in range(tasks)], "a future has a wrong value")
        content = ran.read_bytes()
        counts = [0] * tasks
        for line in content.split():
            counts[int(line)] += 1
        missing = counts.count(0)
        run.check(missing == 0, f"{missing} tasks have a value and never ran")
        for written, done in held:
            again = done & {int(line) for line in content[written:].split()}
            run.check(not again, f"{len(again)} tasks ran again whose futures were finished before the scheduler was killed")
        run.say(f"tasks that ran once more because their end was not reported yet: {sum(counts) - tasks}")
    return run


def _wait_for(futures: list[Any], goal: int) -> set[int]:
    """Wait until ``goal`` futures are finished; the numbers of the finished ones."""
    while True:
        done = {number for number, future in enumerate(futures) if future.done()}
        if len(done) >= goal:
            return done
        time.sleep(0.1)


def _make_step(path: str) -> Any:
    """A task that writes its number to that file when it runs. Nested, so that it travels by value."""

    def step(number: int) -> int:
        import os

        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{number}\n".encode())
        os.close(file)
        return number * number

    return step
