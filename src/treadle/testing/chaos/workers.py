"""Kill workers after a few seconds each; a rechunk must finish meanwhile."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from typing import Any

import dask.array
import dask.config

from treadle.client.client import Client
from treadle.deploy.local import LocalCluster
from treadle.testing.chaos.run import Run, kill_processes

#: Seconds between two checks which worker is to be killed.
_LOOK_S = 0.05
_REPORT_S = 5.0


class Killer(threading.Thread):
    """Kills each running worker process of ``cluster`` with SIGKILL after ``mean_life_s`` seconds on average; its nanny starts another."""

    def __init__(self, cluster: Any, mean_life_s: float, seed: int) -> None:
        super().__init__(name="chaos-killer", daemon=True)
        self._cluster = cluster
        self._mean_life_s = mean_life_s
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self.kills = 0

    def run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(_LOOK_S):
            # By the clock, not by the number of checks: if this thread is late on a loaded machine, workers must not live longer.
            now = time.monotonic()
            chance = (now - before) / self._mean_life_s
            before = now
            for nanny in list(self._cluster.workers.values()):
                pid = nanny.pid
                if nanny.is_alive() and nanny.worker_address and self._random.random() < chance:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    self.kills += 1

    def stop(self) -> None:
        self._ended.set()
        self.join()


def run_workers(
    *,
    seed: int,
    limit_s: float,
    n_workers: int,
    threads: int,
    mean_life_s: float,
    size: int,
    chunks: int,
    least_kills: int,
    allowed_failures: int,
) -> Run:
    """Rechunk an array of ``size`` × ``size`` from ``chunks`` rows to ``chunks`` columns and sum it, until ``least_kills`` workers died."""
    run = Run()
    run.say(
        f"{n_workers} workers of {threads} threads, each killed after {mean_life_s:g} s on average; seed {seed}; "
        f"allowed-failures {allowed_failures}, because innocent tasks are blamed, too"
    )
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": allowed_failures}),
        LocalCluster(n_workers=n_workers, threads_per_worker=threads, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        killer = Killer(cluster, mean_life_s, seed)
        total: Any = None
        with run.limit(limit_s, lambda: _standing(cluster, client, killer, total), lambda: kill_processes(cluster.workers.values())):
            killer.start()
            rounds = 0
            while rounds == 0 or killer.kills < least_kills:
                rounds += 1
                # Each round has other values, so that no result of an earlier round can be used.
                rows = dask.array.full((size, size), rounds, dtype="i8", chunks=(-(-size // chunks), size))
                began_s, kills = run.seconds, killer.kills
                total = client.compute(rows.rechunk((size, -(-size // chunks))).sum())
                while not _wait(total, _REPORT_S):
                    run.say(_standing(cluster, client, killer, None))
                value = int(total.result())
                run.check(value == rounds * size * size, f"round {rounds}: the sum is {value}, not {rounds * size * size}")
                run.say(f"round {rounds}: the sum is {value}, after {run.seconds - began_s:.1f} s and {killer.kills - kills} kills")
            killer.stop()
        run.say(f"{killer.kills} worker processes were killed in {run.seconds:.1f} s, {rounds} rounds finished meanwhile")
    return run


def _wait(future: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if future.done():
            return True
        time.sleep(0.02)
    return False


def _standing(cluster: Any, client: Any, killer: Killer, future: Any) -> str:
    statistics = cluster.scheduler.statistics()
    tasks = ", ".join(f"{count} {state}" for state, count in statistics["tasks"].items() if count)
    text = f"{killer.kills} kills, {statistics['workers']} workers, tasks: {tasks}"
    if future is not None and not future.done():
        text += f"\n{client.why(future)}"
    return text
