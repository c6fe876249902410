"""What dask's configuration says while clients, or workers whose tasks may compute, are open in this process.

Each of them acquires it, and releases it in the end. With the last one dask computes as it was configured to before.
"""

from __future__ import annotations

import threading
from typing import Any

import dask.config

#: Without these dask picks a shuffle through the disk, or one that needs a scheduler extension, as soon as a client exists.
_METHODS = {"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}

_lock = threading.Lock()
_users = 0
#: What dask was configured to before, for the keys that were changed.
_saved: dict[str, Any] = {}


def acquire(scheduler: object, *, newest: bool = False) -> None:
    """Have dask compute with ``scheduler``, which is the same for all that call this.

    What the user has configured since the first one was opened stays, unless this is the ``newest`` default client.
    """
    global _users
    with _lock:
        _users += 1
        configured = dask.config.get("scheduler", None)
        if _users == 1:
            _saved["scheduler"] = None if configured is scheduler else configured
            for key, method in _METHODS.items():
                if dask.config.get(key, None) is None:
                    _saved[key] = None
                    dask.config.set({key: method})
        if configured is not scheduler and (_users == 1 or newest):
            dask.config.set({"scheduler": scheduler})


def release(scheduler: object) -> None:
    """Once for each ``acquire``. What the user has configured meanwhile stays."""
    global _users
    with _lock:
        _users -= 1
        if _users:
            return
        if dask.config.get("scheduler", None) is scheduler:
            dask.config.set({"scheduler": _saved.get("scheduler")})
        for key, method in _METHODS.items():
            if key in _saved and dask.config.get(key, None) == method:
                dask.config.set({key: _saved[key]})
        _saved.clear()


def scheduler_before() -> Any:
    """What dask would compute with if no client and no worker were open; None: each collection has a default."""
    return _saved.get("scheduler")


def forget_after_fork() -> None:
    """In the child of a fork nobody is open. The scheduler stays configured and means nobody: other threads may have held dask's lock."""
    global _lock, _users
    _lock = threading.Lock()
    _users = 0
