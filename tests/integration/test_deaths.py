"""Worker processes die, are stopped or are busy: who is blamed, what is lost, who is replaced."""

import ctypes
import os
import signal
import sys
import time

import cloudpickle
import dask.config
import pytest

from treadle import Client, KilledWorker, LocalCluster

# Functions of this module run in other processes, which cannot import test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def cluster_of(n_workers, threads_per_worker, **options):
    return LocalCluster(n_workers=n_workers, threads_per_worker=threads_per_worker, **options)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def appended(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def die_by(signal_number, log):
    appended(log, "killer")
    sys.stderr.write("my last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


def innocent(log, stop):
    appended(log, "innocent")
    while not os.path.exists(stop):
        time.sleep(0.01)
    return "well"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killer_is_found_out_and_innocents_beside_it_survive(tmp_path, signal_number):
    log, stop = tmp_path / "log", tmp_path / "stop"
    with cluster_of(1, 2) as cluster, Client(cluster) as client:
        good = client.submit(innocent, str(log), str(stop), pure=False)
        wait_for(lambda: lines(log) == ["innocent"])
        bad = client.submit(die_by, signal_number, str(log), pure=False)
        wait_for(lambda: "killer" in lines(log))
        stop.touch()
        error = bad.exception(timeout=100)
        assert isinstance(error, KilledWorker)
        assert len(error.deaths) == 4
        for death in error.deaths:
            assert death.exitcode == -signal_number and death.name == "0" and abs(death.when - time.time()) < 1000
            assert death.worker.startswith("tcp://") and "my last words" in death.stderr
        assert signal.Signals(signal_number).name in str(error) and "my last words" in str(error)
        assert good.result(timeout=60) == "well"


def test_what_merely_waited_on_the_worker_is_not_suspected(tmp_path):
    log = tmp_path / "log"
    with cluster_of(1, 1) as cluster, Client(cluster) as client:
        bad = client.submit(die_by, signal.SIGKILL, str(log), pure=False, priority=10)
        others = client.map(lambda x: x + 1, range(200))
        assert client.gather(others) == list(range(1, 201))
        wait_for(lambda: bad.done())
        tasks = cluster.scheduler.tasks
        assert all(task.suspicious == 0 for task in tasks.values() if task.key != bad.key)


def leave_at_once(code):
    os._exit(code)


def test_an_exit_of_the_process_is_told_with_its_code():
    with cluster_of(2, 1) as cluster, Client(cluster) as client:
        error = client.submit(leave_at_once, 7).exception(timeout=100)
        assert [death.exitcode for death in error.deaths] == [7] * 4
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def hoard():
    held = []
    while len(held) < 200:
        held.append(b"x" * 2**24)
        time.sleep(0.01)
    time.sleep(60)


def test_a_task_that_takes_all_memory_is_given_up_with_the_reason():
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        with cluster_of(1, 1, memory_limit="400 MiB") as cluster, Client(cluster) as client:
            error = client.submit(hoard, pure=False).exception(timeout=100)
            assert isinstance(error, KilledWorker)
            assert [death.out_of_memory for death in error.deaths] == [True] * 2
            assert "out of memory" in str(error)
            assert all("limit of 400.00 MiB" in death.reason for death in error.deaths)
            assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def count(log, seconds):
    appended(log, os.getpid())
    time.sleep(seconds)
    return os.getpid()


def test_planned_ends_blame_nobody(tmp_path):
    log = tmp_path / "log"
    with cluster_of(2, 1) as cluster, Client(cluster) as client:
        future = client.submit(count, str(log), 0.5, pure=False)
        wait_for(lambda: lines(log))
        pid = int(lines(log)[0])
        nanny = next(nanny for nanny in cluster.workers.values() if nanny.pid == pid)
        cluster.sync(nanny.restart, 0.01)
        assert future.result(timeout=60) != pid
        assert len(lines(log)) == 2


class Held:
    """Sleeps without letting go of the interpreter's lock, as a runaway regular expression does."""

    def __call__(self, seconds):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return os.getpid()


def test_a_worker_whose_interpreter_is_held_is_not_taken_for_dead():
    with dask.config.set({"distributed.scheduler.worker-ttl": "300ms", "distributed.worker.heartbeat": "50ms"}):
        with cluster_of(1, 1) as cluster, Client(cluster) as client:
            (pid,) = client.run(os.getpid).values()
            assert client.submit(Held(), 3, pure=False).result(timeout=60) == pid
            assert list(client.run(os.getpid).values()) == [pid]


def test_a_stopped_worker_is_replaced_and_its_task_runs_elsewhere(tmp_path):
    log = tmp_path / "log"
    with dask.config.set({"treadle.nanny.stopped-timeout": "300ms"}):
        with cluster_of(1, 1) as cluster, Client(cluster) as client:
            future = client.submit(count, str(log), 1, pure=False)
            wait_for(lambda: lines(log))
            pid = int(lines(log)[0])
            os.kill(pid, signal.SIGSTOP)
            assert future.result(timeout=60) != pid
            deaths = [list(entry) for entry in cluster.scheduler.story(future.key)]
            assert any("WorkerDeath" in entry for entry in deaths)


def test_a_suspect_is_tried_with_nothing_beside_it(tmp_path):
    log, stop = tmp_path / "log", tmp_path / "stop"
    with cluster_of(1, 2) as cluster, Client(cluster) as client:
        futures = [client.submit(innocent, str(log), str(stop), pure=False) for _ in range(2)]
        wait_for(lambda: len(lines(log)) == 2)
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        # Each comes again, one after the other.
        wait_for(lambda: len(lines(log)) == 3)
        state = cluster.scheduler.transitions.state
        assert len(state.reserved) == 1 and len(state.suspects) == 1
        stop.touch()
        assert client.gather(futures) == ["well"] * 2
        assert not state.reserved and not state.suspects and not state.deaths
