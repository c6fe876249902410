"""Whether the kernel has killed for want of memory where a worker process lives. No clock: ``now`` is an argument, in seconds."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

#: A kill explains the end of a process for so long. A process that is killed by the kernel may need a while to give its memory back.
RECENT_S = 5.0
_WORD = "oom_kill"


class OomKills:
    """Watches the kernel's count of the processes that it has killed for want of memory. Used in a thread at a time.

    The count is that of the process's own control group (version 1 or 2) where it has one: whichever limit was reached, its own,
    that of a group around it or the machine's, the kernel raises the count of the group in which it kills, before it sends the
    signal. Where there is none (no control groups, the root of version 2), it is the machine's count. Where there is neither,
    nothing is ever found.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """``root``: of the files that the kernel shows."""
        self._root = root
        self._membership: str | None = None
        self._counter: Path | None = None
        self._count = 0
        self._risen_at: float | None = None

    def look(self, pid: int | str, now: float) -> None:
        """Note what has happened since the last look, and where the process is now. ``pid``: it, or ``"self"``."""
        membership = _read(self._root / "proc" / str(pid) / "cgroup")
        # After that, and of the group where it was: with version 1 a process that exits is shown in the root group.
        self._note(now)
        if self._counter is None or (membership is not None and membership != self._membership):
            self._membership = membership
            self._counter = self._find(membership or "")
            self._count = _count(self._counter) or 0

    def lately(self, now: float) -> bool:
        """Whether there was a kill since the last look, or at most ``RECENT_S`` before one was seen."""
        self._note(now)
        return self._risen_at is not None and now - self._risen_at <= RECENT_S

    def _note(self, now: float) -> None:
        count = _count(self._counter) if self._counter is not None else None
        if count is not None:
            if count > self._count:
                self._risen_at = now
            self._count = count

    def _find(self, membership: str) -> Path:
        """The file that counts for a process with that content of its ``/proc/PID/cgroup``."""
        path_1 = path_2 = None
        for line in membership.splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if "memory" in controllers.split(","):
                path_1 = path
            elif line.startswith("0::"):
                path_2 = path
        for mount in (_read(self._root / "proc/self/mountinfo") or "").splitlines():
            before, _, after = mount.partition(" - ")
            places, kind = before.split()[3:5], after.split()
            if len(places) < 2 or len(kind) < 3:
                continue
            top, mounted_at = (_unescape(place) for place in places)
            directory = self._root / mounted_at.lstrip("/")
            files: list[Path] = []
            if kind[0] == "cgroup" and "memory" in kind[2].split(",") and path_1 is not None:
                files = [directory / group / "memory.oom_control" for group in _inside(path_1, top)[:1]]
            elif kind[0] == "cgroup2" and path_1 is None and path_2 is not None:
                # Memory may be accounted for in a group around it. Files without "local" (old kernels) count whole subtrees.
                names = ("memory.events.local", "memory.events")
                files = [directory / group / name for group in _inside(path_2, top) for name in names]
            for file in files:
                if _count(file) is not None:
                    return file
        return self._root / "proc/vmstat"


def _inside(path: str, top: str) -> list[PurePosixPath]:
    """A group and those around it as seen from a mount that shows ``top`` and below: relative paths, empty if it does not show it.

    Both are as seen from this process's namespace, so either may begin with ``/..``.
    """
    group = PurePosixPath(path)
    if not group.is_relative_to(top):
        return []
    relative = group.relative_to(top)
    return [] if ".." in relative.parts else [relative, *relative.parents]


def _unescape(place: str) -> str:
    """Mounts are listed with ``\\040`` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)


def _count(file: Path) -> int | None:
    """None when it cannot be read, or says nothing of such kills."""
    for line in (_read(file) or "").splitlines():
        word, _, value = line.partition(" ")
        if word == _WORD and value.strip().isdigit():
            return int(value)
    return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return None
