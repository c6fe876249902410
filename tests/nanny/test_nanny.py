"""A nanny over a real process with a stand-in for the worker, and a listener that speaks as the scheduler does."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import dask.config
import psutil
import pytest

from treadle.comm.registry import listen
from treadle.comm.security import Security
from treadle.config import nanny_settings
from treadle.messages.codec import decode_nanny_to_scheduler, encode
from treadle.messages.nanny import (
    CloseNanny,
    NannyHeartbeat,
    NannyRan,
    NannyRun,
    NannyWelcome,
    RegisterNanny,
    RestartWorker,
    WorkerDied,
    WorkerRestarted,
)
from treadle.nanny.server import Nanny
from treadle.nanny.supervisor import describe_exit
from treadle.nanny.watch import StoppedWatch, is_traced, look_at
from treadle.utils.status import Status

WORKER = """
    import asyncio, os, sys
    import dask.config
    from treadle.utils.execution_record import record_of_process

    class Worker:
        restart_requested = False

        def __init__(self, scheduler_ip, security, local_directory, nanny, mode="", report=None, **options):
            self.address, self.local_directory, self.mode = "tcp://worker", local_directory, mode
            self._finished = asyncio.Event()
            self.report = report

        def __await__(self):
            return self.start().__await__()

        async def start(self):
            if self.mode == "fail":
                raise ValueError("no such resource")
            if self.mode == "exit":
                print("going down", file=sys.stderr, flush=True)
                os._exit(7)
            if self.mode == "hang":
                await asyncio.sleep(3600)
            open(os.path.join(self.local_directory, "data"), "w").close()
            if self.report:
                with open(self.report, "a") as file:
                    print(os.getpid(), os.environ.get("OF_USER"), os.environ.get("OMP_NUM_THREADS"), dask.config.get("of.config", None),
                          self.local_directory, " ".join(sys.orig_argv), file=file, sep="|")
            if self.mode == "executing":
                record = record_of_process()
                for id, attempt in ((77, 4), (78, 1), (79, 1)):
                    slot = record.take_slot()
                    record.cells[slot + 1], record.cells[slot] = attempt, id
                record.give_back(slot)
                print("at work", file=sys.stderr, flush=True)
            if self.mode == "greedy":
                self.hoard = b"x" * 2**28
            if self.mode == "done":
                self._finished.set()
            if self.mode == "crash":
                asyncio.get_running_loop().call_later(0.01, os._exit, 3)
            return self

        async def finished(self):
            await self._finished.wait()

        async def close(self, timeout=30, reason=""):
            if self.mode == "stubborn":
                await asyncio.sleep(3600)
