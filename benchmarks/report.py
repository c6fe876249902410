"""Tables of what was measured, in Markdown. ``python report.py FILE`` prints those of a JSON file."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from goals import GOALS, Runs, cpu_us, median, ratio, values
from workloads import DISTRIBUTED, SYSTEMS, TREADLE, WORKLOADS

#: Figures that only some workloads have: (workload, field, heading, format).
OTHER_FIGURES = [
    ("million", "wall_s", "million: end to end, s", "{:,.1f}"),
    ("million", "release_s", "million: all let go of, s", "{:,.1f}"),
    ("million", "scheduler_task_bytes", "million: scheduler's memory, B a task", "{:,.0f}"),
    ("million", "scheduler_kept_bytes", "million: kept when all is released, B a task", "{:,.0f}"),
    ("transfer", "raw_s", "transfer: the raw socket, into a new array, s", "{:,.3f}"),
    ("transfer", "raw_reused_s", "transfer: the raw socket, into memory in use before, s", "{:,.3f}"),
    ("transfer", "worker_s", "transfer: worker to worker, s", "{:,.3f}"),
    ("transfer", "gather_s", "transfer: gather, s", "{:,.3f}"),
    ("transfer", "scatter_s", "transfer: scatter, s", "{:,.3f}"),
    ("transfer", "peak_of_array", "transfer: largest peak, × the array", "{:,.2f}"),
    ("start", "import_s", "start: import, s", "{:,.3f}"),
    ("start", "first_result_s", "start: LocalCluster of two to its first result, s", "{:,.2f}"),
    ("start", "more_workers_s", "start: 16 workers more, s", "{:,.1f}"),
    ("sleepy", "wall_s", "sleepy: s (ideal 20.8)", "{:,.1f}"),
]


def whole(results: dict[str, Any]) -> str:
    runs: Runs = results["workloads"]
    found = results["machine"]
    loads = [run["load"] for systems in runs.values() for each in systems.values() for run in each]
    lines = [
        f"{found['cpus']} CPUs ({found['cpu']}), {found['memory_bytes'] / 2**30:.0f} GiB, {found['system']}, Python {found['python']}; "
        + ", ".join(f"{system} {version}" for system, version in versions(runs).items())
        + f". Other load (1 min average before each run): median {statistics.median(loads):.1f}, up to {max(loads):.1f}.",
    ]
    if results.get("quick"):
        lines += ["", "**Quick sizes: not to be quoted.**"]
    for heading, body in [
        ("Wall time of a task, µs", tasks_table(runs)),
        ("CPU time of a task, µs, and peak memory", processes_table(runs)),
        ("The scheduler against simulated workers", zero_table(runs)),
        ("Other figures", other_table(runs)),
        ("Goals", goals_table(runs)),
    ]:
        if body:
            lines += ["", f"### {heading}", "", *body]
    return "\n".join(lines)


def versions(runs: Runs) -> dict[str, str]:
    return {
        system: next(run["version"] for systems in runs.values() for run in systems.get(system, []))
        for system in SYSTEMS
        if any(system in systems for systems in runs.values())
    }


def _spread(numbers: list[float], form: str = "{:,.1f}") -> str:
    if len(numbers) == 1:
        return form.format(numbers[0]) + " (1 round)"
    middle, low, high = (form.format(number) for number in (statistics.median(numbers), min(numbers), max(numbers)))
    return f"{middle} ({low}–{high}; {len(numbers)})"


def tasks_table(runs: Runs) -> list[str]:
    """Median (lowest–highest; rounds), and how many times treadle's that is."""
    systems = [system for system in SYSTEMS if any(system in found for name, found in runs.items() if "zero-worker" not in name)]
    names = [name for name in WORKLOADS if name in runs and "zero-worker" not in name and values(runs, name, TREADLE, "task_us")]
    names = [name for name in names if name != "sleepy"]
    if not names:
        return []
    lines = ["| workload | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    for name in names:
        cells = []
        for system in systems:
            numbers = values(runs, name, system, "task_us")
            times = ratio(runs, name, system) if system != TREADLE else None
            cells.append((_spread(numbers) + (f" **× {times:,.1f}**" if times is not None else "")) if numbers else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def processes_table(runs: Runs) -> list[str]:
    """CPU µs a task and peak MiB by role; workers together, the largest of them for memory."""
    lines = []
    for name, systems in runs.items():
        if "zero-worker" in name or name not in WORKLOADS:
            continue
        for system, measured in systems.items():
            if "processes" not in measured[0] or "tasks" not in measured[0]:
                continue
            roles: dict[str, tuple[float, float]] = {}
            for role in ("client", "scheduler", "worker", "ray"):
                shares = [_role(run, role) for run in measured]
                if any(shares):
                    cpus, peaks = zip(*[share for share in shares if share], strict=True)
                    roles[role] = (statistics.median(cpus), statistics.median(peaks))
            cells = [f"{roles[role][0]:,.1f}, {roles[role][1]:,.0f}" if role in roles else "" for role in ("client", "scheduler", "worker")]
            total = cpu_us(runs, name, system)
            lines.append(f"| {name} | {system} | " + " | ".join(cells) + f" | {total:,.1f} |")
    if not lines:
        return []
    return [
        "| workload | system | client: µs, MiB | scheduler: µs, MiB | workers: µs together, MiB of the largest | all: µs |",
        "|---|---|---|---|---|---|",
        *lines,
    ]


def _role(run: dict[str, Any], role: str) -> tuple[float, float] | None:
    found = [process for name, process in run["processes"].items() if name.startswith(role)]
    if not found:
        return None
    return sum(process["cpu_s"] for process in found) / run["tasks"] * 1e6, max(process["peak_bytes"] for process in found) / 2**20


def zero_table(runs: Runs) -> list[str]:
    names = [name for name in WORKLOADS if name.startswith("zero-worker") and name in runs]
    if not names:
        return []
    lines = [
        "| tasks | tasks/s by the scheduler's CPU time | tasks/s by the clock | scheduler's memory, B a task |",
        "|---|---|---|---|",
    ]
    for name in names:
        cells = [_spread(values(runs, name, TREADLE, field), "{:,.0f}") for field in ("tasks_per_cpu_s", "tasks_per_s", "task_bytes")]
        lines.append(f"| {WORKLOADS[name].title} | " + " | ".join(cells) + " |")
    return lines


def other_table(runs: Runs) -> list[str]:
    lines = []
    systems = [system for system in SYSTEMS if any(values(runs, name, system, field) for name, field, _, _ in OTHER_FIGURES)]
    for name, field, heading, form in OTHER_FIGURES:
        cells = [_spread(numbers, form) if (numbers := values(runs, name, system, field)) else "" for system in systems]
        if any(cells):
            lines.append(f"| {heading} | " + " | ".join(cells) + " |")
    return ["| figure | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems), *lines] if lines else []


def goals_table(runs: Runs) -> list[str]:
    lines = []
    for goal in GOALS:
        value = goal.measure(runs)
        if value is not None:
            lines.append(f"| {goal.workload} | {goal.text} | {goal.form.format(value)} | {'yes' if goal.reached(value) else '**no**'} |")
    return ["| workload | goal | measured | reached |", "|---|---|---|---|", *lines] if lines else []


def summary(runs: Runs, workload: str) -> dict[str, float | None]:
    """Median µs a task by system: what the plot draws."""
    return {system: median(runs, workload, system, "task_us") for system in (TREADLE, DISTRIBUTED, *SYSTEMS[2:])}


if __name__ == "__main__":
    print(whole(json.loads(Path(sys.argv[1]).read_text())))
