"""The commands as processes: what they print, leave behind and exit with."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import treadle

ROOT = str(Path(treadle.__file__).parents[1])


class Command:
    """A running ``dask-scheduler`` or ``dask-worker``; ended by its id when the scene is over."""

    def __init__(self, name, *arguments, home):
        environment = {key: value for key, value in os.environ.items() if key not in ("TREADLE_SECRET", "XDG_CONFIG_HOME")}
        environment.update(HOME=str(home), PYTHONPATH=ROOT, TMPDIR=str(home))
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"treadle.cli.{name}", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
        )

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def end(self, number=signal.SIGTERM):
        """(exit code, rest of stdout, stderr)"""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextlib.contextmanager
def command(name, *arguments, home):
    running = Command(name, *arguments, home=home)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_scheduler_says_where_it_is_and_leaves_nothing_when_it_is_told_to_stop(tmp_path, number):
    files = {"--pid-file": tmp_path / "pid", "--scheduler-file": tmp_path / "scheduler.json"}
    arguments = [text for option, path in files.items() for text in (option, str(path))]
    with command("scheduler", "--port", "0", *arguments, home=tmp_path) as scheduler:
        text, _, address = scheduler.line().rpartition(" ")
        assert text == "Scheduler started at"
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port))).close()
        assert files["--pid-file"].read_text() == f"{scheduler.process.pid}\n"
        content = json.loads(files["--scheduler-file"].read_text())
        assert content["address"] == f"tcp://{address}"
        assert stat.S_IMODE(files["--scheduler-file"].stat().st_mode) == 0o600
        secret = tmp_path / ".config" / "treadle" / "secret"
        assert secret.read_text().strip() == content["secret"]
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        code, _, err = scheduler.end(number)
        assert code == 0, err
        assert content["secret"] not in err
        assert [path.name for path in tmp_path.iterdir()] == [".config"]


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with command("scheduler", "--port", str(port), home=tmp_path) as scheduler:
            code, out, err = scheduler.end(None)
    assert (code, out) == (1, "")
    assert f"127.0.0.1:{port}" in err and "in use" in err and len(err.splitlines()) == 1


def test_a_secret_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_text("x" * 64)
    path.chmod(0o644)
    with command("scheduler", "--port", "0", "--secret-file", str(path), home=tmp_path) as scheduler:
        code, _, err = scheduler.end(None)
    assert code == 1 and f"chmod 600 {path}" in err


def test_a_worker_without_a_scheduler_gives_up(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with command("worker", f"127.0.0.1:{port}", "--death-timeout", "1s", "--secret-file", "secret", home=tmp_path) as worker:
        code, _, err = worker.end(None)
    assert code == 1 and "secret" in err
    (tmp_path / "secret").write_text("x" * 64)
    (tmp_path / "secret").chmod(0o600)
    with command("worker", f"127.0.0.1:{port}", "--death-timeout", "1s", "--secret-file", "secret", home=tmp_path) as worker:
        code, _, err = worker.end(None)
    assert code == 1 and f"127.0.0.1:{port}" in err


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_workers_find_their_scheduler_and_stop_cleanly(tmp_path, nanny):
    with command("scheduler", "--port", "0", home=tmp_path) as scheduler:
        address = scheduler.line().rpartition(" ")[2]
        with command("worker", address, nanny, "--nthreads", "1", "--local-directory", str(tmp_path / "space"), home=tmp_path) as worker:
            assert worker.line().startswith("Worker started at 127.0.0.1:"), worker.end()
            code, _, err = worker.end()
            assert code == 0, err
            assert list((tmp_path / "space").glob("*")) == []
        assert scheduler.end()[0] == 0


def test_workers_end_with_their_scheduler(tmp_path):
    with command("scheduler", "--port", "0", home=tmp_path) as scheduler:
        address = scheduler.line().rpartition(" ")[2]
        with command("worker", address, "--nworkers", "2", "--nthreads", "1", home=tmp_path) as workers:
            assert [workers.line().rpartition(":")[0] for _ in range(2)] == ["Worker started at 127.0.0.1"] * 2
            assert scheduler.end()[0] == 0
            code, _, err = workers.end(None)
            assert code == 0, err
