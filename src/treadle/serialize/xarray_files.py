"""Files that xarray writes: how tasks that write to them travel.

xarray's ``to_netcdf`` prepares a file for several processes only if the scheduler is dask.distributed. For any other it leaves the file
open in the client and guards it with a ``threading.Lock``, which cannot be pickled. Here the client's file is closed when the first
task is sent, and each task opens the file, writes and closes it while it holds a lock that all processes respect.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from treadle.utils.file_lock import lock_of_file

_LOCKS: Final = "xarray.backends.locks"
_STORES: Final = frozenset([("xarray.backends.netCDF4_", "NetCDF4DataStore"), ("xarray.backends.h5netcdf_", "H5NetCDFStore")])


def reduce_lock(lock: Any) -> Any:
    """How to pickle a ``threading.Lock`` that is xarray's lock of a file; None for any other lock."""
    for name, known in list(getattr(sys.modules.get(_LOCKS), "_FILE_LOCKS", {}).items()):
        if known is lock and isinstance(name, str):
            return lock_of_file, (name,)
    return None


def reduce_store(store: Any) -> Any:
    """How to pickle an open file that xarray is writing; None for any other object."""
    kind = type(store)
    if (kind.__module__, kind.__name__) not in _STORES or getattr(store, "_mode", "r") == "r" or getattr(store, "autoclose", True):
        return None
    make, arguments, (_, slots) = store.__reduce_ex__(4)[:3]
    store.close()
    return make, arguments, (None, {**slots, "autoclose": True})
