"""How much memory a worker may use."""

import logging

import pytest

from treadle.utils import worker_resources
from treadle.utils.worker_resources import parse_memory_limit

TOTAL = 16 * 2**30


@pytest.fixture(autouse=True)
def total(monkeypatch):
    monkeypatch.setattr(worker_resources, "system_memory_bytes", lambda: TOTAL)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("auto", TOTAL // 4),
        (0.5, TOTAL // 2),
        ("0.5", TOTAL // 2),
        (1.0, TOTAL),
        ("4GiB", 4 * 2**30),
        (10**9, 10**9),
        (0, 0),
        ("0", 0),
        (None, 0),
        (False, 0),
    ],
)
def test_memory_limit(value, expected):
    assert parse_memory_limit(value, 2, 8) == expected


def test_memory_limit_is_capped_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert parse_memory_limit("100GiB", 2, 8) == TOTAL
    assert "more than this machine has" in caplog.text


@pytest.mark.parametrize("value", ["much", -5, [1]])
def test_memory_limit_makes_sense(value):
    with pytest.raises(ValueError, match="memory_limit"):
        parse_memory_limit(value, 2, 8)


def test_the_machine_has_memory(monkeypatch):
    monkeypatch.undo()
    assert worker_resources.system_memory_bytes() > 2**20
