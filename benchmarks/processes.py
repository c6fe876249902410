"""The processes of a cluster, started by the command lines that users have, and what each of them uses.

Uses the standard library and psutil only, so that it runs in the environment of any system.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

#: Module of the command lines of a system: (scheduler, worker).
COMMANDS = {
    "treadle": ("treadle.cli.scheduler", "treadle.cli.worker"),
    "dask.distributed": ("distributed.cli.dask_scheduler", "distributed.cli.dask_worker"),
}
#: One thread each for the libraries below numpy, or two workers would compete with themselves.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
START_TIMEOUT_S = 120.0


class Cluster:
    """A scheduler and workers of one thread each, every one a process of its own, on the loopback interface."""

    def __init__(self, system: str, workers: int) -> None:
        self._scheduler_module, self._worker_module = COMMANDS[system]
        self._directory = tempfile.TemporaryDirectory()
        self.scheduler_file = str(Path(self._directory.name, "scheduler.json"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._wanted = workers

    def __enter__(self) -> Cluster:
        try:
            self._start("scheduler", self._scheduler_module, "--host", "127.0.0.1", "--port", "0")
            deadline = time.monotonic() + START_TIMEOUT_S
            while not Path(self.scheduler_file).exists():
                if self._processes["scheduler"].poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the scheduler did not start:\n{self.log('scheduler')}")
                time.sleep(0.02)
            for number in range(self._wanted):
                options = ("--name", f"w{number}", "--nthreads", "1", "--memory-limit", "0", "--no-nanny")
                self._start(f"worker {number}", self._worker_module, *options)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            for name in self._processes:
                sys.stderr.write(f"--- {name}\n{self.log(name)[-2000:]}\n")
        # Workers first: the scheduler's end would make them say that they lost it.
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._directory.cleanup()

    def _start(self, name: str, module: str, *options: str) -> None:
        # Absolute, because the processes have a working directory of their own.
        given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        path = os.pathsep.join([os.path.abspath(entry) for entry in [str(Path(__file__).parent), *given]])
        command = [sys.executable, "-m", module, "--scheduler-file", self.scheduler_file, "--no-dashboard", *options]
        with open(self._log_file(name), "wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._directory.name, env={**os.environ, **ONE_THREAD, "PYTHONPATH": path}
            )

    def _log_file(self, name: str) -> Path:
        return Path(self._directory.name, f"{name}.log")

    def log(self, name: str) -> str:
        """What that process has said."""
        return self._log_file(name).read_text(errors="replace")

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}


def memory_bytes(pid: int) -> tuple[int, int]:
    """(resident now, largest since ``forget_peak``). Where the system does not count the largest, it is the one of now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        now = psutil.Process(pid).memory_info().rss
        return now, now
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if name in ("VmRSS", "VmHWM")}
    return sizes["VmRSS"], sizes["VmHWM"]


def forget_peak(pid: int) -> None:
    """Have the system count the largest size from here on; does nothing where it cannot."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def metered(pids: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yields a dict that holds afterwards: ``wall_s``, and for each process its CPU seconds and sizes in bytes."""
    result: dict[str, Any] = {}
    before = {}
    for name, pid in pids.items():
        forget_peak(pid)
        before[name] = (cpu_seconds(pid), memory_bytes(pid)[0])
    began = time.perf_counter()
    yield result
    result["wall_s"] = time.perf_counter() - began
    result["processes"] = {}
    for name, pid in pids.items():
        now, peak = memory_bytes(pid)
        cpu, size = before[name]
        result["processes"][name] = {"cpu_s": cpu_seconds(pid) - cpu, "before_bytes": size, "peak_bytes": peak, "after_bytes": now}
