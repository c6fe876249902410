"""The arithmetic of the comparison, and that what is not installed is left out with a word."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import compare

    return compare


def test_ratios_are_taken_round_by_round(compare: Any) -> None:
    runs = {
        "treadle": [{"version": "1", "task_us": 10.0}, {"version": "1", "task_us": 20.0}, {"version": "1", "task_us": 10.0}],
        "other": [{"version": "2", "task_us": 100.0}, {"version": "2", "task_us": 100.0}, {"version": "2", "task_us": 300.0}],
    }
    summary = compare.summarise(runs)
    assert summary["other"]["task_us"] == {"median": 100.0, "low": 100.0, "high": 300.0, "ratio": 10.0}
    assert "| µs a task | other 2 | 100.0 | 100.0 to 300.0 | 10.00 |" in compare.table(summary)


def test_a_system_that_is_missing_is_left_out(compare: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def run_once(system: str, python: str, tasks: int) -> dict[str, Any]:
        asked.append((system, python))
        return {"missing": "No module named 'distributed'"} if system == "dask.distributed" else {"version": "1", "task_us": 1.0}

    monkeypatch.setattr(compare, "run_once", run_once)
    runs = compare.run_rounds(2, 10, {"dask.distributed": "elsewhere"})
    assert list(runs) == ["treadle", "dask threaded"]
    assert asked.count(("dask.distributed", "elsewhere")) == 1
    assert asked.count(("treadle", sys.executable)) == 2
    assert "dask.distributed is left out: No module named 'distributed'" in capsys.readouterr().out


def test_dask_s_own_scheduler_runs(compare: Any) -> None:
    measured = compare.run_once("dask threaded", sys.executable, 100)
    assert measured["task_us"] > 0


def test_an_interpreter_that_does_not_exist_is_said_so(compare: Any) -> None:
    assert "does not run" in compare.run_once("dask.distributed", "/nowhere/python", 10)["missing"]
