"""Run many tasks in batches: the memory of every process must reach a plateau. ``python -m treadle.testing.soak``."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psutil

from treadle.testing.chaos.machine import Machine
from treadle.testing.chaos.run import Run

#: How far the median of the last third may be above that of the middle third, because allocators do not free the same amount each time.
TOLERATED_SHARE = 0.01
TOLERATED_BYTES = 2 * 2**20


def growth(samples: Sequence[int]) -> int:
    """The bytes by which the median of the last third is above that of the middle third. Needs at least six samples."""
    third = len(samples) // 3
    return int(statistics.median(samples[-third:]) - statistics.median(samples[-2 * third : -third]))


def grows(samples: Sequence[int]) -> bool:
    """Whether the growth is more than chance, so that no plateau was reached."""
    return growth(samples) > TOLERATED_BYTES + TOLERATED_SHARE * max(samples)


def run_soak(*, limit_s: float, tasks: int, batch: int, n_workers: int, threads: int, journal: bool) -> Run:
    """Run ``tasks`` tasks in batches of about ``batch``. All results of a batch are released before the next."""
    run = Run()
    nbatches = max(6, -(-tasks // batch))
    with contextlib.ExitStack() as stack:
        machine = Machine(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treadle-soak-"))))
        stack.callback(machine.end)
        stack.enter_context(run.limit(limit_s, machine.logs, machine.end))
        processes = {"scheduler": machine.scheduler(journal).pid}
        for number in range(n_workers):
            processes[f"worker-{number}"] = machine.worker(f"worker-{number}", threads).pid
        client = stack.enter_context(machine.client())
        processes["client"] = os.getpid()
        client.wait_for_workers(n_workers)
        run.say(
            f"{nbatches} batches of {batch} tasks on {n_workers} workers of {threads} threads, {'with' if journal else 'without'} a journal"
        )
        samples: dict[str, list[int]] = {name: [] for name in processes}
        for number in range(nbatches):
            _batch(run, client, number, batch)
            _until_forgotten(client)
            for name, pid in processes.items():
                samples[name].append(psutil.Process(pid).memory_info().rss)
            sizes = ", ".join(f"{name} {values[-1] / 2**20:.1f}" for name, values in samples.items())
            run.say(f"batch {number + 1} of {nbatches}; MiB: {sizes}")
    for name, values in samples.items():
        more = growth(values)
        run.say(f"{name}: last third {more / 2**20:+.2f} MiB above the middle third, {more / (nbatches * batch / 3):+.1f} bytes per task")
        run.check(not grows(values), f"the memory of the {name} grows")
    return run


def _batch(run: Run, client: Any, number: int, size: int) -> None:
    """Maps, dependents, single submissions, failures and scattered data, with keys, functions and values that are new in each batch."""

    # Nested, so that each batch has new functions, which travel by value.
    def square(value: int) -> int:
        return value * value

    def add(left: int, right: int) -> int:
        return left + right

    def fail(value: int) -> None:
        raise ValueError(value)

    offset = number * size
    half = [client.map(square, range(offset, offset + size // 2))]
    pairs = client.map(add, half[0][::2], half[0][1::2])
    first = client.scatter(offset)
    chain = [first]
    for _ in range(size // 4 - size // 100):
        chain.append(client.submit(add, chain[-1], 1))
    failures = [client.submit(fail, offset + value) for value in range(size // 100)]
    squares = [value * value for value in range(offset, offset + size // 2)]
    values = client.gather(pairs)
    run.check(values == [left + right for left, right in zip(squares[::2], squares[1::2], strict=False)], f"batch {number}: wrong sums")
    run.check(chain[-1].result() == offset + len(chain) - 1, f"batch {number}: wrong end of the chain")
    run.check(all(isinstance(future.exception(), ValueError) for future in failures), f"batch {number}: a failure is missing")


def _until_forgotten(client: Any) -> None:
    """Wait until the scheduler has forgotten what nobody wants any more."""
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        pass


@click.command(context_settings={"show_default": True})
@click.option("--tasks", default=1_000_000)
@click.option("--batch", default=20_000)
@click.option("--workers", default=2)
@click.option("--threads", default=2, help="Threads of each worker.")
@click.option("--journal/--no-journal", default=False, help="Have the scheduler keep a journal.")
@click.option("--limit", default=3600.0, help="Seconds after which the run counts as failed.")
def main(tasks: int, batch: int, workers: int, threads: int, journal: bool, limit: float) -> None:
    """Exit code 0 when the memory of scheduler, workers and client has reached a plateau, 1 when it grows, 2 at the time limit."""
    sys.exit(run_soak(limit_s=limit, tasks=tasks, batch=batch, n_workers=workers, threads=threads, journal=journal).finish())


if __name__ == "__main__":
    main()
