"""``LocalCluster`` with real workers, in this process and beside it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from dask.system import CPU_COUNT

import treadle
from treadle import Client, KilledWorker, LocalCluster, Security
from treadle.deploy.local import _sizes
from treadle.exceptions import FutureCancelledError
from treadle.utils.status import Status


def children():
    return psutil.Process().children(recursive=True)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_two_processes_compute_and_leave_nothing(tmp_path):
    before = children()
    with LocalCluster(n_workers=2, threads_per_worker=1, local_directory=tmp_path) as cluster, Client(cluster) as client:
        assert len(cluster.scheduler_info["workers"]) == 2
        assert client.gather(client.map(lambda x: x + 1, range(100))) == list(range(1, 101))
        pids = set(client.run(os.getpid).values())
        assert len(pids) == 2 and os.getpid() not in pids
        assert pids == {nanny.pid for nanny in cluster.workers.values()}
    assert cluster.status is Status.closed
    assert children() == before
    assert list(tmp_path.iterdir()) == []


def test_workers_in_this_process_need_no_network():
    with LocalCluster(n_workers=2, processes=False, threads_per_worker=1) as cluster:
        assert cluster.scheduler_address.startswith("inproc://")
        with cluster.get_client() as client:
            assert client.submit(os.getpid).result() == os.getpid()


def a_cluster_with_a_journal(directory, security, port=0):
    return LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        scheduler_port=port,
        journal=directory / "journal",
        security=security,
    )


def test_a_cluster_with_a_journal_that_is_closed_is_waited_for(tmp_path):
    security = Security.temporary()
    cluster = a_cluster_with_a_journal(tmp_path, security)
    address = cluster.scheduler_address
    with Client(address, security=security) as client:
        first = client.submit(pow, 2, 3)
        assert first.result(timeout=60) == 8
        second = client.submit(sum, [first, 1])
        cluster.close()
        third = client.submit(pow, 3, 3)
        assert not first.cancelled()
        with a_cluster_with_a_journal(tmp_path, security, int(address.rpartition(":")[2])) as cluster:
            assert cluster.scheduler_address == address
            assert client.gather([first, second, third]) == [8, 9, 27]


def test_a_client_that_shuts_a_cluster_with_a_journal_down_ends_it_for_good(tmp_path):
    security = Security.temporary()
    cluster = a_cluster_with_a_journal(tmp_path, security)
    with Client(cluster.scheduler_address, security=security) as other:
        held = other.submit(pow, 2, 3)
        assert held.result(timeout=60) == 8
        Client(cluster).shutdown()
        assert cluster.status is Status.closed
        with pytest.raises(FutureCancelledError):
            held.result(timeout=60)
    with a_cluster_with_a_journal(tmp_path, security) as cluster:
        assert not cluster.scheduler.tasks and not cluster.scheduler.clients


def test_asynchronous_use():
    async def scene():
        async with LocalCluster(n_workers=1, processes=False, asynchronous=True, threads_per_worker=1) as cluster:
            async with Client(cluster, asynchronous=True) as client:
                assert await client.submit(sum, [1, 2]) == 3
            await cluster.scale(2)
            await cluster.wait_for_workers(2, timeout=60)
            assert len(cluster.scheduler.workers) == 2

    asyncio.run(scene())


def test_a_client_without_an_address_makes_a_cluster_of_its_own():
    with Client(n_workers=1, threads_per_worker=1, processes=False) as client:
        assert client.submit(len, "four").result() == 4


def test_a_worker_process_that_is_killed_is_replaced():
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        nanny = cluster.workers[0]
        cluster.sync(until, lambda: nanny.pid not in (None, first) and nanny.worker_address)
        client.wait_for_workers(1, timeout=60)
        assert client.submit(os.getpid).result() != first


def test_a_restart_gives_new_processes_and_functions_run_on_nannies():
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        before = set(client.run(os.getpid).values())
        client.restart(timeout=60)
        after = set(client.run(os.getpid).values())
        assert len(after) == 2 and not before & after
        assert set(client.run(os.getpid, nanny=True).values()) == {os.getpid()}


def test_a_task_that_ends_its_process_is_given_up_and_the_workers_come_back():
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        with pytest.raises(KilledWorker, match="exit"):
            client.submit(sys.exit, 3).result(timeout=100)
        assert client.submit(len, "four").result(timeout=60) == 4


def test_workers_of_this_process_are_replaced_when_they_restart():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        before = [cluster.workers[name] for name in (0, 1)]
        kept = client.submit(len, "abc", pure=False)
        assert kept.result(timeout=60) == 3
        client.restart(timeout=60)
        assert kept.status == "cancelled"
        assert len(client.ncores()) == 2 and not set(client.ncores()) & {worker.address for worker in before}
        assert client.submit(len, "four").result(timeout=60) == 4
        (first, _second) = client.ncores()
        assert client.restart_workers([first], timeout=60) == {first: "OK"}
        assert len(client.ncores()) == 2 and first not in client.ncores()
        assert cluster.plan == {0, 1}


def test_a_task_that_ends_its_worker_in_this_process_is_given_up_and_the_worker_is_replaced():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        with pytest.raises(KilledWorker):
            client.submit(sys.exit, 3).result(timeout=100)
        assert client.submit(len, "four").result(timeout=60) == 4


def test_scaling_up_and_down():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster:
        cluster.scale(3)
        cluster.wait_for_workers(3, timeout=60)
        cluster.scale(1)
        cluster.sync(until, lambda: len(cluster.scheduler.workers) == 1)


def test_the_secret_is_new_each_time_and_keeps_others_out():
    with LocalCluster(n_workers=0, scheduler_port=0, protocol="tcp") as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tcp://127.0.0.1:")
        with pytest.raises(OSError, match="secret"):
            Client(address, security=Security.temporary(), timeout=10)
        with Client(address, security=cluster.security):
            pass


def test_a_worker_that_cannot_start_fails_the_cluster_with_its_reason():
    before = children()
    with pytest.raises(RuntimeError, match=r"Cluster failed to start.*no_such_option"):
        LocalCluster(n_workers=1, threads_per_worker=1, no_such_option=1)
    assert children() == before


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"services": {"x": 1}}, NotImplementedError, "services"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker"),
        ({"n_workers": -1}, ValueError, "n_workers"),
        ({"security": "secret"}, TypeError, "Security"),
        ({"ip": "127.0.0.1"}, TypeError, "host="),
        ({"processes": False, "worker_class": "treadle.nanny.server.Nanny"}, ValueError, "processes"),
    ],
)
def test_arguments_that_make_no_sense(options, error, text):
    with pytest.raises(error, match=text):
        LocalCluster(**options)


def test_sizes_share_the_cpus():
    assert _sizes(1, None, True) == (1, CPU_COUNT)
    assert _sizes(0, None, True) == (0, 1)
    assert _sizes(CPU_COUNT * 2, None, True) == (CPU_COUNT * 2, 1)
    assert _sizes(None, CPU_COUNT, True) == (1, CPU_COUNT)
    assert _sizes(None, 1, False) == (1, 1)
    assert _sizes(None, None, False) == (1, CPU_COUNT)
    processes, threads = _sizes(None, None, True)
    assert processes * threads == CPU_COUNT


SCRIPT = """
    import sys
    sys.path[:0] = {path!r}
    from treadle import Client, LocalCluster

    if __name__ == "__main__":
        cluster = LocalCluster(n_workers=1, threads_per_worker=1)
        client = Client(cluster)
        print(cluster.workers[0].pid, client.submit(lambda: 42).result(), flush=True)
        {end}
"""


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_worker_outlives_a_script_however_it_ends(tmp_path, end):
    path = [os.path.dirname(os.path.dirname(treadle.__file__)), *filter(None, sys.path)]
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(path=path, end=end))
    space = tmp_path / "space"
    space.mkdir()
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, env={**os.environ, "TMPDIR": str(space)}
    )
    pid, answer = done.stdout.split()
    assert answer == "42", done.stderr
    assert done.returncode == {"pass": 0, "raise SystemExit(3)": 3}.get(end, -signal.SIGKILL), done.stderr

    def gone():
        return not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE

    asyncio.run(until(gone))
    asyncio.run(until(lambda: list(space.iterdir()) == []))
