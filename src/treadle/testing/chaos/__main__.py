"""``python -m treadle.testing.chaos workers|scheduler|cuts``: exit code 0, 1 for a wrong result, 2 at the time limit."""

from __future__ import annotations

import logging
import sys

import click

from treadle.testing.chaos.cuts import run_cuts
from treadle.testing.chaos.run import Run
from treadle.testing.chaos.scheduler import run_scheduler
from treadle.testing.chaos.workers import run_workers


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Kill, stop and cut off real processes at random; the results must be right all the same."""
    logging.getLogger("treadle").setLevel(logging.CRITICAL)


def _leave(run: Run) -> None:
    sys.exit(run.finish())


@main.command()
@click.option("--seed", default=0)
@click.option("--limit", default=240.0, help="Seconds after which the run has failed.")
@click.option("--workers", default=6)
@click.option("--threads", default=2, help="Of each worker.")
@click.option("--life", default=4.0, help="Seconds that a worker lives, on average.")
@click.option("--size", default=10_000, help="Rows and columns of the array.")
@click.option("--chunks", default=50, help="Chunks of its rows before the rechunk, of its columns afterwards.")
@click.option("--kills", default=10, help="Repeat the computation until there were this many kills.")
@click.option("--allowed-failures", default=1000, help="Deaths of workers that a task may be blamed for before it fails.")
def workers(
    seed: int, limit: float, workers: int, threads: int, life: float, size: int, chunks: int, kills: int, allowed_failures: int
) -> None:
    """Kill workers all the time; the rechunk of an array must finish meanwhile."""
    _leave(
        run_workers(
            seed=seed,
            limit_s=limit,
            n_workers=workers,
            threads=threads,
            mean_life_s=life,
            size=size,
            chunks=chunks,
            least_kills=kills,
            allowed_failures=allowed_failures,
        )
    )


@main.command()
@click.option("--seed", default=0)
@click.option("--limit", default=600.0, help="Seconds after which the run has failed.")
@click.option("--tasks", default=100_000)
@click.option("--kills", default=5)
@click.option("--workers", default=2)
@click.option("--threads", default=2, help="Of each worker.")
def scheduler(seed: int, limit: float, tasks: int, kills: int, workers: int, threads: int) -> None:
    """Kill dask-scheduler --journal in the middle: the same futures must get the right values, and finished tasks must not run again."""
    _leave(run_scheduler(seed=seed, limit_s=limit, tasks=tasks, kills=kills, n_workers=workers, threads=threads))


@main.command()
@click.option("--seed", default=0)
@click.option("--limit", default=300.0, help="Seconds after which the run has failed.")
@click.option("--seconds", default=60.0, help="How long faults are injected.")
@click.option("--workers", default=4)
@click.option("--threads", default=2, help="Of each worker.")
@click.option("--pause", default=0.3, help="Seconds between two faults, on average.")
def cuts(seed: int, limit: float, seconds: float, workers: int, threads: int, pause: float) -> None:
    """Break or hold connections and stop workers for a while; each task must run exactly once."""
    _leave(run_cuts(seed=seed, limit_s=limit, seconds=seconds, n_workers=workers, threads=threads, pause_s=pause))


if __name__ == "__main__":
    main()
