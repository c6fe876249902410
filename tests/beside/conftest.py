"""Tests with the packages that people have beside treadle: ``pip install -e '.[test,beside]'``.

Where one is missing they are skipped, but with TREADLE_REAL_PARTS=1 they fail: whoever sets that says that all are there.
"""

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import treadle

ROOT = str(Path(treadle.__file__).parents[1])


def need(*modules):
    """Called by a test that cannot do without."""
    missing = [name for name in modules if find_spec(name) is None]
    if not missing:
        return
    if os.environ.get("TREADLE_REAL_PARTS") == "1":
        pytest.fail(f"not installed here: {', '.join(missing)}")
    pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(name="need")
def need_fixture():
    return need


@pytest.fixture
def run_script(tmp_path):
    """Runs a program of that text in a process of its own: (what it printed, what it wrote to its error output)."""

    def run(text, *arguments, code=0, **options):
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(text))
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": ROOT, "HOME": str(home), **options.pop("environment", {})}
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=100, env=environment, cwd=tmp_path, **options
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    return run
