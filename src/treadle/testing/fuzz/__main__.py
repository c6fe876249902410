"""``python -m treadle.testing.fuzz --seeds 1000``: send a scheduler's core random messages. Exits with 1 if the core failed."""

from __future__ import annotations

import argparse
import itertools
import sys

from treadle.testing.fuzz.core import Failure, fuzz


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m treadle.testing.fuzz", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="messages of a run (default: %(default)s)")
    parser.add_argument("--endless", action="store_true", help="go on until something fails")
    parser.add_argument("--keep-going", action="store_true", help="look at all seeds, whether or not some fail")
    options = parser.parse_args()
    seeds = itertools.count(options.first) if options.endless else range(options.first, options.first + options.seeds)
    refused = failed = done = 0
    for seed in seeds:
        try:
            refused += fuzz(seed, options.steps).refused
        except Failure as failure:
            failed += 1
            print(failure, flush=True)
            if not options.keep_going:
                sys.exit(1)
        done += 1
    print(f"{done} seeds, {refused} frames refused, {failed} failures")
    sys.exit(1 if failed else 0)


main()
