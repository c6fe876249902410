"""What holds for the whole run: the tests say which build they ran against, and can insist on the compiled one."""

from __future__ import annotations

import os

import pytest

import treadle


def pytest_report_header(config: pytest.Config) -> str:
    build = "compiled" if treadle.compiled else "interpreted"
    return f"treadle {treadle.__version__} from {os.path.dirname(treadle.__file__)}, cores {build}"


def pytest_configure(config: pytest.Config) -> None:
    expected = os.environ.get("TREADLE_EXPECT_COMPILED")
    if expected is not None and treadle.compiled != (expected == "1"):
        raise pytest.UsageError(f"TREADLE_EXPECT_COMPILED={expected}, but treadle.compiled is {treadle.compiled} ({treadle.__file__})")
