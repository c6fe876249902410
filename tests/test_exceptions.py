"""What users read in errors."""

from treadle import KilledWorker


def test_one_worker_is_not_several():
    assert "'x' was executing on 1 worker when it died: tcp://a:1. It is" in str(KilledWorker("x", "tcp://a:1", 0))
    assert "'x' was executing on 4 workers when they died, the last one being tcp://a:1. It is" in str(KilledWorker("x", "tcp://a:1", 3))
