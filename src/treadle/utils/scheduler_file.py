"""The scheduler file: how workers and clients find a scheduler, and its secret, through a shared file system."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from treadle.utils.private import create_private


@dataclass(frozen=True)
class SchedulerFile:
    """The content of the file: the scheduler's address, and the cluster's secret if it is included."""

    address: str
    id: str = ""
    secret: str | None = field(default=None, repr=False)


def write_scheduler_file(path: str | os.PathLike[str], content: SchedulerFile) -> None:
    """Write the file, readable by its owner only, so that nobody ever sees a part of it. Raises OSError."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    record = {"type": "Scheduler", "id": content.id, "address": content.address, "secret": content.secret}
    partial.unlink(missing_ok=True)
    with open(create_private(partial), "w") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def remove_scheduler_file(path: str | os.PathLike[str], id: str) -> None:
    """Remove the file if it still belongs to the scheduler with that id. Never raises."""
    try:
        if read_scheduler_file(path).id == id:
            os.unlink(path)
    except (OSError, ValueError):
        pass


def read_scheduler_file(path: str | os.PathLike[str]) -> SchedulerFile:
    """Read the file. Raises OSError when that fails (FileNotFoundError while it does not exist), ValueError for another kind of file."""
    try:
        record = json.loads(Path(path).read_text())
        address, secret = record["address"], record.get("secret")
        if not isinstance(address, str) or not (secret is None or isinstance(secret, str)):
            raise TypeError("address and secret are not text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)} is not a scheduler file: {error!r}") from error
    return SchedulerFile(address=address, id=str(record.get("id", "")), secret=secret)


async def wait_for_scheduler_file(path: str | os.PathLike[str], timeout_s: float) -> SchedulerFile:
    """Wait until the file exists, then read it. Raises TimeoutError that names it, else as ``read_scheduler_file``."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return read_scheduler_file(path)
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no scheduler file {os.fspath(path)} after {timeout_s:g} s; is the scheduler running?") from None
        await asyncio.sleep(0.1)
