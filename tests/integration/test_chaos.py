"""The chaos runs in a small form: that they disturb, that they notice, and that they end."""

import subprocess
import sys

from treadle.testing.chaos.cuts import run_cuts
from treadle.testing.chaos.run import TIME_LIMIT, WRONG, Run
from treadle.testing.chaos.scheduler import run_scheduler
from treadle.testing.chaos.workers import run_workers


def test_a_rechunk_finishes_while_workers_are_killed(capsys):
    options = {"n_workers": 3, "threads": 1, "mean_life_s": 1.5, "size": 300, "chunks": 5, "least_kills": 3, "allowed_failures": 1000}
    assert run_workers(seed=1, limit_s=110, **options).finish() == 0
    assert "worker processes were killed" in capsys.readouterr().out


def test_tasks_run_once_while_connections_break(capsys):
    assert run_cuts(seed=1, limit_s=110, seconds=2, n_workers=2, threads=1, pause_s=0.1).finish() == 0
    assert "×" in capsys.readouterr().out


def test_futures_resolve_while_the_scheduler_is_killed(capsys):
    assert run_scheduler(seed=1, limit_s=110, tasks=1000, kills=2, n_workers=1, threads=2).finish() == 0
    assert "kill 2" in capsys.readouterr().out


def test_what_is_wrong_is_told_by_the_exit_code(capsys):
    run = Run()
    run.check(True, "this holds")
    run.check(False, "this does not")
    assert run.finish() == WRONG
    assert "this does not" in capsys.readouterr().out and run.wrong == ["this does not"]


def test_the_time_limit_ends_a_run():
    command = [sys.executable, "-m", "treadle.testing.chaos", "cuts", "--limit", "0.2", "--seconds", "100", "--workers", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == TIME_LIMIT
    assert "TIME LIMIT of 0.2 s" in ended.stdout
