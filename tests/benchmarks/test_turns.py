"""The measurement of turns by kind of event: each scenario can be played again and again, and each kind is counted. No times."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_each_kind_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import turns

    monkeypatch.setattr(turns.interpreter, "settle_garbage", lambda: None)
    found = turns.measure(tasks=2_000, workers=10, turns=20)
    assert {"SubmitTasks", "TasksFinished", "RegisterWorker", "LeaveWorker", "ReplicasAdded", "Tick"} <= set(found)
    assert all(row["turns"] >= 20 and row["events"] == row["turns"] for row in found.values())
