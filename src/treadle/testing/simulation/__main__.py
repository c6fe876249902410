"""``python -m treadle.testing.simulation --seeds N [--first K]``: run seeds K, K + 1, ...; print the first that fails."""

from __future__ import annotations

import logging

import click

from treadle.testing.simulation.scenario import scenario_of
from treadle.testing.simulation.trial import SimulationFailure, simulate


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many seeds to try.")
@click.option("--first", default=0, show_default=True, help="The first of them; with --seeds 1 this replays one exactly.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first failure; print one line for each.")
def main(seeds: int, first: int, keep_going: bool) -> None:
    """Simulate clusters, one for each seed, until one of them does something wrong."""
    # What servers log of injected faults is not news.
    logging.disable(logging.CRITICAL)
    failed = 0
    steps = 0
    for seed in range(first, first + seeds):
        try:
            steps += simulate(scenario_of(seed)).world.steps
        except SimulationFailure as failure:
            failed += 1
            if not keep_going:
                click.echo(str(failure))
                raise click.ClickException(f"seed {seed} failed; replay it with --first {seed} --seeds 1") from failure
            click.echo(f"seed {seed}: {failure.what[:300]}")
    click.echo(f"{seeds - failed} of {seeds} seeds passed, {steps} steps")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
