"""``python -m treadle.testing.scenes [--update | --show] FILE ...``: play scene files, and show or write down what happened."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from treadle.testing.scenes.playing import play_text
from treadle.testing.scenes.script import SceneError


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if a scene did not go as written, else 0."""
    parser = argparse.ArgumentParser(prog="python -m treadle.testing.scenes", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write what happened into the files, in place of what was expected")
    parser.add_argument("--show", action="store_true", help="print the scenes as they went")
    parser.add_argument("files", nargs="+", type=Path, help="scene files, or folders of them")
    options = parser.parse_args(arguments)
    files = [file for path in options.files for file in (sorted(path.rglob("*.scene")) if path.is_dir() else [path])]
    failed = 0
    for file in files:
        try:
            played = play_text(file.read_text())
        except SceneError as error:
            print(f"{file}: {error}")
            failed += 1
            continue
        if options.show:
            print(played.text)
        if played.passed:
            continue
        if options.update:
            file.write_text(played.text)
            print(f"{file}: rewritten")
        else:
            failed += 1
        if not options.show:
            print(played.diff())
    print(f"{len(files) - failed} of {len(files)} scenes went as written")
    return min(failed, 1)


if __name__ == "__main__":
    # The log of a party is no part of a scene.
    logging.disable(logging.CRITICAL)
    sys.exit(main())
