"""Files that xarray writes: how the parts that tasks hold of them travel.

``to_netcdf`` knows of schedulers with several processes only where dask.distributed is the one. With any other it leaves the file open
in the client, and guards it with a ``threading.Lock``, which no pickle can take along. Here the client's file is closed when the first
task leaves, and each task opens it, writes and closes it while it holds a lock that all processes respect.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from treadle.utils.file_lock import lock_of_file

_LOCKS: Final = "xarray.backends.locks"
_STORES: Final = frozenset([("xarray.backends.netCDF4_", "NetCDF4DataStore"), ("xarray.backends.h5netcdf_", "H5NetCDFStore")])


def reduce_lock(lock: Any) -> Any:
    """What stands for a ``threading.Lock`` in a pickle: None if it is not xarray's lock of a file."""
    for name, known in list(getattr(sys.modules.get(_LOCKS), "_FILE_LOCKS", {}).items()):
        if known is lock and isinstance(name, str):
            return lock_of_file, (name,)
    return None


def reduce_store(store: Any) -> Any:
    """What stands for an open file in a pickle: None if it is none of xarray's that is being written."""
    kind = type(store)
    if (kind.__module__, kind.__name__) not in _STORES or getattr(store, "_mode", "r") == "r" or getattr(store, "autoclose", True):
        return None
    make, arguments, (_, slots) = store.__reduce_ex__(4)[:3]
    store.close()
    return make, arguments, (None, {**slots, "autoclose": True})
