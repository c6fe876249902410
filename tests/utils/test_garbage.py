"""The scheduler's process sets the collector up; in a process of its own, because it is set for the whole process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
from treadle.utils import garbage
before = gc.get_threshold()
garbage.settle()
assert gc.isenabled() and gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert all(now > was for now, was in zip(gc.get_threshold(), before)), (gc.get_threshold(), before)
"""


def test_what_is_there_is_not_looked_at_again() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
