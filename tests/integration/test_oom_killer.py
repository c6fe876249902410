"""The kernel's own out-of-memory killer ends a worker process: in control groups (version 1 or 2) that are made for these tests."""

import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import dask.config
import pytest

from treadle import Client, KilledWorker, LocalCluster

# Functions of this module run in other processes, which cannot import test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MIB = 2**20
#: What processes may take after they came into the narrow group, and what they try to take: not so much that it would do harm.
LIMIT_BYTES = 64 * MIB
GREED_BYTES = 200 * MIB


@dataclass
class Group:
    directory: Path

    def take(self, pid):
        write(self.directory / "cgroup.procs", pid)

    def remove(self):
        """What is still in it goes to the group around it."""
        deadline = time.monotonic() + 60
        while True:
            try:
                for pid in (self.directory / "cgroup.procs").read_text().split():
                    try:
                        (self.directory.parent / "cgroup.procs").write_text(pid)
                    except ProcessLookupError:
                        pass
                self.directory.rmdir()
                return
            except OSError:
                assert time.monotonic() < deadline, f"{self.directory} cannot be removed"
                time.sleep(0.01)


def memory_mounts():
    """(version, where) of the hierarchies with memory in them."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        directory, (kind, _, options) = Path(before.split()[4]), after.split()
        if kind == "cgroup" and "memory" in options.split(","):
            yield 1, directory
        elif kind == "cgroup2" and (directory / "cgroup.controllers").exists():
            if "memory" in (directory / "cgroup.subtree_control").read_text().split():
                yield 2, directory


def write(file, number):
    file.write_text(str(number))


def write_if_there(file, number):
    if file.exists():
        write(file, number)


def make_group(version, directory, limit_bytes):
    """Raises OSError where that is not allowed."""
    group = Group(directory / f"treadle-test-{secrets.token_hex(4)}")
    group.directory.mkdir()
    try:
        if limit_bytes and version == 1:
            write(group.directory / "memory.limit_in_bytes", limit_bytes)
            write_if_there(group.directory / "memory.memsw.limit_in_bytes", limit_bytes)
        elif limit_bytes:
            write(group.directory / "memory.max", limit_bytes)
            write_if_there(group.directory / "memory.swap.max", 0)
        # May processes be moved to it?
        probe = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            group.take(probe.pid)
        finally:
            probe.kill()
            probe.communicate()
    except BaseException:
        group.remove()
        raise
    return group


@pytest.fixture
def groups():
    """Two: a narrow one and one without a limit."""
    found, why = list(memory_mounts()), "no hierarchy of control groups with memory is mounted"
    made = []
    try:
        for version, directory in found:
            try:
                for limit_bytes in (LIMIT_BYTES, 0):
                    made.append(make_group(version, directory, limit_bytes))
                break
            except OSError as error:
                why = f"no control group can be made: {error}"
                while made:
                    made.pop().remove()
        if not made:
            pytest.skip(why)
        yield made
    finally:
        for group in made:
            group.remove()


def move_worker(cluster, group):
    """Its pid. Its nanny has seen where it is."""
    (nanny,) = cluster.workers.values()
    process = nanny.process
    group.take(process.pid)

    async def look():
        return process.look()

    assert cluster.sync(look) is not None
    return process.pid


def greedy(bytes_wanted):
    held = []
    for _ in range(bytes_wanted // MIB):
        held.append(b"x" * MIB)
    return len(held)


def valuable():
    return os.getpid(), 42


@pytest.mark.parametrize(
    ("memory_limit", "words"), [("auto", "its memory limit is "), (0, "it has no memory limit"), (None, "it has no memory limit")]
)
def test_a_task_that_the_kernel_kills_its_worker_for_is_told_so(groups, memory_limit, words):
    narrow, _ = groups
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=memory_limit) as cluster, Client(cluster) as client:
            kept = client.submit(valuable, pure=False)
            (first,) = client.run(os.getpid).values()
            assert kept.result(timeout=60) == (first, 42)
            assert move_worker(cluster, narrow) == first
            bad = client.submit(greedy, GREED_BYTES, pure=False)
            after = client.submit(lambda x: x[1] + 1, kept, pure=False)
            error = bad.exception(timeout=100)
            assert isinstance(error, KilledWorker)
            (death,) = error.deaths
            assert (death.pid, death.exitcode, death.out_of_memory) == (first, -signal.SIGKILL, True)
            text = str(error)
            assert "was executing on 1 worker when it died: tcp://" in text
            assert "was killed by SIGKILL (out of memory: the kernel's out-of-memory killer ended it; it was last seen with " in text
            assert words in text
            # Another process is there, has no such limit, and computes again what went with the first one.
            assert after.result(timeout=100) == 43
            (second,) = client.run(os.getpid).values()
            assert second != first and kept.result(timeout=60) == (second, 42)
            assert client.submit(greedy, GREED_BYTES, pure=False).result(timeout=60) == GREED_BYTES // MIB


def test_a_worker_is_not_out_of_memory_because_another_process_was(groups):
    narrow, has_capacity = groups
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
            pid = move_worker(cluster, has_capacity)
            command = f"input(); held = [b'x' * {MIB} for _ in range({GREED_BYTES // MIB})]"
            other = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE)
            try:
                narrow.take(other.pid)
                other.communicate(b"\n", timeout=100)
                assert other.returncode == -signal.SIGKILL
            finally:
                other.kill()
                other.wait()
            error = client.submit(lambda: os.kill(os.getpid(), signal.SIGKILL), pure=False).exception(timeout=100)
            (death,) = error.deaths
            assert (death.pid, death.exitcode, death.out_of_memory, death.reason) == (pid, -signal.SIGKILL, False, "")
            assert "was killed by SIGKILL" in str(error) and "out of memory" not in str(error)


NANNY = """
    import asyncio, sys
    from treadle.comm.security import Security
    from treadle.nanny.server import Nanny
    from treadle.worker.server import Worker

    class Greedy(Worker):
        async def start(self):
            self.held = [b"x" * 2**20 for _ in range(GREED_MIB)]
            return await super().start()

    async def main(secret):
        try:
            await Nanny(sys.argv[1], security=Security(secret=secret), worker_class=Greedy, memory_limit=0)
        except RuntimeError as error:
            print(error)

    asyncio.run(main(input()))
"""


def test_a_nanny_in_one_group_with_its_worker_says_what_keeps_the_worker_from_starting(groups):
    narrow, _ = groups
    script = textwrap.dedent(NANNY).replace("GREED_MIB", str(GREED_BYTES // MIB))
    with LocalCluster(n_workers=0) as cluster:
        process = subprocess.Popen(
            [sys.executable, "-c", script, cluster.scheduler_address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
        )
        try:
            narrow.take(process.pid)
            said, _ = process.communicate(cluster.security.secret.decode() + "\n", timeout=100)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert "ended with exit code -9 (the kernel's out-of-memory killer ended it; it was never seen alive, it has no memory limit)" in said