"""
SECURITY = Security.temporary()


class FakeScheduler:
    """Welcomes nannies and gathers what they say."""

    def __init__(self):
        self.received = []
        self.comms = []
        self._news = asyncio.Condition()

    async def __aenter__(self):
        self.listener = await listen("tcp://127.0.0.1:0", self._on_comm, session=b"s" * 16, secret=SECURITY.secret)
        self.address = self.listener.contact_address
        return self

    async def __aexit__(self, *error):
        await self.listener.stop()
        for comm in self.comms:
            comm.abort()

    def _on_comm(self, comm):
        def on_frame(body, buffers):
            for message in decode_nanny_to_scheduler(body):
                self.received.append(message)
                if isinstance(message, RegisterNanny):
                    comm.send(encode([NannyWelcome(number=1, scheduler_id="s")]))
                self.tasks.append(asyncio.ensure_future(self._tell()))

        self.comms.append(comm)
        self.tasks = []
        comm.start(on_frame, lambda error: None)

    async def _tell(self):
        async with self._news:
            self._news.notify_all()

    def say(self, message):
        self.comms[-1].send(encode([message]))

    async def heard(self, kind):
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: any(isinstance(message, kind) for message in self.received))
        return next(message for message in self.received if isinstance(message, kind))


@pytest.fixture
def worker_module(tmp_path, monkeypatch):
    (tmp_path / "stand_in_worker.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def nanny_of(scheduler, directory, **options):
    return Nanny(
        scheduler.address,
        security=SECURITY,
        worker_class="stand_in_worker.Worker",
        **{"local_directory": directory / "space", **options},
    )


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def rows(path):
    return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []


def leftovers(directory):
    return list((directory / "space").glob("*"))


def test_the_process_gets_its_environment_config_and_directory_and_leaves_nothing(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler:
            report = worker_module / "report"
            async with nanny_of(
                scheduler, worker_module, mode="", report=str(report), env={"OF_USER": "yes"}, config={"of": {"config": 5}}
            ) as nanny:
                assert nanny.status is Status.running and nanny.is_alive() and nanny.worker_address == "tcp://worker"
                pid, of_user, omp, of_config, directory, argv = rows(report)[0]
                assert int(pid) == nanny.pid
                assert (of_user, of_config) == ("yes", "5")
                assert omp == os.environ.get("OMP_NUM_THREADS", "1")
                assert Path(directory).is_relative_to(worker_module / "space")
                assert SECURITY.secret.decode() not in argv
                assert SECURITY.secret.decode() not in " ".join(psutil.Process(nanny.pid).environ().values())
                registered = await scheduler.heard(RegisterNanny)
                assert (registered.id, registered.pid) == (nanny.id, os.getpid())
            assert nanny.status is Status.closed and not nanny.is_alive()
            assert not psutil.pid_exists(int(pid))
            assert leftovers(worker_module) == []
            await nanny.finished()
            await nanny.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("mode", "error", "text"),
    [("fail", ValueError, "no such resource"), ("exit", RuntimeError, "exit code 7 before the worker ran\ngoing down")],
)
def test_what_keeps_the_worker_from_starting_is_raised_to_the_caller(worker_module, mode, error, text):
    async def scene():
        async with FakeScheduler() as scheduler:
            nanny = nanny_of(scheduler, worker_module, mode=mode)
            with pytest.raises(error, match=text):
                await nanny
            assert nanny.status is Status.failed and not nanny.is_alive()
            assert leftovers(worker_module) == []

    asyncio.run(scene())


def test_a_worker_that_does_not_come_up_is_given_up(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler:
            nanny = nanny_of(scheduler, worker_module, mode="hang", death_timeout="2s")
            with pytest.raises(TimeoutError, match="within 2 s"):
                await nanny
            assert leftovers(worker_module) == []

    asyncio.run(scene())


def test_a_worker_that_is_killed_is_reported_and_replaced(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module) as nanny:
            first = nanny.pid
            os.kill(first, signal.SIGKILL)
            died = await scheduler.heard(WorkerDied)
            assert (died.pid, died.exitcode) == (first, -signal.SIGKILL)
            await until(lambda: nanny.worker_address and nanny.pid not in (None, first))
            assert nanny.status is Status.running
            assert len(leftovers(worker_module)) == 1

    asyncio.run(scene())


def test_the_report_of_a_death_says_what_was_executing(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, mode="executing") as nanny:
            before = time.time()
            os.kill(nanny.pid, signal.SIGSEGV)
            died = await scheduler.heard(WorkerDied)
            assert sorted(zip(died.executing, died.attempts, strict=True)) == [(77, 4), (78, 1)]
            assert died.exitcode == -signal.SIGSEGV and not died.planned and not died.out_of_memory and died.reason == ""
            assert "at work" in died.stderr
            assert before <= died.died_at <= time.time()

    asyncio.run(scene())


def test_an_end_by_force_that_was_ordered_is_a_planned_one(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, mode="stubborn") as nanny:
            await nanny.restart(timeout=0.1)
            died = await scheduler.heard(WorkerDied)
            assert died.planned and died.exitcode == -signal.SIGKILL and died.reason == "nanny-restart"
            await nanny.close(timeout=0.1)

    asyncio.run(scene())


def test_a_process_that_is_stopped_is_replaced_and_one_that_is_busy_is_not(worker_module):
    async def scene():
        with dask.config.set({"treadle.nanny.stopped-timeout": "200ms"}):
            async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module) as nanny:
                first = nanny.pid
                await scheduler.heard(NannyHeartbeat)
                beat = next(message for message in scheduler.received if isinstance(message, NannyHeartbeat))
                assert beat.metrics == {"alive": 1, "pid": first}
                os.kill(first, signal.SIGSTOP)
                died = await scheduler.heard(WorkerDied)
                assert died.pid == first and not died.planned and "stopped for 0.2 s" in died.reason
                await until(lambda: nanny.worker_address and nanny.pid not in (None, first))

    asyncio.run(scene())


def test_a_process_that_was_stopped_together_with_its_nanny_is_not_replaced():
    watch = StoppedWatch(30.0, 1.0)
    assert not any(watch.is_over(True, float(now)) for now in range(100, 129))
    # The next look of the nanny comes an hour later: the count begins anew.
    assert not any(watch.is_over(True, float(now)) for now in range(3700, 3729))
    assert not watch.is_over(False, 3729.0)
    assert [now for now in range(3730, 3770) if watch.is_over(True, float(now))] == [3760]


def test_a_process_that_is_stopped_under_a_debugger_does_not_count_as_stopped(monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        sight = look_at(process.pid)
        assert sight is not None and sight.stopped and not is_traced(process.pid)
        monkeypatch.setattr("treadle.nanny.watch.is_traced", lambda pid: True)
        sight = look_at(process.pid)
        assert sight is not None and not sight.stopped
    finally:
        process.kill()
        process.communicate()


def test_a_stopped_process_is_replaced_after_half_a_minute_unless_the_config_says_otherwise():
    assert nanny_settings().stopped_timeout_s == 30.0
    with dask.config.set({"treadle.nanny.stopped-timeout": None}):
        assert nanny_settings().stopped_timeout_s is None


def test_a_process_above_its_memory_limit_is_replaced_and_the_report_says_so(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, mode="greedy", memory_limit="200 MiB") as nanny:
            assert nanny.memory_limit == 200 * 2**20
            died = await scheduler.heard(WorkerDied)
            assert died.out_of_memory and not died.planned and died.exitcode == -signal.SIGKILL
            assert "95% of its limit of 200.00 MiB" in died.reason
            # The next one is as greedy, and may be killed before its worker runs.
            await until(lambda: nanny.pid not in (None, died.pid))

    asyncio.run(scene())


def test_the_share_of_the_memory_limit_is_configured():
    key = "distributed.worker.memory.terminate"
    assert nanny_settings().terminate_fraction == 0.95
    with dask.config.set({key: False}):
        assert nanny_settings().terminate_fraction is None
    with dask.config.set({key: 80}), pytest.raises(ValueError, match=key):
        nanny_settings()


def test_a_worker_that_crashes_again_and_again_is_replaced_more_and_more_slowly(worker_module):
    async def scene():
        report = worker_module / "report"
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, mode="crash", report=str(report)) as nanny:
            await until(lambda: len(rows(report)) >= 3)
            assert nanny._supervisor._backoff_s >= 0.2
        assert leftovers(worker_module) == []

    asyncio.run(scene())


def test_a_worker_that_ends_on_purpose_takes_its_nanny_along(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler:
            nanny = nanny_of(scheduler, worker_module, mode="done")
            await nanny
            async with asyncio.timeout(30):
                await nanny.finished()
            assert nanny.status is Status.closed
            died = await scheduler.heard(WorkerDied)
            assert died.planned and died.exitcode == 0

    asyncio.run(scene())


def test_the_scheduler_restarts_runs_and_closes(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module) as nanny:
            first = nanny.pid
            scheduler.say(RestartWorker(request=5, timeout_s=10))
            assert await scheduler.heard(WorkerRestarted) == WorkerRestarted(request=5, error="")
            assert nanny.pid != first and not psutil.pid_exists(first)
            scheduler.say(NannyRun(request=6, payload=pickle.dumps((os.getpid, (), {}))))
            ran = await scheduler.heard(NannyRan)
            assert ran.error is None and pickle.loads(ran.payload) == os.getpid()
            scheduler.say(CloseNanny(reason="test"))
            async with asyncio.timeout(30):
                await nanny.finished()
            assert not psutil.pid_exists(nanny.pid or -1)

    asyncio.run(scene())


def test_kill_stops_the_worker_for_good_and_restart_starts_one(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, mode="stubborn") as nanny:
            first = nanny.pid
            await nanny.kill(timeout=0.1)
            assert not psutil.pid_exists(first) and not nanny.is_alive() and nanny.pid is None
            assert leftovers(worker_module) == []
            assert await nanny.restart() == "OK"
            assert nanny.is_alive()
            await nanny.close(timeout=0.1)

    asyncio.run(scene())


def test_a_scheduler_that_goes_away_closes_the_nanny(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler:
            nanny = await nanny_of(scheduler, worker_module)
            scheduler.comms[-1].abort()
            async with asyncio.timeout(30):
                await nanny.finished()
            assert leftovers(worker_module) == []

    with dask.config.set({"treadle.worker.reconnect-grace": 0}):
        asyncio.run(scene())


def test_it_comes_back_to_its_scheduler_and_tells_what_it_saw(worker_module):
    async def scene():
        async with FakeScheduler() as scheduler:
            nanny = await nanny_of(scheduler, worker_module)
            pid = nanny.pid
            scheduler.received.clear()
            scheduler.comms[-1].abort()
            while not nanny._coming_back:
                await asyncio.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
            assert (await scheduler.heard(RegisterNanny)).id == nanny.id
            death = await scheduler.heard(WorkerDied)
            assert (death.pid, death.exitcode) == (pid, -signal.SIGKILL)
            await nanny.close(timeout=0.1)

    asyncio.run(scene())


def test_config_that_cannot_travel_does_not_keep_the_worker_from_starting(worker_module):
    async def scene():
        report = worker_module / "report"
        with dask.config.set({"scheduler": lambda: None, "of.config": 6}):
            async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, report=str(report)):
                assert rows(report)[0][3] == "6"

    asyncio.run(scene())


def test_the_worker_has_its_directory_where_temporary_files_are_configured_to_go(worker_module):
    async def scene():
        report = worker_module / "report"
        with dask.config.set({"temporary-directory": str(worker_module / "configured")}):
            async with FakeScheduler() as scheduler, nanny_of(scheduler, worker_module, report=str(report), local_directory=None):
                directory = Path(rows(report)[0][4])
        assert directory.parent == worker_module / "configured"

    asyncio.run(scene())


def test_wrong_options_are_refused_at_once():
    with pytest.raises(NotImplementedError, match="worker_port="):
        Nanny("tcp://127.0.0.1:1", port=8000)
    with pytest.raises(ValueError, match="where is the scheduler"):
        Nanny()


def test_the_worker_process_does_not_outlive_a_nanny_that_is_killed(worker_module):
    script = """
        import asyncio, sys
        from treadle.comm.security import Security
        from treadle.nanny.server import Nanny

        async def main():
            nanny = await Nanny(sys.argv[1], security=Security(secret=sys.stdin.readline()), worker_class="stand_in_worker.Worker",
                                local_directory=sys.argv[2])
            print(nanny.pid, flush=True)
            await asyncio.sleep(3600)

        asyncio.run(main())
    """

    async def scene():
        async with FakeScheduler() as scheduler:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(worker_module), *filter(None, sys.path)])}
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script), scheduler.address, str(worker_module / "space")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            try:
                process.stdin.write(SECURITY.secret.decode() + "\n")
                process.stdin.flush()
                pid = int(await asyncio.to_thread(process.stdout.readline))
                assert psutil.pid_exists(pid)
            finally:
                process.kill()
                process.wait()
                process.stdin.close()
                process.stdout.close()
            await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
            assert leftovers(worker_module) == []

    asyncio.run(scene())


def test_an_exit_code_is_told_in_words():
    assert describe_exit(3) == "died with exit code 3"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-9, "it used too much") == "was killed by SIGKILL: it used too much"
    assert describe_exit(-70) == "was killed by signal 70"
