"""Files and directories for their owner alone: whatever holds what users compute, or a secret, is made here.

On Windows a new file has the permissions of its directory, and nothing is checked.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: Without O_BINARY, Windows would change line ends.
_ALWAYS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_OTHERS: Final = 0o077
_HAS_OWNERS: Final = hasattr(os, "geteuid")


def create_private(path: str | os.PathLike[str], flags: int = os.O_WRONLY | os.O_EXCL) -> int:
    """The descriptor of a new file that only its owner can open. Raises OSError; FileExistsError, unless ``flags`` has no O_EXCL."""
    return os.open(path, flags | os.O_CREAT | _ALWAYS, 0o600)


def make_private_directory(path: Path) -> None:
    """As ``mkdir -p``, for the owner only. A directory of ours that is open to others is closed to them, and the log says so.

    Raises PermissionError for a directory that belongs to somebody else, who could open it again; OSError.
    """
    make_directories(path)
    if not _HAS_OWNERS:
        return
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to {owner_name(found.st_uid)}, and what is kept there is for {owner_name(os.geteuid())} alone; "
            "name another directory, for instance a new one inside it"
        )
    if found.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
        if path.stat().st_mode & _OTHERS:
            raise PermissionError(f"{path} cannot be closed to others: its file system has no permissions; name another directory")
        logger.warning("%s could be entered by others (mode %04o); now only its owner can", path, stat.S_IMODE(found.st_mode))


def make_directories(path: Path) -> None:
    """As ``mkdir -p`` with mode 0700 for each one that is made. What is there stays as it is. Raises OSError."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        # A file of that name is an error, and so is a parent that may not be looked into.
        path.mkdir(mode=0o700, exist_ok=True)


def make_private(path: Path) -> None:
    """Take from others what they may do with a file of ours. Raises PermissionError when it is somebody else's, OSError."""
    if not _HAS_OWNERS:
        return
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to {owner_name(found.st_uid)}, not to {owner_name(os.geteuid())}: it is not used")
    if found.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def make_scratch_directory(base: str | os.PathLike[str] | None) -> Path:
    """A new directory of our own in ``base``, which is made if it is not there, or where temporary files go (None)."""
    if base is not None:
        os.makedirs(base, exist_ok=True)
    # mkdtemp makes it for its owner only.
    return Path(tempfile.mkdtemp(prefix="treadle-worker-", dir=base))


def owner_name(number: int) -> str:
    """A user's name for people to read."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"user {number}"
