"""dask passes the options of a ``compute`` on to its scheduler, whichever it is."""

import dask
import dask.array as da
import numpy as np
import pytest

from treadle import Client


@pytest.fixture(scope="module")
def client():
    with Client(n_workers=1, threads_per_worker=2, processes=False) as client:
        yield client


@pytest.mark.parametrize("lock", [True, False])
def test_arrays_are_stored_with_options_of_other_schedulers(client, lock):
    target = da.zeros((4, 4), chunks=2).compute()
    kept = []

    class Target:
        def __setitem__(self, index, value):
            kept.append((index, value))

        def __reduce__(self):
            return _target, ()

    _target.found = Target()
    da.store(da.ones((4, 4), chunks=2), _target.found, lock=lock, flush=True)
    for index, value in kept:
        target[index] = value
    assert np.array_equal(target, np.ones((4, 4)))


def _target():
    return _target.found


def test_options_for_threads_and_processes_do_nothing(client):
    x = da.arange(10, chunks=5).sum()
    assert x.compute(num_workers=3, pool=None, cache=None, flush=True, chunksize=7) == 45
    assert dask.compute(x, rerun_exceptions_locally=False, optimize_graph=False) == (45,)


def test_the_clients_own_methods_name_what_they_do_not_have(client):
    with pytest.raises(NotImplementedError, match="no_such_option"):
        client.compute(da.arange(10, chunks=5), no_such_option=1)
    with pytest.raises(NotImplementedError, match="no_such_option"):
        client.persist(da.arange(10, chunks=5), no_such_option=1)
