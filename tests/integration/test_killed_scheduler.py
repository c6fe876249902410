"""``dask-scheduler --journal`` is killed or told to stop, and started again where it was: workers and the client go on."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle import Client, as_completed, wait
from treadle.comm.security import Security
from treadle.exceptions import RedefinedKeyWarning

ROOT = str(Path(treadle.__file__).parents[1])
LIMIT_S = 90


class Machine:
    """Processes that speak with each other over one port, with a home of their own."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self.home = home
        self.stack = stack
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {key: value for key, value in os.environ.items() if key not in ("TREADLE_SECRET", "XDG_CONFIG_HOME")}
        self.environment.update(HOME=str(home), PYTHONPATH=ROOT, TMPDIR=str(home))
        self.started = 0

    def start(self, name: str, *arguments: str) -> subprocess.Popen[Any]:
        self.started += 1
        log = self.stack.enter_context((self.home / f"{name}-{self.started}.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", f"treadle.cli.{name}", *arguments], env=self.environment, stdout=log, stderr=log, cwd=self.home
        )
        self.stack.callback(self._end, process)
        return process

    def _end(self, process: subprocess.Popen[Any]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()

    def scheduler(self) -> subprocess.Popen[Any]:
        journal = self.home / "journal"
        process = self.start("scheduler", "--port", str(self.port), "--journal", str(journal), "--secret-file", str(self.home / "secret"))
        until(lambda: (self.home / "secret").exists())
        return process

    def worker(self, name: str) -> subprocess.Popen[Any]:
        arguments = ["--nthreads", "2", "--no-nanny", "--name", name, "--secret-file", str(self.home / "secret")]
        return self.start("worker", f"127.0.0.1:{self.port}", *arguments)

    def client(self) -> Client:
        until(lambda: (self.home / "secret").exists())
        client = Client(f"127.0.0.1:{self.port}", security=Security(secret_file=self.home / "secret"), timeout=LIMIT_S)
        return self.stack.enter_context(client)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.home.glob("*.log")))


def until(condition: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def some_more_are_done(futures: list[Any]) -> None:
    def count() -> int:
        return sum(future.done() for future in futures)

    enough = min(count() + 50, len(futures))
    until(lambda: count() >= enough)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        yield Machine(tmp_path, stack)


def executions(path: Path) -> collections.Counter[int]:
    return collections.Counter(int(line) for line in path.read_text().split())


def make_step(path: Path) -> Any:
    def step(number: int, *needs: Any) -> int:
        import os
        import time

        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{number}\n".encode())
        os.close(file)
        time.sleep(0.002)
        return number * number

    return step


def test_graphs_over_the_same_keys_while_the_scheduler_is_killed(machine: Machine) -> None:
    """Whatever was called so before: neither what was known before nor what comes back stands for another graph's task."""

    def slow(number: int, *needs: int) -> int:
        import time

        time.sleep(0.001)
        return number + sum(needs)

    def random_graph(seed: int) -> tuple[dict[str, Any], int]:
        chance = random.Random(seed)
        graph: dict[str, Any] = {}
        values: dict[str, int] = {}
        for i in range(40):
            needs = [f"n{chance.randrange(i)}" for _ in range(chance.randrange(3))] if i else []
            number = chance.randrange(1000)
            graph[f"n{i}"] = (slow, number, *needs)
            values[f"n{i}"] = number + sum(values[need] for need in needs)
        return graph, values["n39"]

    def compute(client: Client, seeds: range) -> None:
        for seed in seeds:
            graph, expected = random_graph(seed)
            outcomes.append(client.get(graph, "n39") == expected)

    outcomes: list[bool] = []
    scheduler = machine.scheduler()
    for name in ("alice", "bob"):
        machine.worker(name)
    clients = [machine.client(), machine.client()]
    try:
        held = clients[0].submit(slow, 5, key="n3")
        assert held.result(timeout=LIMIT_S) == 5
        threads = [threading.Thread(target=compute, args=(client, range(k * 100, k * 100 + 60))) for k, client in enumerate(clients)]
        for thread in threads:
            thread.start()
        for count in (15, 50):
            until(lambda count=count: len(outcomes) >= count)
            scheduler.kill()
            scheduler.wait()
            scheduler = machine.scheduler()
        for thread in threads:
            thread.join(2 * LIMIT_S)
        assert outcomes == [True] * 120
        with pytest.warns(RedefinedKeyWarning, match="'n3'"):
            # The scheduler of now was told by the journal what the key stands for.
            assert clients[1].submit(slow, 6, key="n3").result(timeout=LIMIT_S) == 5
    except BaseException:
        print(machine.logs())
        raise


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_same_futures_resolve_and_nothing_that_was_held_runs_again(machine: Machine, end: signal.Signals) -> None:
    ran = machine.home / "ran"
    scheduler = machine.scheduler()
    for name in ("alice", "bob"):
        machine.worker(name)
    client = machine.client()
    try:
        client.wait_for_workers(2, timeout=LIMIT_S)
        step = make_step(ran)
        futures = client.map(step, range(2000))
        total = client.submit(sum, futures)
        for count, _future in enumerate(as_completed(futures), 1):
            if count == 700:
                break
        done = {number for number, future in enumerate(futures) if future.done()}
        scheduler.send_signal(end)
        assert scheduler.wait() == (-end if end == signal.SIGKILL else 0)
        machine.scheduler()
        assert total.result(timeout=LIMIT_S) == sum(number * number for number in range(2000))
        wait(futures, timeout=LIMIT_S)
        assert client.gather(futures) == [number * number for number in range(2000)]
        counts = executions(ran)
        assert set(counts) == set(range(2000))
        assert len(done) >= 700
        again = {number for number, count in counts.items() if count > 1}
        assert not again & done, f"{len(again & done)} ran again whose values were held"
        assert len(again) <= 4, f"{len(again)} of 2000 ran twice"
    except BaseException:
        print(machine.logs())
        raise


def test_a_client_that_shuts_the_cluster_down_ends_it_for_all_and_for_good(machine: Machine) -> None:
    scheduler = machine.scheduler()
    workers = [machine.worker(name) for name in ("alice", "bob")]
    client, other = machine.client(), machine.client()
    try:
        client.wait_for_workers(2, timeout=LIMIT_S)
        held = other.submit(pow, 2, 3)
        assert held.result(timeout=LIMIT_S) == 8
        client.shutdown()
        assert scheduler.wait(timeout=LIMIT_S) == 0
        for worker in workers:
            worker.wait(timeout=LIMIT_S)
        until(held.cancelled)
        machine.scheduler()
        after = machine.client()
        assert after.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.workers, *dask_scheduler.tasks]) == []
    except BaseException:
        print(machine.logs())
        raise


