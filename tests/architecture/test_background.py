"""What runs beside is started by ``treadle.utils.background``, which tells of its failure, or is awaited by who has started it."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "treadle"
#: Everything that these start, they or their callers await.
AWAITED = {
    "cli/process.py",
    "client/client.py",
    "client/session/peers.py",
    "comm/tcp_connect.py",
    "deploy/cluster.py",
    "deploy/spec.py",
    "nanny/child.py",
    "nanny/process.py",
    "nanny/server.py",
}


def test_nothing_else_starts_tasks_or_threads() -> None:
    found = set()
    for path in SOURCES.rglob("*.py"):
        name = path.relative_to(SOURCES).as_posix()
        if not name.startswith("testing/") and re.search(r"\b(create_task|ensure_future|Thread)\(", path.read_text()):
            found.add(name)
    assert found - {"utils/background.py"} == AWAITED
