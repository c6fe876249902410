"""How long it takes to begin: the import, a local cluster of two up to its first result, sixteen workers more."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import functions

IMPORT = "import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"


def import_seconds(module: str) -> float:
    """In a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", IMPORT.format(module=module)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def start(system: str, more: int) -> dict[str, Any]:
    name = "treadle" if system == "treadle" else "distributed"
    imports = sorted(import_seconds(name) for _ in range(3))
    module = __import__(name)
    began = time.perf_counter()
    with module.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, module.Client(cluster) as client:
        client.submit(functions.inc, 1).result()
        first_s = time.perf_counter() - began
        client.wait_for_workers(2, timeout=120)
        began = time.perf_counter()
        cluster.scale(2 + more)
        client.wait_for_workers(2 + more, timeout=300)
        more_s = time.perf_counter() - began
    return {"import_s": imports[1], "first_result_s": first_s, "more_workers_s": more_s}
