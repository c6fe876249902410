"""``python -m treadle.testing.simulation``: look for a seed that fails, run one again, or measure how fast it is. See ``--help``."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable

import click

from treadle.testing.simulation.balance.scenario import balance_scenario_of
from treadle.testing.simulation.balance.trial import BalanceFailure, simulate_balance
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
@click.option("--balance", is_flag=True, help="Judge progress and balance, in clusters without faults of the network; --replay as well.")
@click.option("--growing", is_flag=True, help="Let the numbers of schedulers grow, as they did for seeds that failed long ago.")
@click.option("--speed", is_flag=True, help="Measure simulated seconds of a cluster of 20 workers for each second.")
def main(
    seeds: int,
    first: int,
    endless: bool,
    replay: int | None,
    keep_going: bool,
    no_shrink: bool,
    validate_every: int | None,
    balance: bool,
    growing: bool,
    speed: bool,
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
    if balance:
        _balance(chosen, keep_going, replay is not None)
        return
    failed = tried = steps = 0
    for seed in chosen:
        tried += 1
        try:
            cluster = simulate(scenario_of(seed, not growing), validate_every=validate_every, logging=replay is not None)
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


def _balance(chosen: Iterable[int], keep_going: bool, replaying: bool) -> None:
    failed = tried = steps = 0
    for seed in chosen:
        tried += 1
        try:
            cluster = simulate_balance(balance_scenario_of(seed), logging=replaying)
        except BalanceFailure as failure:
            failed += 1
            if keep_going:
                click.echo(f"seed {seed}: {failure.what[:300]}")
                continue
            click.echo("\n".join(failure.log) if replaying else str(failure))
            raise click.ClickException(f"seed {seed} failed: {failure.what}; run it again with --balance --replay {seed}") from failure
        steps += cluster.world.steps
        if replaying:
            click.echo("\n".join(cluster.world.log))
        if tried % 1000 == 0:
            click.echo(f"{tried - failed} of {tried} seeds passed, {steps} steps")
    click.echo(f"{tried - failed} of {tried} seeds passed, {steps} steps")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
