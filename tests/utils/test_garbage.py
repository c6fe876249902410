"""How the collector is set up (in a process of its own, because that is for the whole process), and pauses."""

from __future__ import annotations

import gc
import subprocess
import sys

from treadle.utils import interpreter

CODE = """
import gc
from treadle.utils import interpreter
before = gc.get_threshold()
interpreter.settle_garbage()
assert gc.isenabled() and gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert all(now > was for now, was in zip(gc.get_threshold(), before)), (gc.get_threshold(), before)
"""


def test_what_is_there_is_not_looked_at_again() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_the_last_pause_ends_it() -> None:
    assert gc.isenabled()
    with interpreter.garbage_paused():
        with interpreter.garbage_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_off_stays_off() -> None:
    gc.disable()
    try:
        with interpreter.garbage_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
