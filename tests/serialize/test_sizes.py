from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dask.sizeof import sizeof as dask_sizeof
from hypothesis import given
from hypothesis import strategies as st

from treadle.serialize.sizes import sizeof, type_name


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text()))
def test_sizes_are_positive(value: Any) -> None:
    assert sizeof(value) >= 1


def test_arrays_and_frames_count_their_memory() -> None:
    assert 800_000 <= sizeof(np.zeros(100_000)) < 810_000
    assert sizeof(pd.DataFrame({"a": np.zeros(100_000)})) >= 800_000
    assert sizeof(b"x" * 1000) >= 1000


def frames() -> dict[str, Any]:
    rows = 10_000
    numbers = pd.DataFrame({"a": np.zeros(rows), "b": np.arange(rows), "c": np.zeros(rows, dtype="int8")})
    words = pd.DataFrame({"a": np.zeros(rows), "w": pd.Series([f"word {at}" for at in range(rows)], dtype="string[pyarrow]")})
    objects = pd.DataFrame({"o": pd.Series([f"word {at}" * 5 for at in range(rows)], dtype=object)})
    timed = numbers.set_index(pd.date_range("2000-01-01", periods=rows, freq="s"))
    return {
        "numbers": numbers,
        "words": words,
        "objects": objects,
        "timed": timed,
        "several levels": numbers.set_index(["a", "b"]),
        "categories": words.astype({"w": "category"}),
        "a series": timed["b"],
        "a series of words": words["w"],
        "a series of objects": objects["o"],
        "a dict of frames": {at: numbers.iloc[at * 1000 : (at + 1) * 1000] for at in range(10)},
    }


@pytest.mark.parametrize("name", list(frames()))
def test_frames_are_as_large_as_dask_says(name: str) -> None:
    frame = frames()[name]
    if isinstance(frame, dict):
        wanted = sum(dask_sizeof(part) for part in frame.values())
    else:
        wanted = dask_sizeof(frame)
    assert 0.9 * wanted - 2000 <= sizeof(frame) <= 1.1 * wanted + 2000


def test_a_dict_that_holds_itself_has_a_size() -> None:
    value: dict[str, Any] = {}
    value["itself"] = value
    assert sizeof(value) >= 1


def test_a_value_that_does_not_know_its_size_gets_one() -> None:
    class Nasty:
        def __sizeof__(self) -> int:
            raise RuntimeError

    assert sizeof(Nasty()) >= 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "int"),
        (None, "NoneType"),
        ([], "list"),
        (np.zeros(1), "numpy.ndarray"),
        (np.float64(1), "numpy.float64"),
        (pd.DataFrame(), "pandas.DataFrame"),
        (int, "type"),
    ],
)
def test_type_names(value: Any, name: str) -> None:
    assert type_name(value) == name


def test_importing_the_serializers_brings_in_no_large_library() -> None:
    code = (
        "import sys, treadle.serialize.values, treadle.serialize.spec, treadle.serialize.sizes, treadle.comm.registry\n"
        "print([name for name in ('numpy', 'pandas', 'pyarrow', 'distributed') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
