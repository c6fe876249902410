"""``python -m treadle.testing.simulation``: look for a seed that fails, run one again, or measure how fast it is. See ``--help``."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable

import click

from treadle.testing.simulation.scenario import scenario_of
from treadle.testing.simulation.shrinking import literal, shrink
from treadle.testing.simulation.speed import measure
from treadle.testing.simulation.trial import SimulationFailure, simulate


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many seeds to try.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--endless", is_flag=True, help="Try seeds until one fails.")
@click.option("--replay", type=int, help="Run this seed only, and print what happens.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first failure; print one line for each.")
@click.option("--no-shrink", is_flag=True, help="Do not look for a smaller scenario that fails for the same reason.")
@click.option("--validate-every", type=int, help="Turns of the scheduler between two looks at all invariants; 0: none. (Default: by size.)")
@click.option("--speed", is_flag=True, help="Measure simulated seconds of a cluster of 20 workers for each second.")
def main(
    seeds: int, first: int, endless: bool, replay: int | None, keep_going: bool, no_shrink: bool, validate_every: int | None, speed: bool
) -> None:
    """Simulate clusters, one for each seed, until one of them does something wrong."""
    # What servers log of injected faults is not news.
    logging.disable(logging.CRITICAL)
    if speed:
        click.echo(str(measure()))
        return
    chosen: Iterable[int] = range(first, first + seeds)
    if endless:
        chosen = itertools.count(first)
    elif replay is not None:
        chosen = (replay,)
    failed = tried = steps = 0
    for seed in chosen:
        tried += 1
        try:
            cluster = simulate(scenario_of(seed), validate_every=validate_every, logging=replay is not None)
        except SimulationFailure as failure:
            failed += 1
            if keep_going:
                click.echo(f"seed {seed}: {failure.what[:300]}")
                continue
            click.echo(failure.tail(10**6) if replay is not None else str(failure))
            click.echo(f"\n{failure.what}" if replay is not None else "")
            if not no_shrink:
                small = shrink(failure)
                click.echo(f"\nThe smallest that fails so:\n\n{literal(small.scenario)}\n\n{small.tail()}\n\n{small.what}\n")
            raise click.ClickException(f"seed {seed} failed; run it again with --replay {seed}") from failure
        steps += cluster.world.steps
        if replay is not None:
            click.echo("\n".join(cluster.world.log))
        if endless and tried % 1000 == 0:
            click.echo(f"{tried - failed} of {tried} seeds passed, {steps} steps")
    click.echo(f"{tried - failed} of {tried} seeds passed, {steps} steps")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
