"""Find out whether the kernel has killed a worker process for want of memory. No clock: ``now`` is an argument, in seconds."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

#: A kill explains the end of a process for this many seconds, because a killed process may need a while to give its memory back.
RECENT_S = 5.0
_WORD = "oom_kill"


class OomKills:
    """Watches the kernel's count of processes that it has killed for want of memory. To be used by one thread at a time.

    A process that has a control group (version 1 or 2) is watched by that group's count. Whichever limit was reached, that of the
    group, of a group around it or of the machine, the kernel increases the count of the victim's group before it sends the
    signal. Without a group (no control groups, or the root group of version 2), the machine's count is watched. Without either,
    no kill is ever found.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """``root``: the directory under which the kernel's files (``proc``, ``sys``) are."""
        self._root = root
        self._membership: str | None = None
        self._counter: Path | None = None
        self._count = 0
        self._risen_at: float | None = None

    def look(self, pid: int | str, now: float) -> None:
        """Note the kills since the last look, then the group that the process ``pid`` (or ``"self"``) is in now."""
        membership = _read(self._root / "proc" / str(pid) / "cgroup")
        # Counts once more in the group where the process was: with version 1 an exiting process is shown in the root group.
        self._note(now)
        if self._counter is None or (membership is not None and membership != self._membership):
            self._membership = membership
            self._counter = self._find(membership or "")
            self._count = _count(self._counter) or 0

    def lately(self, now: float) -> bool:
        """Whether there was a kill since the last look, or one was seen at most ``RECENT_S`` seconds ago."""
        self._note(now)
        return self._risen_at is not None and now - self._risen_at <= RECENT_S

    def _note(self, now: float) -> None:
        count = _count(self._counter) if self._counter is not None else None
        if count is not None:
            if count > self._count:
                self._risen_at = now
            self._count = count

    def _find(self, membership: str) -> Path:
        """The file with the count for a process; ``membership`` is the content of its ``/proc/PID/cgroup``."""
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
                # Memory may be accounted for in an outer group. Files without "local" (old kernels) count whole subtrees.
                names = ("memory.events.local", "memory.events")
                files = [directory / group / name for group in _inside(path_2, top) for name in names]
            for file in files:
                if _count(file) is not None:
                    return file
        return self._root / "proc/vmstat"


def _inside(path: str, top: str) -> list[PurePosixPath]:
    """Relative paths, under a mount of the group ``top``, of the group ``path`` and the groups around it; empty if not in the mount.

    Both paths are seen from this process's namespace, so either may begin with ``/..``.
    """
    group = PurePosixPath(path)
    if not group.is_relative_to(top):
        return []
    relative = group.relative_to(top)
    return [] if ".." in relative.parts else [relative, *relative.parents]


def _unescape(place: str) -> str:
    """The path of a mount, whose list writes ``\\040`` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)


def _count(file: Path) -> int | None:
    """The number of kills in the file; None when it cannot be read or does not say."""
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
