"""treadle beside dask.distributed, dask's threaded scheduler and Ray: one command.

    python benchmarks/run.py [--only NAME ...] [--rounds 5] [--quick] [--json FILE] [--plot FILE] [--peer-python [SYSTEM=]PATH ...]

Every run is a process of its own, so that nothing carries over. In a round each system runs once, in an order that changes from
round to round. A system that has used up its time for a workload (``--budget``) gets no further rounds of it; the table says
how many it had. ``--peer-python`` is the Python of another environment, for systems that are not installed in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report
from workloads import DISTRIBUTED, NOT_INSTALLED, RAY, SYSTEMS, THREADED, TREADLE, WORKLOADS

RUN_TIMEOUT_S = 1_800


def run_once(system: str, workload: str, python: str, quick: bool) -> dict[str, Any]:
    """What ``workloads.py`` measured; ``{"missing": reason}`` when the system is not there, ``{"failed": reason}`` when it failed."""
    command = [python, str(Path(__file__).parent / "workloads.py"), system, workload, *(["--quick"] if quick else [])]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    except OSError as error:
        return {"missing": f"{python} does not run: {error}"}
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {RUN_TIMEOUT_S} s"}
    if process.returncode not in (0, NOT_INSTALLED):
        return {"failed": process.stderr.strip() or f"exit code {process.returncode}"}
    measured: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measured


def run_rounds(workload: str, systems: list[str], rounds: int, budget_s: float, pythons: dict[str, str], quick: bool) -> dict[str, Any]:
    """The runs of each system, in order of rounds. A system that is missing or fails is said to be so, and left out from there."""
    runs: dict[str, list[dict[str, Any]]] = {}
    left = {system: budget_s for system in systems if system in WORKLOADS[workload].run}
    for number in range(rounds):
        order = list(left)
        # Turn and turn about: nobody always runs after the same neighbour.
        start = number % len(order) if order else 0
        for system in order[start:] + order[:start]:
            if left[system] <= 0:
                continue
            print(f"{workload}, round {number + 1} of {rounds}: {system} ...", end=" ", file=sys.stderr, flush=True)
            began = time.perf_counter()
            load = os.getloadavg()[0]
            measured = run_once(system, workload, pythons.get(system, sys.executable), quick)
            took_s = time.perf_counter() - began
            left[system] -= took_s
            print(f"{took_s:.1f} s", file=sys.stderr, flush=True)
            problem = measured.get("missing") or measured.get("failed")
            if problem:
                print(f"{workload}: {system} is left out: {problem}")
                del left[system]
            else:
                runs.setdefault(system, []).append({"round": number, "load": load, **measured})
    return runs


def machine() -> dict[str, Any]:
    """What it ran on, without what would tell whose it is."""
    model = platform.processor()
    memory = 0
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
        memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    except OSError:
        pass
    return {
        "cpu": model or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="treadle beside dask.distributed, dask's threaded scheduler and Ray.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"workloads, or beginnings of their names: {', '.join(WORKLOADS)}")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help="default: all that are there")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each system (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=200.0, help="seconds for a system and a workload (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size: to see that it works, not to be quoted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    parser.add_argument("--keep", action="store_true", help="keep what --json FILE holds of workloads and systems that are not run now")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a plot (.png or .svg; needs matplotlib)")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="[SYSTEM=]PATH",
        help="Python of the environment that the other systems, or that one, are installed in; may be given several times",
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.names = chosen(options.only)
    if not options.names:
        parser.error(f"no workload is called {' or '.join(options.only)}; there are {', '.join(WORKLOADS)}")
    return options


def interpreters(given: list[str]) -> dict[str, str]:
    """System -> path, of ``SYSTEM=PATH`` and of a ``PATH`` for all but treadle."""
    found: dict[str, str] = {}
    for entry in given:
        system, equals, path = entry.partition("=")
        if equals and system in SYSTEMS:
            found[system] = path
        else:
            found = {**dict.fromkeys((DISTRIBUTED, THREADED, RAY), entry), **found}
    return found


def chosen(wanted: list[str] | None) -> list[str]:
    """Names of workloads: those that are named, or begin with what is; all for None."""
    if not wanted:
        return list(WORKLOADS)
    return [name for name in WORKLOADS if name in wanted or any(name.startswith(start) for start in wanted if start not in WORKLOADS)]


def main() -> None:
    options = parse()
    pythons = interpreters(options.peer_python)
    results: dict[str, Any] = {"machine": machine(), "quick": options.quick, "workloads": {}}
    if options.keep and options.json and options.json.exists():
        results["workloads"] = json.loads(options.json.read_text())["workloads"]
    for name in options.names:
        runs = run_rounds(name, options.systems, options.rounds, options.budget, pythons, options.quick)
        if runs:
            results["workloads"].setdefault(name, {}).update(runs)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.whole(results))
    if options.plot:
        import plot

        plot.draw(results, options.plot)
    if TREADLE not in options.systems:
        print("without treadle there are no ratios")


if __name__ == "__main__":
    main()
