"""The page of the flights report: one picture with seven panels, drawn from the computed tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

PAPER, INK, GREY, FAINT = "#fbfaf7", "#1f2d3a", "#74808c", "#e6e2d8"
LATE, GOOD, GOLD = "#c44e34", "#2c7a7b", "#d9a441"
HEAT = LinearSegmentedColormap.from_list("heat", ["#dcebea", "#f6f1e4", "#f0cf9c", "#dd8a5b", "#b13f2d"])
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
#: A mean of fewer flights than this is not drawn.
FEWEST = 25
SHORT_NAMES = {
    "AirTran Airways Corporation": "AirTran",
    "American Airlines Inc.": "American",
    "Alaska Airlines Inc.": "Alaska",
    "Delta Air Lines Inc.": "Delta",
    "Endeavor Air Inc.": "Endeavor",
    "Envoy Air": "Envoy",
    "ExpressJet Airlines Inc.": "ExpressJet",
    "Frontier Airlines Inc.": "Frontier",
    "Hawaiian Airlines Inc.": "Hawaiian",
    "JetBlue Airways": "JetBlue",
    "Mesa Airlines Inc.": "Mesa",
    "SkyWest Airlines Inc.": "SkyWest",
    "Southwest Airlines Co.": "Southwest",
    "US Airways Inc.": "US Airways",
    "United Air Lines Inc.": "United",
    "Virgin America": "Virgin America",
}
WIND_ORDER = ["calm, under 5", "5-10", "10-15", "15-20", "20 and more"]
VISIBILITY_ORDER = ["clear, 10", "5-9", "2-5", "under 2"]


def draw_page(tables: dict[str, pd.DataFrame], footer: str, path: Path) -> None:
    """Write the page as a PNG."""
    style: dict[str, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": GREY,
        "axes.edgecolor": FAINT,
        "xtick.color": GREY,
        "ytick.color": INK,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
    }
    with plt.rc_context(style):
        figure = plt.figure(figsize=(16, 19.5))
        # Two grids, so that the lowest row may stand further apart.
        upper = figure.add_gridspec(2, 24, left=0.105, right=0.965, top=0.815, bottom=0.333, hspace=0.36, wspace=1, height_ratios=[1.2, 1])
        lower = figure.add_gridspec(2, 7, left=0.078, right=0.965, top=0.245, bottom=0.062, hspace=0.62, wspace=0.2)
        draw_head(figure, tables)
        draw_carriers(figure.add_subplot(upper[0, :15]), tables["carrier_month"], tables["carrier"])
        draw_weather(figure.add_subplot(upper[0, 17:]), tables["weather"])
        draw_hours(figure.add_subplot(upper[1, :7]), tables["hour"])
        draw_routes(figure.add_subplot(upper[1, 9:15]), tables["route"])
        draw_ages(figure.add_subplot(upper[1, 17:]), tables["age"])
        draw_trends(figure, lower, tables["carrier_month"], tables["carrier"])
        figure.text(0.04, 0.02, footer, color=GREY, fontsize=9.5)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def draw_head(figure: Figure, tables: dict[str, pd.DataFrame]) -> None:
    """Title, and the four numbers to remember."""
    total = tables["airport"].sum()
    figure.text(0.04, 0.957, "Late out of New York", fontsize=34, fontweight="bold", va="center")
    figure.text(
        0.04,
        0.929,
        "All flights that left Newark, JFK and LaGuardia in 2013: how late they came, when, where and why.",
        fontsize=13,
        color=GREY,
    )
    numbers = [
        (f"{total.flights:,.0f}", "flights planned", INK),
        (f"{total.late / total.arrived:.0%}", "arrived more than 15 minutes late", LATE),
        (f"{total.cancelled / total.flights:.1%}", "never took off", INK),
        (f"{total.lost / 60 / 24 / 365.25:.1f} years", "lost in late arrivals, added up", LATE),
    ]
    for column, (number, meaning, color) in enumerate(numbers):
        left = 0.04 + 0.237 * column
        figure.text(left, 0.893, number, fontsize=25, fontweight="bold", color=color, va="center")
        figure.text(left, 0.874, meaning, fontsize=11, color=GREY, va="center")


def heading(axes: Axes, title: str, subtitle: str, left: float | None = None, up: float = 0) -> None:
    """Above the axes, at its left edge or at that place on the page (0 to 1)."""
    where = "axes fraction" if left is None else ("figure fraction", "axes fraction")
    at = (left or 0.0, 1)
    axes.annotate(title, at, (0, 27 + up), xycoords=where, textcoords="offset points", fontsize=14, fontweight="bold")
    axes.annotate(subtitle, at, (0, 10 + up), xycoords=where, textcoords="offset points", fontsize=10, color=GREY)


def signed(number: float) -> str:
    """Rounded, with a plus or a true minus; zero has neither."""
    rounded = round(number)
    return f"{rounded:+d}".replace("-", "\u2212") if rounded else "0"


def bare(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def heatmap(axes: Axes, values: np.ndarray, texts: list[list[str]], low: float, high: float) -> None:
    """Cells with their number inside; a cell without a value is left empty."""
    axes.imshow(values, cmap=HEAT, vmin=low, vmax=high, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        if not np.isnan(values[row, column]):
            dark = (values[row, column] - low) / (high - low) > 0.72
            axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=9.5, color="white" if dark else INK)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=2.5)
    axes.tick_params(which="both", length=0)
    bare(axes)


def draw_carriers(axes: Axes, by_month: pd.DataFrame, by_carrier: pd.DataFrame) -> None:
    delay = (by_month.delay / by_month.arrived).where(by_month.arrived >= FEWEST).unstack("month")
    order = (by_carrier.delay / by_carrier.arrived)[by_carrier.arrived >= 12 * FEWEST].sort_values().index
    delay = delay.loc[order]
    values = delay.to_numpy()
    heatmap(axes, values, [["" if np.isnan(value) else signed(value) for value in row] for row in values], -15, 40)
    axes.set_xticks(range(12), MONTHS)
    axes.set_yticks(range(len(order)), [SHORT_NAMES.get(name, name) for name in order], fontsize=10.5)
    subtitle = "Mean arrival delay in minutes, by airline and month; minus means early"
    heading(axes, "Summer and December are late, whoever flies", subtitle, left=0.04)


def draw_weather(axes: Axes, by_weather: pd.DataFrame) -> None:
    share = (by_weather.late / by_weather.arrived).where(by_weather.arrived >= FEWEST).unstack("wind")
    values = share.reindex(index=VISIBILITY_ORDER, columns=WIND_ORDER).to_numpy()
    heatmap(axes, values, [["" if np.isnan(v) else f"{v:.0%}" for v in row] for row in values], 0.15, 0.62)
    axes.set_xticks(range(5), ["under 5", "5\u201310", "10\u201315", "15\u201320", "20 +"])
    axes.set_yticks(range(4), ["clear", "5\u20139", "2\u20135", "under 2"], fontsize=10.5)
    axes.set_xlabel("wind at the airport, miles an hour", labelpad=8)
    axes.set_ylabel("visibility, miles", labelpad=6)
    heading(axes, "Fog costs more than wind", "Share of arrivals more than 15 minutes late")


def draw_hours(axes: Axes, by_hour: pd.DataFrame) -> None:
    table = by_hour[by_hour.arrived >= FEWEST]
    wait = table.wait / (table.flights - table.cancelled)
    colors = HEAT(np.interp(wait, [-2, 26], [0.12, 1]))
    axes.bar(table.index, wait, width=0.8, color=colors)
    bare(axes)
    # No labels on the left: begin where the page begins.
    place = axes.get_position()
    axes.set_position((0.04, place.y0, place.x1 - 0.04, place.height))
    axes.margins(x=0.01)
    axes.set_xticks([6, 9, 12, 15, 18, 21], ["6 h", "9 h", "12 h", "15 h", "18 h", "21 h"])
    axes.yaxis.set_visible(False)
    for hour, minutes in wait.items():
        axes.text(hour, minutes + 0.35, f"{minutes:.0f}", ha="center", fontsize=9, color=INK)
    axes.set_ylim(min(0, wait.min()), wait.max() * 1.12)
    heading(axes, "Delay piles up through the day", "Mean departure delay in minutes, by planned hour of departure", left=0.04)


def draw_routes(axes: Axes, by_route: pd.DataFrame) -> None:
    worst = by_route.sort_values("lost", ascending=False).head(12)[::-1]
    days = worst.lost / 60 / 24
    origins = {"EWR": LATE, "JFK": GOOD, "LGA": GOLD}
    axes.barh(range(len(worst)), days, height=0.74, color=[origins[origin] for origin, _ in worst.index])
    for place, (value, mean) in enumerate(zip(days, worst.delay / worst.arrived, strict=True)):
        axes.text(value + days.max() * 0.02, place, f"{value:.0f} days", va="center", fontsize=9.5)
        axes.text(days.max() * 0.02, place, f"{signed(mean)} min a flight", va="center", fontsize=8.5, color="white")
    axes.set_yticks(range(len(worst)), [f"{origin} \u2192 {destination}" for origin, destination in worst.index])
    axes.xaxis.set_visible(False)
    axes.set_xlim(0, days.max() * 1.2)
    bare(axes)
    heading(axes, "The routes that lose most time", "Late minutes of the year added up, in days")


def draw_ages(axes: Axes, by_age: pd.DataFrame) -> None:
    table = by_age[(by_age.arrived >= 10 * FEWEST) & (by_age.index >= 0)]
    delay = table.delay / table.arrived
    sizes = np.sqrt(table.arrived / table.arrived.max()) * 220
    axes.plot(table.index, delay, color=FAINT, linewidth=2, zorder=1)
    axes.scatter(table.index, delay, s=sizes, color=GOOD, alpha=0.85, edgecolor=PAPER, linewidth=1.2, zorder=2)
    bare(axes)
    axes.yaxis.grid(True, color=FAINT, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", colors=GREY)
    axes.set_xlabel("years since it was built (30: or more)", labelpad=6)
    heading(axes, "Old planes are not the late ones", "Mean arrival delay in minutes; large dots: many flights")


def draw_trends(figure: Figure, grid: GridSpec, by_month: pd.DataFrame, by_carrier: pd.DataFrame) -> None:
    """A small line for each airline that flew all year: share of arrivals on time, first against second half year."""
    on_time = (1 - by_month.late / by_month.arrived).where(by_month.arrived >= FEWEST).unstack("month")
    order = by_carrier.sort_values("flights", ascending=False).index
    shown = [name for name in order if on_time.loc[name].notna().sum() == 12][:14]
    mean = 1 - by_month.late.groupby("month").sum() / by_month.arrived.groupby("month").sum()
    for number, name in enumerate(shown):
        axes = figure.add_subplot(grid[number // 7, number % 7])
        months = on_time.loc[name]
        change = half_year_change(by_month.loc[name])
        color = GOOD if change >= 0 else LATE
        axes.plot(mean.index, mean, color="#cfc9bb", linewidth=1.4)
        axes.fill_between(months.index, months, mean, color=color, alpha=0.1, linewidth=0)
        axes.plot(months.index, months, color=color, linewidth=2.2)
        axes.plot(12, months[12], "o", color=color, markersize=5)
        axes.set_ylim(0.45, 1.0)
        axes.set_xlim(0.6, 12.6)
        axes.set_xticks([1, 6.5, 12], ["Jan", "", "Dec"], fontsize=8.5)
        axes.set_yticks([0.6, 0.8, 1.0], ["60 %", "80 %", "100 %"] if number % 7 == 0 else ["", "", ""], fontsize=8.5, color=GREY)
        axes.yaxis.grid(True, color=FAINT, linewidth=0.8)
        bare(axes)
        axes.set_title(SHORT_NAMES.get(name, name), loc="left", fontsize=10.5, pad=5)
        sign = "\u25b2" if change >= 0 else "\u25bc"
        axes.set_title(f"{sign} {abs(change) * 100:.1f}", loc="right", fontsize=9.5, color=color, pad=5)
        if number == 0:
            heading(
                axes,
                "Who became more punctual?",
                "Share of arrivals on time, by month; the grey line is all airlines. "
                "\u25b2 \u25bc: July to December against January to June, in percentage points",
                left=0.04,
                up=20,
            )


def half_year_change(months: pd.DataFrame) -> float:
    """How the share of arrivals on time in July to December differs from that in January to June."""
    half = months.groupby(months.index > 6)[["late", "arrived"]].sum()
    on_time = 1 - half.late / half.arrived
    return float(on_time[True] - on_time[False])
