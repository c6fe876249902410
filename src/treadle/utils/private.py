"""Files and directories that only their owner can read: all that hold users' data or a secret are made here.

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
    """The descriptor of a new file that only its owner can open. Raises OSError; with O_EXCL in ``flags``, FileExistsError."""
    return os.open(path, flags | os.O_CREAT | _ALWAYS, 0o600)


def make_private_directory(path: Path) -> None:
    """As ``mkdir -p``, for the owner only. If others can enter an existing directory of ours, their access is removed and logged.

    Raises PermissionError for a directory that belongs to another user, who could open it again; OSError.
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
            raise PermissionError(f"{path} stays open to other users: its file system has no permissions; name another directory")
        logger.warning("%s could be entered by others (mode %04o); now only its owner can", path, stat.S_IMODE(found.st_mode))


def make_directories(path: Path) -> None:
    """As ``mkdir -p`` with mode 0700 for each directory that is created. Existing ones stay as they are. Raises OSError."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        # Fails if a file has that name, or a parent may not be entered.
        path.mkdir(mode=0o700, exist_ok=True)


def make_private(path: Path) -> None:
    """Take others' access to a file of ours away. Raises PermissionError when the file belongs to another user, OSError."""
    if not _HAS_OWNERS:
        return
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to {owner_name(found.st_uid)}, not to {owner_name(os.geteuid())}, and is not used")
    if found.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def make_scratch_directory(base: str | os.PathLike[str] | None) -> Path:
    """Create a new private directory in ``base``, which is created if missing; None: where temporary files go."""
    if base is not None:
        os.makedirs(base, exist_ok=True)
    # mkdtemp gives access to the owner only.
    return Path(tempfile.mkdtemp(prefix="treadle-worker-", dir=base))


def owner_name(number: int) -> str:
    """The name of the user with that number, for people to read."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"user {number}"
