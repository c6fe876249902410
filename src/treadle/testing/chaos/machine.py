"""A scheduler and workers as users start them: by commands, in separate processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from treadle.client.client import Client
from treadle.comm.security import Security


class Machine:
    """A scheduler and workers as processes, with a home directory and a port of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.secret = home / "secret"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        package = str(Path(__file__).resolve().parents[3])
        self._environment = {name: value for name, value in os.environ.items() if name not in ("TREADLE_SECRET", "XDG_CONFIG_HOME")}
        self._environment.update(HOME=str(home), TMPDIR=str(home))
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._processes: list[subprocess.Popen[bytes]] = []

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}-{len(self._processes)}.log").open("wb") as log:
            command = [sys.executable, "-m", f"treadle.cli.{name}", *arguments, "--secret-file", str(self.secret)]
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=self.home)
        self._processes.append(process)
        return process

    def scheduler(self, journal: bool = True) -> subprocess.Popen[bytes]:
        """Start a scheduler. Returns when its secret exists, which is before it listens."""
        arguments = ["--journal", str(self.home / "journal")] if journal else []
        process = self._start("scheduler", "--port", str(self.port), *arguments)
        while not self.secret.exists() and process.poll() is None:
            time.sleep(0.01)
        return process

    def worker(self, name: str, threads: int) -> subprocess.Popen[bytes]:
        return self._start("worker", f"127.0.0.1:{self.port}", "--nthreads", str(threads), "--no-nanny", "--name", name)

    def client(self) -> Client:
        return Client(f"127.0.0.1:{self.port}", security=Security(secret_file=self.secret), timeout=60)

    def end(self) -> None:
        """Kill all processes that were started."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """The last lines of each log."""
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.home.glob("*.log")))
