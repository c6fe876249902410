"""The soak run in a small form, and how it tells a plateau from a leak."""

import random

import pytest

from treadle.testing.soak import grows, growth, run_soak


@pytest.mark.parametrize("per_batch", [0, 100])
def test_a_leak_of_100_bytes_a_task_is_told_from_noise(per_batch):
    numbers = random.Random(1)
    warming = [40_000_000 + 2_000_000 * min(batch, 5) for batch in range(50)]
    samples = [base + numbers.randrange(300_000) + per_batch * 20_000 * batch for batch, base in enumerate(warming)]
    assert grows(samples) == bool(per_batch)
    assert abs(growth(samples) - per_batch * 20_000 * 16) < 300_000


def test_batches_are_computed_released_and_measured(capsys):
    run = run_soak(limit_s=100, tasks=1200, batch=200, n_workers=1, threads=2, journal=True)
    assert not [text for text in run.wrong if "memory" not in text]
    lines = capsys.readouterr().out
    assert "batch 6 of 6" in lines
    for name in ("scheduler", "worker-0", "client"):
        assert f"{name}: last third" in lines
