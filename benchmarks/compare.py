"""treadle beside dask.distributed and dask's own threaded scheduler: what one no-op task costs through ``map`` and ``gather``.

    python benchmarks/compare.py [--rounds 5] [--tasks 20000] [--json FILE] [--peer-python PATH]

Every round runs each system once, in a process of its own, in an order that changes from round to round; each run warms
up first. The table gives the median and the range over the rounds, and the ratio to treadle in the same rounds.
``--peer-python`` is the Python of another environment, where dask.distributed is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from systems import NOT_INSTALLED, SYSTEMS

#: (field, heading, format)
FIGURES = [
    ("task_us", "µs a task", "{:,.1f}"),
    ("cpu_us", "CPU µs a task", "{:,.1f}"),
    ("round_trip_ms", "round trip, ms", "{:,.2f}"),
    ("start_s", "start to first result, s", "{:,.2f}"),
]
RUN_TIMEOUT_S = 900


def run_once(system: str, python: str, tasks: int) -> dict[str, Any]:
    """What ``systems.py`` measured; ``{"missing": reason}`` when the system is not there or failed."""
    command = [python, str(Path(__file__).parent / "systems.py"), system, "--tasks", str(tasks)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    except OSError as error:
        return {"missing": f"{python} does not run: {error}"}
    except subprocess.TimeoutExpired:
        return {"missing": f"it took more than {RUN_TIMEOUT_S} s"}
    if process.returncode not in (0, NOT_INSTALLED):
        return {"missing": f"it failed:\n{process.stderr}"}
    measured: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measured


def run_rounds(rounds: int, tasks: int, pythons: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each system; a system that is missing is said to be so once, and left out."""
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    for number in range(rounds):
        order = list(runs)
        # Turn and turn about: nobody always runs after the same neighbour.
        order = order[number % len(order) :] + order[: number % len(order)]
        for system in order:
            print(f"round {number + 1} of {rounds}: {system} ...", file=sys.stderr, flush=True)
            measured = run_once(system, pythons.get(system, sys.executable), tasks)
            if "missing" in measured:
                print(f"{system} is left out: {measured['missing']}")
                del runs[system]
            else:
                runs[system].append(measured)
    return runs


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """For each system and figure: median, lowest, highest and the median of its ratios to treadle, round by round."""
    result: dict[str, dict[str, Any]] = {}
    for system, measured in runs.items():
        result[system] = {"version": measured[0]["version"]}
        for field, _, _ in FIGURES:
            values = [run[field] for run in measured if field in run]
            if not values:
                continue
            result[system][field] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            base = [run[field] for run in runs.get("treadle", ())]
            if len(base) == len(values):
                result[system][field]["ratio"] = statistics.median(value / one for value, one in zip(values, base, strict=True))
    return result


def table(summary: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a system and figure."""
    lines = ["| figure | system | median | range | ratio to treadle |", "|---|---|---|---|---|"]
    for field, heading, form in FIGURES:
        for system, figures in summary.items():
            if field in figures:
                figure = figures[field]
                low, high = form.format(figure["low"]), form.format(figure["high"])
                ratio = f"{figure['ratio']:,.2f}" if "ratio" in figure else ""
                lines.append(f"| {heading} | {system} {figures['version']} | {form.format(figure['median'])} | {low} to {high} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What one no-op task costs, beside dask.distributed and dask's threaded scheduler.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each system (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in a run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--peer-python", metavar="PATH", help="Python of the environment that dask.distributed is installed in")
    options = parser.parse_args()
    if options.rounds < 1 or options.tasks < 1:
        parser.error("--rounds and --tasks must be at least 1")

    pythons = {"dask.distributed": options.peer_python} if options.peer_python else {}
    runs = run_rounds(options.rounds, options.tasks, pythons)
    summary = summarise(runs)
    print(f"{options.tasks:,} no-op tasks, map and gather, 2 workers with a thread each, {options.rounds} rounds;")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")
    print(table(summary))
    if options.json:
        options.json.write_text(json.dumps({"tasks": options.tasks, "rounds": options.rounds, "summary": summary, "runs": runs}, indent=2))
    if "treadle" not in runs:
        sys.exit(1)


if __name__ == "__main__":
    main()