def test_a_scheduler_killed_again_and_again_loses_nothing(machine: Machine) -> None:
    ran = machine.home / "ran"
    scheduler = machine.scheduler()
    for name in ("alice", "bob"):
        machine.worker(name)
    client = machine.client()
    try:
        client.wait_for_workers(2, timeout=LIMIT_S)
        step = make_step(ran)
        futures = client.map(step, range(500))
        for round in range(3):
            some_more_are_done(futures)
            scheduler.kill()
            scheduler.wait()
            # Also what is submitted while there is no scheduler.
            futures += client.map(step, range(500 + 100 * round, 600 + 100 * round))
            scheduler = machine.scheduler()
        assert client.gather(futures) == [number * number for number in range(800)]
        assert set(executions(ran)) == set(range(800))
    except BaseException:
        print(machine.logs())
        raise


def test_scattered_data_dependencies_and_failures_survive(machine: Machine) -> None:
    def add(*values: int) -> int:
        import time

        time.sleep(0.002)
        return sum(values)

    def fail(value: int) -> None:
        raise ValueError(f"{value} is wrong")

    width, rounds = 20, 30
    scheduler = machine.scheduler()
    for name in ("alice", "bob"):
        machine.worker(name)
    client = machine.client()
    try:
        client.wait_for_workers(2, timeout=LIMIT_S)
        row = client.scatter(list(range(width)))
        expected = list(range(width))
        failures = [client.submit(fail, row[0])]
        wait(failures, timeout=LIMIT_S)
        for round in range(rounds):
            # Futures of the row before are released while their values are still to be used, or are already.
            row = [client.submit(add, row[at - 1], row[at]) for at in range(width)]
            expected = [expected[at - 1] + expected[at] for at in range(width)]
            if round in (10, 20):
                failures.append(client.submit(fail, row[0]))
                until(row[0].done)
                scheduler.kill()
                scheduler.wait()
                scheduler = machine.scheduler()
        assert client.gather(row) == expected
        for future in failures:
            with pytest.raises(ValueError, match="is wrong"):
                future.result(timeout=LIMIT_S)
    except BaseException:
        print(machine.logs())
        raise


def test_published_datasets_survive(machine: Machine) -> None:
    scheduler = machine.scheduler()
    machine.worker("alice")
    publisher = machine.client()
    try:
        publisher.wait_for_workers(1, timeout=LIMIT_S)
        row = publisher.map(lambda number: number + 1, range(10))
        publisher.publish_dataset(row=row)
        publisher.publish_dataset(1, name="other")
        publisher.unpublish_dataset("other")
        wait(row, timeout=LIMIT_S)
        del row
        # All is on disk: who is gone cannot say it again.
        until(lambda: len(publisher.session.sent) == 0)
        publisher.close()
        scheduler.kill()
        scheduler.wait()
        machine.scheduler()
        client = machine.client()
        assert client.list_datasets() == ("row",)
        assert client.gather(client.get_dataset("row")) == list(range(1, 11))
        client.unpublish_dataset("row")
        assert client.list_datasets() == ()
    except BaseException:
        print(machine.logs())
        raise
