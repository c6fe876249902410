"""Threads over processes."""

import pytest

from treadle.utils.worker_resources import nprocesses_nthreads


@pytest.mark.parametrize(
    ("cpus", "expected"), [(1, (1, 1)), (4, (4, 1)), (5, (5, 1)), (8, (4, 2)), (12, (4, 3)), (32, (8, 4)), (64, (8, 8))]
)
def test_no_process_has_more_threads_than_there_are_processes(cpus, expected):
    assert nprocesses_nthreads(cpus) == expected
