"""A plot of the results: what a task costs on each system, and how far each goal was reached. ``python plot.py JSON PNG``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from goals import GOALS, Goal, Runs, median, ratio
from workloads import DISTRIBUTED, RAY, THREADED, TREADLE, WORKLOADS

INK, PALE, GRID = "#22303c", "#8795a1", "#e4e9ed"
COLOURS = {TREADLE: "#0b7285", DISTRIBUTED: "#e8590c", THREADED: "#868e96", RAY: "#7048e8"}
MARKERS = {TREADLE: "o", DISTRIBUTED: "o", THREADED: "D", RAY: "s"}
REACHED, MISSED = "#2b8a3e", "#c92a2a"


def draw(results: dict[str, Any], path: Path) -> None:
    """Raises ModuleNotFoundError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs: Runs = results["workloads"]
    tasks = [name for name in WORKLOADS if median(runs, name, TREADLE, "task_us") and "zero-worker" not in name and name != "sleepy"]
    goals = [(goal, value) for goal in GOALS if (value := goal.measure(runs)) is not None]
    pyplot.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK})
    rows = len(tasks) + len(goals)
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(10, 2.2 + 0.34 * rows), height_ratios=[max(len(tasks), 1), max(len(goals), 1)], layout="constrained"
    )
    _tasks(above, runs, tasks)
    _goals(below, goals)
    figure.savefig(path, dpi=150, facecolor="white")
    pyplot.close(figure)


def _clean(axes: Any, labels: list[str], title: str, note: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.tick_params(axis="x", which="both", colors=PALE, length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=24)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "ha": "left"}
    axes.annotate(note, (0, 1), (0, 8), fontsize=9, color=PALE, **place)


def _tasks(axes: Any, runs: Runs, names: list[str]) -> None:
    """A row a workload: a dot a system on a logarithmic scale, a line from treadle to dask.distributed with the ratio."""
    for row, name in enumerate(names):
        own, theirs = median(runs, name, TREADLE, "task_us"), median(runs, name, DISTRIBUTED, "task_us")
        if own and theirs:
            axes.plot([own, theirs], [row, row], color=GRID, linewidth=5, solid_capstyle="round", zorder=1)
            times = ratio(runs, name, DISTRIBUTED) or theirs / own
            axes.annotate(f"× {times:,.0f}", ((own * theirs) ** 0.5, row), (0, 4), textcoords="offset points", ha="center", fontsize=8)
    for system, colour in COLOURS.items():
        points = [(value, row) for row, name in enumerate(names) if (value := median(runs, name, system, "task_us")) is not None]
        if points:
            across, down = zip(*points, strict=True)
            axes.scatter(across, down, s=52 if system == TREADLE else 34, color=colour, marker=MARKERS[system], label=system, zorder=3)
    _clean(axes, names, "What a task costs", "wall time for each task; further left is better")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f} µs" if value < 1e3 else f"{value / 1e3:,.0f} ms")
    tight = {"frameon": False, "fontsize": 9, "borderaxespad": 2.2, "handletextpad": 0.2, "columnspacing": 1.2}
    axes.legend(loc="lower right", bbox_to_anchor=(1.03, 1), ncols=4, **tight)


def _goals(axes: Any, goals: list[tuple[Goal, float]]) -> None:
    """A row a goal: how many times it was reached; left of the line it was not."""
    shares = []
    for goal, value in goals:
        share = value / goal.limit if goal.at_least else goal.limit / max(value, 1e-9)
        shares.append(min(max(share, 0.02), 50.0))
    for row, ((goal, value), share) in enumerate(zip(goals, shares, strict=True)):
        colour = REACHED if goal.reached(value) else MISSED
        axes.plot([1, share], [row, row], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=1)
        axes.scatter([share], [row], s=34, color=colour, zorder=3)
        right = share >= 1
        axes.annotate(
            goal.form.format(value), (share, row), (7 if right else -7, 0), textcoords="offset points",
            ha="left" if right else "right", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1, zorder=2)
    labels = [f"{'zero-worker' if goal.workload.startswith('zero-worker') else goal.workload}: {goal.text}" for goal, _ in goals]
    _clean(axes, labels, "Goals", "share of the goal that was reached; the line is the goal")
    if shares:
        axes.set_xlim(min(shares) / 2.2, max(shares) * 2.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
