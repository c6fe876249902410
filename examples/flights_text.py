"""The words of the flights report: a summary for the terminal, ``report.md`` and the tables as CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from flights_page import FEWEST, MONTHS, SHORT_NAMES, VISIBILITY_ORDER, WIND_ORDER, half_year_change


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """The findings, a line each."""
    total = tables["airport"].sum()
    hours = mean_wait(tables["hour"])
    routes = tables["route"].sort_values("lost", ascending=False)
    (origin, destination), worst = routes.index[0], routes.iloc[0]
    share = late_share(tables["weather"])
    wind, visibility = share.idxmax()
    on_time = 1 - late_share(tables["carrier"])
    return [
        f"{total.flights:,.0f} flights, {total.cancelled:,.0f} never took off.",
        f"{total.late:,.0f} of {total.arrived:,.0f} arrivals were more than 15 minutes late ({total.late / total.arrived:.1%}).",
        f"{total.lost:,.0f} minutes were lost in late arrivals, {total.lost / 60 / 24 / 365.25:.1f} years.",
        f"The most punctual airline is {name_of(on_time.idxmax())} ({on_time.max():.1%} on time), "
        f"the least punctual {name_of(on_time.idxmin())} ({on_time.min():.1%}).",
        f"The worst hour to leave is {hours.idxmax()} h ({hours.max():.0f} minutes late on average), the best {hours.idxmin()} h "
        f"({hours.min():.0f}).",
        f"The route that loses most time is {origin} to {destination}: {worst.lost / 60 / 24:.0f} days in {worst.arrived:,.0f} arrivals.",
        f"The worst weather: wind {wind} miles an hour with visibility {visibility} miles ({share.max():.0%} late).",
    ]


def write_markdown(tables: dict[str, pd.DataFrame], footer: str, path: Path) -> None:
    """The whole report as text."""
    parts = ["# Late out of New York", "", *[f"- {line}" for line in summary(tables)], "", "![The page](flights.png)", ""]
    parts += section("Mean arrival delay by airline and month, minutes", carrier_months(tables["carrier_month"]))
    parts += section("By planned hour of departure", hours_table(tables["hour"]))
    parts += section("Late arrivals by wind (miles an hour, down) and visibility (miles, across)", weather_table(tables["weather"]))
    parts += section("The routes that lose most time", routes_table(tables["route"]))
    parts += section("Who became more punctual", trends_table(tables["carrier_month"]))
    known = tables["age"].flights.sum() / tables["airport"].flights.sum()
    parts += section(f"By age of the plane, years (known for {known:.0%} of the flights)", ages_table(tables["age"]))
    path.write_text("\n".join([*parts, footer, ""]), encoding="utf-8")


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """The sums themselves, a CSV file a table."""
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv")


def name_of(airline: str) -> str:
    return SHORT_NAMES.get(airline, airline)


def late_share(table: pd.DataFrame) -> pd.Series:
    """Share of the arrivals that were late, where there are enough to say."""
    return (table.late / table.arrived)[table.arrived >= 10 * FEWEST]


def mean_wait(by_hour: pd.DataFrame) -> pd.Series:
    """Mean departure delay in minutes, where there are enough flights to say."""
    flown = by_hour.flights - by_hour.cancelled
    return (by_hour.wait / flown)[flown >= FEWEST]


def carrier_months(table: pd.DataFrame) -> pd.DataFrame:
    delay = (table.delay / table.arrived).where(table.arrived >= FEWEST).unstack("month").dropna(how="all").round(1)
    delay.columns = MONTHS
    return delay.rename(index=name_of)


def hours_table(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "flights": table.flights,
            "cancelled": table.cancelled,
            "departs late by, minutes": (table.wait / (table.flights - table.cancelled)).round(1),
            "arrives late": (table.late / table.arrived).map("{:.1%}".format),
        }
    )


def weather_table(table: pd.DataFrame) -> pd.DataFrame:
    share = (table.late / table.arrived).where(table.arrived >= FEWEST).unstack("visibility")
    return share.reindex(index=WIND_ORDER, columns=VISIBILITY_ORDER).map("{:.0%}".format)


def routes_table(table: pd.DataFrame) -> pd.DataFrame:
    worst = table.sort_values("lost", ascending=False).head(20)
    return pd.DataFrame(
        {
            "days lost": (worst.lost / 60 / 24).round(1),
            "arrivals": worst.arrived,
            "mean delay, minutes": (worst.delay / worst.arrived).round(1),
            "late": (worst.late / worst.arrived).map("{:.1%}".format),
        }
    ).set_axis([f"{origin} to {destination}" for origin, destination in worst.index])


def trends_table(table: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for airline, months in table.groupby(level="airline"):
        if (months.arrived >= FEWEST).sum() == 12:
            year = months[["late", "arrived"]].sum()
            change = half_year_change(months.droplevel("airline"))
            rows[name_of(str(airline))] = (f"{1 - year.late / year.arrived:.1%}", round(100 * change, 1))
    trends = pd.DataFrame.from_dict(rows, orient="index", columns=["on time", "second half against first, points"])
    return trends.sort_values("second half against first, points", ascending=False)


def ages_table(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[table.index >= 0]
    return pd.DataFrame({"flights": shown.flights, "mean arrival delay, minutes": (shown.delay / shown.arrived).round(1)})


def section(title: str, table: pd.DataFrame) -> list[str]:
    """A heading and a table in Markdown."""
    lines = [f"## {title}", "", "| | " + " | ".join(map(str, table.columns)) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for label, row in zip(table.index, table.itertuples(index=False), strict=True):
        cells = ["" if pd.isna(value) or value == "nan%" else str(value) for value in row]
        lines.append(f"| {int(label) if isinstance(label, float) else label} | " + " | ".join(cells) + " |")
    return [*lines, ""]
