"""The comparison of two builds: its arithmetic, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.mark.parametrize(("count", "low", "high"), [(1, 0, 0), (5, 0, 4), (6, 0, 5), (9, 1, 7), (15, 3, 11), (25, 7, 17)])
def test_the_interval_is_that_of_the_sign_test(count: int, low: int, high: int) -> None:
    import pairs

    assert pairs.interval([float(value) for value in reversed(range(count))]) == (low, high)


def test_all_processes_count_but_simulated_ones() -> None:
    import pairs

    processes = {name: {"cpu_s": 0.001} for name in ("client", "scheduler", "worker 0")}
    assert pairs.cpu_us({"processes": processes, "tasks": 100}) == pytest.approx(30.0)
    assert pairs.cpu_us({"processes": processes, "tasks": 100, "tasks_per_cpu_s": 1.0}) == pytest.approx(10.0)


def test_a_build_beside_itself(tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    options = ["--pairs", "1", "--only", "map-20k", "--quick", "--json", str(file)]
    command = [sys.executable, str(HERE / "pairs.py"), "--old", sys.executable, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "| map-20k |" in done.stdout
    figures = json.loads(file.read_text())["map-20k"]
    assert figures["ratio"] == figures["new"][0] / figures["old"][0]
