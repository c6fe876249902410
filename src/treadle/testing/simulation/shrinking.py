"""The smallest scenario that still fails: fewer steps, tasks, clients and workers, and nothing special that does not matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from treadle.testing.simulation.scenario import Scenario, Step, scenario_of, with_script
from treadle.testing.simulation.trial import SimulationFailure, simulate

#: Simulations that are run for it.
MOST_TRIES = 500
#: These say what a script is made of, and nothing else.
_COUNTS = (
    *("acts", "deaths", "pauses", "data_losses", "cancels", "leaves", "client_deaths", "restart", "horizon_s", "cuts", "stalls"),
    *("scheduler_deaths", "drawn", "slow_disks", "full_disks", "retirements", "clock_jumps"),
)


def check(seed: int, drawn: bool = True) -> None:
    """Simulate what follows from ``seed``. Raises AssertionError that says how to run it again, and what smallest scenario fails so."""
    try:
        simulate(scenario_of(seed, drawn))
    except SimulationFailure as failure:
        small = shrink(failure)
        again = f"python -m treadle.testing.simulation --replay {seed}{'' if drawn else ' --growing'}"
        raise AssertionError(
            f"seed {seed}: {failure.what}\n\nRun it again: {again}\n\n"
            f"The smallest that fails so: {literal(small.scenario)}\n\n{small.tail()}\n\n{small.what}"
        ) from failure


def literal(scenario: Scenario) -> str:
    """For a test to hold: what differs from the defaults."""
    default = Scenario(scenario.seed)
    parts = [f"{scenario.seed}"]
    for field in fields(scenario):
        value = getattr(scenario, field.name)
        if field.name == "script":
            steps = ", ".join(f"Step({step.at!r}, {step.what!r}, {step.salt!r})" for step in value or ())
            parts.append(f"script=({steps}{',' if len(value or ()) == 1 else ''})")
        elif value != getattr(default, field.name):
            text = 'float("inf")' if value == float("inf") else repr(value)
            parts.append(f"{field.name}={text}")
    return f"Scenario({', '.join(parts)})"


def shrink(failure: SimulationFailure, most_tries: int = MOST_TRIES) -> SimulationFailure:
    """The failure, for the same reason, of the smallest scenario that was found."""
    kind = _kind(failure)
    tries = 0

    def fails(scenario: Scenario) -> SimulationFailure | None:
        nonlocal tries
        tries += 1
        try:
            simulate(scenario)
        except SimulationFailure as other:
            return other if _kind(other) == kind else None
        return None

    best = failure
    progress = True
    while progress and tries < most_tries:
        progress = False
        for attempt in (_without_steps, _simpler):
            smaller = attempt(best, fails, lambda: tries >= most_tries)
            if smaller is not best:
                best, progress = smaller, True
    return best


def _kind(failure: SimulationFailure) -> str:
    """What went wrong, without names and numbers."""
    return re.sub(r"[\d'\"]+|\(.*|\{.*|<.*", "", failure.what.split(";")[0])[:40]


Attempt = Callable[[Scenario], SimulationFailure | None]


def _without_steps(best: SimulationFailure, fails: Attempt, enough: Callable[[], bool]) -> SimulationFailure:
    """Take out as many steps at once as may be."""
    size = max(1, len(_steps(best)) // 2)
    while not enough():
        start = 0
        found = False
        while start < len(_steps(best)) and not enough():
            steps = _steps(best)
            smaller = fails(replace(best.scenario, script=steps[:start] + steps[start + size :]))
            if smaller is not None:
                best, found = smaller, True
            else:
                start += size
        if size == 1 and not found:
            break
        size = max(1, size // 2)
    return best


def _steps(failure: SimulationFailure) -> tuple[Step, ...]:
    return with_script(failure.scenario).script or ()


def _simpler(best: SimulationFailure, fails: Attempt, enough: Callable[[], bool]) -> SimulationFailure:
    """One thing less at a time."""
    progress = True
    while progress and not enough():
        progress = False
        for scenario in _simplifications(best.scenario):
            if enough():
                break
            smaller = fails(scenario)
            if smaller is not None:
                best, progress = smaller, True
                break
    return best


def _simplifications(scenario: Scenario) -> Iterator[Scenario]:
    default = Scenario(scenario.seed)
    script = with_script(scenario).script
    plain = replace(scenario, script=script, **{name: getattr(default, name) for name in _COUNTS})
    if plain != scenario:
        yield plain
    for name, least in (("tasks", 1), ("clients", 1), ("workers", 1), ("nthreads", 1), ("chunks", 1), ("scattered", 0)):
        value = getattr(scenario, name)
        for less in dict.fromkeys((least, value // 2, value - 1)):
            if least <= less < value:
                yield replace(scenario, **{name: less})
    for field in fields(scenario):
        value = getattr(default, field.name)
        if field.name not in ("seed", "script", "tasks", "clients", "workers", *_COUNTS) and getattr(scenario, field.name) != value:
            yield replace(scenario, **{field.name: value})
