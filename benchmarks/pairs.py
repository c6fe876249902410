"""One build of treadle beside another: CPU time of all processes a task, pair by pair.

    python benchmarks/pairs.py --old PYTHON [--old-benchmarks DIR] [--new PYTHON] [--pairs 15] [--only NAME ...] [--json FILE]

``--old`` and ``--new`` are Pythons of environments with the two builds. A pair runs both, one after the other, and which one goes
first changes from pair to pair. The table gives the median CPU time of both, and the median of the ratios new / old with an
interval that holds the true median with a probability of at least 95 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from math import comb
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORKLOADS = ("map-20k", "submit-20k", "merge-25k", "tree-15", "serial", "zero-worker-alone-100k-10", "zero-worker-stencil-100k-10")
RUN_TIMEOUT_S = 600


def run_once(python: str, benchmarks: Path, workload: str, quick: bool) -> dict[str, Any]:
    """What ``workloads.py`` of those benchmarks measured. Raises RuntimeError with what it said when it failed."""
    command = [python, str(benchmarks / "workloads.py"), "treadle", workload, *(["--quick"] if quick else [])]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False, env=environment)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{process.stderr}")
    measured: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measured


def cpu_us(measured: dict[str, Any]) -> float:
    """CPU microseconds of all processes a task; against simulated workers, of the scheduler alone."""
    processes: dict[str, dict[str, float]] = measured["processes"]
    chosen = [processes["scheduler"]] if "tasks_per_cpu_s" in measured else list(processes.values())
    return sum(process["cpu_s"] for process in chosen) / measured["tasks"] * 1e6


def interval(values: list[float]) -> tuple[float, float]:
    """Of the sorted values, the two nearest to each other that enclose the true median with a probability of 95 % or more."""
    ordered, count = sorted(values), len(values)
    outside = 0.0
    low = 0
    while low < (count - 1) // 2 and 2 * (outside + comb(count, low) / 2**count) <= 0.05:
        outside += comb(count, low) / 2**count
        low += 1
    low = max(low - 1, 0)
    return ordered[low], ordered[count - 1 - low]


def measure(workload: str, options: argparse.Namespace) -> dict[str, Any]:
    builds = {"old": (options.old, options.old_benchmarks), "new": (options.new, HERE)}
    found: dict[str, list[float]] = {"old": [], "new": []}
    for number in range(options.pairs):
        for name in ("old", "new") if number % 2 == 0 else ("new", "old"):
            python, benchmarks = builds[name]
            found[name].append(cpu_us(run_once(python, benchmarks, workload, options.quick)))
        print(f"{workload}, pair {number + 1}: {found['old'][-1]:.1f} and {found['new'][-1]:.1f} us", file=sys.stderr, flush=True)
    ratios = [new / old for old, new in zip(found["old"], found["new"], strict=True)]
    return {**found, "ratio": statistics.median(ratios), "interval": interval(ratios)}


def row(workload: str, figures: dict[str, Any]) -> str:
    low, high = figures["interval"]
    old, new = statistics.median(figures["old"]), statistics.median(figures["new"])
    return f"| {workload} | {old:,.1f} | {new:,.1f} | {figures['ratio']:.3f} | {low:.3f} to {high:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time a task of two builds, in pairs.")
    parser.add_argument("--old", required=True, metavar="PYTHON", help="Python of the environment with the build to compare with")
    parser.add_argument("--old-benchmarks", type=Path, default=HERE, metavar="DIR", help="benchmarks of that build (default: these)")
    parser.add_argument("--new", default=sys.executable, metavar="PYTHON", help="Python with the other build (default: this one)")
    parser.add_argument("--pairs", type=int, default=15, help="runs of each build (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=WORKLOADS, metavar="NAME", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    table = ["| workload | old, CPU µs a task | new | new / old | 95 % interval |", "|---|---|---|---|---|"]
    results: dict[str, Any] = {}
    for workload in options.only:
        results[workload] = measure(workload, options)
        table.append(row(workload, results[workload]))
        if options.json:
            options.json.write_text(json.dumps(results, indent=2))
    print("\n".join(table))


if __name__ == "__main__":
    main()
