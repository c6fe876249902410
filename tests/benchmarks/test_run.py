"""The benchmark command: its arithmetic and goals on made-up figures, and that its smallest workloads run on real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def runs_of(*figures: float) -> list[dict[str, Any]]:
    return [{"round": number, "load": 0.5, "version": "1", "task_us": figure} for number, figure in enumerate(figures)]


def test_ratios_are_of_rounds_that_both_had() -> None:
    import goals

    runs = {"map-20k": {"treadle": runs_of(10.0, 20.0, 1.0), "dask.distributed": runs_of(1_000.0, 4_000.0)}}
    assert goals.ratio(runs, "map-20k", "dask.distributed") == 150.0
    assert goals.ratio(runs, "map-20k", "Ray") is None


def test_a_goal_is_reached_or_not() -> None:
    import report

    runs = {"map-20k": {"treadle": runs_of(10.0), "dask.distributed": runs_of(999.0), "dask threaded": runs_of(30.0)}}
    table = "\n".join(report.goals_table(runs))
    assert "| map-20k | 100 × dask.distributed | 99.9 × | **no** |" in table
    assert "| map-20k | less per task than dask threaded | 3.00 × as fast | yes |" in table
    assert "serial" not in table


def test_the_table_says_how_many_rounds_there_were() -> None:
    import report

    runs = {"map-20k": {"treadle": runs_of(10.0, 12.0, 11.0), "dask.distributed": runs_of(1_000.0)}}
    row = report.tasks_table(runs)[-1]
    assert row == "| map-20k | 11.0 (10.0–12.0; 3) | 1,000.0 (1 round) **× 100.0** |"


def test_every_goal_belongs_to_a_workload() -> None:
    import goals
    import workloads

    assert {goal.workload for goal in goals.GOALS} <= set(workloads.WORKLOADS)


def test_a_name_is_exact_or_a_beginning() -> None:
    import run

    assert run.chosen(["zero-worker-alone-100k-10"]) == ["zero-worker-alone-100k-10"]
    assert run.chosen(["merge", "serial"]) == ["serial", "merge-25k", "merge-100k"]
    assert run.chosen(["nothing"]) == []


def test_an_interpreter_for_all_peers_or_for_one() -> None:
    import run

    assert run.interpreters([]) == {}
    assert run.interpreters(["Ray=a", "b"]) == {"dask.distributed": "b", "dask threaded": "b", "Ray": "a"}


def test_slow_systems_get_fewer_rounds_and_missing_ones_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import run

    asked = []

    def run_once(system: str, workload: str, python: str, quick: bool) -> dict[str, Any]:
        asked.append((system, python))
        return {"missing": "No module named 'ray'"} if system == "Ray" else {"version": "1", "task_us": 1.0}

    monkeypatch.setattr(run, "run_once", run_once)
    systems = ["treadle", "dask.distributed", "Ray"]
    found = run.run_rounds("map-20k", systems, 3, 1e-9, {"dask.distributed": "elsewhere"}, False)
    assert {system: len(runs) for system, runs in found.items()} == {"treadle": 1, "dask.distributed": 1}
    assert asked == [("treadle", sys.executable), ("dask.distributed", "elsewhere"), ("Ray", sys.executable)]
    assert "Ray is left out: No module named 'ray'" in capsys.readouterr().out
    found = run.run_rounds("map-20k", ["treadle"], 3, 100.0, {}, False)
    assert [one["round"] for one in found["treadle"]] == [0, 1, 2]


def test_an_interpreter_that_does_not_exist_is_said_so() -> None:
    import run

    assert "does not run" in run.run_once("dask.distributed", "map-20k", "/nowhere/python", True)["missing"]


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import plot

    runs = {"map-20k": {"treadle": runs_of(10.0), "dask.distributed": runs_of(999.0), "dask threaded": runs_of(30.0)}}
    plot.draw({"workloads": runs}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_workload_runs_on_dask_s_threads() -> None:
    import run

    assert run.run_once("dask threaded", "map-20k", sys.executable, True)["task_us"] > 0


def test_a_workload_runs_on_a_cluster() -> None:
    import run

    measured = run.run_once("treadle", "serial", sys.executable, True)
    assert set(measured["processes"]) == {"client", "scheduler", "worker 0", "worker 1"}, measured
    assert json.dumps(measured)


@pytest.mark.parametrize("shape", ["alone", "stencil"])
def test_the_scheduler_runs_against_simulated_workers(shape: str) -> None:
    """Also checks inside that every wanted key came and that the scheduler knows no task afterwards."""
    import zero_worker

    measured = zero_worker.zero_worker(shape, 5_000, 3)
    assert measured["tasks"] == (5_000 if shape == "alone" else 4_096)
