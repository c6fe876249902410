"""Whatever registered parties say, the core refuses it or takes it: see ``treadle.testing.fuzz``, which runs longer by command."""

from __future__ import annotations

import pytest

from treadle.testing.fuzz.core import fuzz


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_seeds(seed: int) -> None:
    refused = sum(fuzz(each, 100).refused for each in range(seed, seed + 10))
    assert refused > 0


@pytest.mark.parametrize("seed", [50380, 50387])
def test_seeds_that_failed(seed: int) -> None:
    """A task that had left a queue for another one was still taken for one of the first."""
    assert fuzz(seed).refused > 0
