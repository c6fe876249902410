"""Break or hold connections, and stop workers for a while, in the middle of graphs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import dask.config

from treadle.client.client import Client
from treadle.comm.security import Security
from treadle.nanny.server import Nanny
from treadle.scheduler.server import Scheduler
from treadle.testing.chaos.run import Run, kill_processes
from treadle.testing.proxy import Proxy

_SIZE = 20_000
_WIDTH, _LAYERS = 30, 12


class Network:
    """A scheduler, workers with nannies and a client, and a proxy in each of their connections."""

    def __init__(self, run: Run, random_numbers: random.Random) -> None:
        self._run = run
        self._random = random_numbers
        self.proxies: dict[str, Proxy] = {}
        self.nannies: list[Nanny] = []
        self.client: Any = None
        self.faults: dict[str, int] = {}

    async def start(self, stack: contextlib.AsyncExitStack, n_workers: int, threads: int) -> None:
        security = Security.temporary()
        scheduler = await stack.enter_async_context(Scheduler(security=security, port=0))
        for name in ("clients", "workers"):
            self.proxies[name] = await stack.enter_async_context(Proxy(scheduler.address))
        for number in range(n_workers):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            # Peers fetch from this worker through the proxy.
            proxy = self.proxies[f"peers of {number}"] = await stack.enter_async_context(Proxy(f"tcp://127.0.0.1:{port}"))
            nanny = Nanny(
                self.proxies["workers"].address,
                name=str(number),
                nthreads=threads,
                security=security,
                host="127.0.0.1",
                worker_port=port,
                contact_address=proxy.address,
            )
            self.nannies.append(await stack.enter_async_context(nanny))
        address = self.proxies["clients"].address
        self.client = await stack.enter_async_context(Client(address, security=security, asynchronous=True, set_as_default=False))

    async def trouble(self, pause_s: float) -> None:
        """Inject one fault after the other until cancelled; then stopped workers and held connections go on."""
        while True:
            await asyncio.sleep(self._random.uniform(0.2, 1.8) * pause_s)
            kind = self._random.choice(("cut", "cut", "hold", "stop"))
            if kind == "stop":
                self._count("a stop of a worker")
                await self._stop(self._random.choice(self.nannies))
                continue
            whose, proxy = self._random.choice(list(self.proxies.items()))
            self._count(f"a {kind} of {whose.partition(' ')[0]}")
            if kind == "hold":
                proxy.hold()
                try:
                    await asyncio.sleep(self._random.uniform(0, 2 * pause_s))
                    if self._random.random() < 0.5:
                        proxy.cut()
                finally:
                    proxy.heal()
            else:
                proxy.cut()

    def _count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1

    async def _stop(self, nanny: Nanny) -> None:
        pid = nanny.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._random.uniform(0, 2.0))
        finally:
            os.kill(pid, signal.SIGCONT)


def run_cuts(*, seed: int, limit_s: float, seconds: float, n_workers: int, threads: int, pause_s: float) -> Run:
    """Compute graph after graph for ``seconds``, with a fault about every ``pause_s`` seconds. Each task must run exactly once."""
    run = Run()
    # Long graces, so that no party is given up because this machine is busy. The run shows that parties that come back go on.
    graces = ("treadle.scheduler.worker-grace", "treadle.scheduler.client-grace", "treadle.client.reconnect-grace")
    patience = dict.fromkeys(graces, "120s")
    with dask.config.set(patience), tempfile.TemporaryDirectory(prefix="treadle-chaos-") as home:
        asyncio.run(_run(run, seed, limit_s, seconds, n_workers, threads, pause_s, Path(home)))
    return run


async def _run(run: Run, seed: int, limit_s: float, seconds: float, n_workers: int, threads: int, pause_s: float, home: Path) -> None:
    random_numbers = random.Random(seed)
    network = Network(run, random_numbers)
    run.say(f"{n_workers} workers of {threads} threads, a fault about every {pause_s:g} s, for {seconds:g} s; seed {seed}")
    async with contextlib.AsyncExitStack() as stack:
        await network.start(stack, n_workers, threads)
        stack.enter_context(run.limit(limit_s, lambda: f"faults: {network.faults}", lambda: kill_processes(network.nannies)))
        trouble = asyncio.ensure_future(network.trouble(pause_s))
        try:
            began_s = run.seconds
            number = ntasks = 0
            while number == 0 or run.seconds - began_s < seconds:
                number += 1
                ntasks += await _graph(run, network.client, random_numbers, number, home / str(number))
                if number % 10 == 0:
                    run.say(f"{number} graphs, faults: {network.faults}")
                if trouble.done():
                    break
        finally:
            trouble.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trouble
        faults = ", ".join(f"{count} × {kind}" for kind, count in sorted(network.faults.items()))
        run.say(f"{number} graphs of {ntasks} tasks in {run.seconds - began_s:.1f} s with these faults: {faults}")


async def _graph(run: Run, client: Any, random_numbers: random.Random, number: int, ran: Path) -> int:
    """Compute layers of tasks that need tasks of the layer before, and check values and executions. Returns the number of tasks."""
    mix = _make_mix(str(ran))
    layer = [client.submit(mix, f"{number}-0-{at}", at) for at in range(_WIDTH)]
    expected = list(range(_WIDTH))
    names = [f"{number}-0-{at}" for at in range(_WIDTH)]
    for depth in range(1, _LAYERS):
        # A task needs its own column, so that every task is needed, and two others.
        picks = [[at, *random_numbers.sample(range(_WIDTH), 2)] for at in range(_WIDTH)]
        names += [f"{number}-{depth}-{at}" for at in range(_WIDTH)]
        layer = [client.submit(mix, f"{number}-{depth}-{at}", at, *[layer[pick] for pick in picks[at]]) for at in range(_WIDTH)]
        expected = [at + sum(expected[pick] for pick in picks[at]) for at in range(_WIDTH)]
    values = [value for value, _ballast in await client.gather(layer)]
    run.check(values == expected, f"graph {number} has wrong values")
    lines = ran.read_text().split()
    run.check(set(lines) == set(names), f"graph {number}: {len(set(names) - set(lines))} tasks have a value and never ran")
    again = len(lines) - len(set(lines))
    run.check(again == 0, f"graph {number}: {again} of {len(names)} tasks ran more than once")
    return len(names)


def _make_mix(path: str) -> Any:
    """A task that writes its name to that file when it runs. Nested, so that it travels by value."""

    def mix(name: str, number: int, *parts: tuple[int, bytes]) -> tuple[int, bytes]:
        import os
        import time

        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{name}\n".encode())
        os.close(file)
        time.sleep(0.002)
        return number + sum(value for value, _ballast in parts), bytes(size)

    size = _SIZE
    return mix
