"""The cores as they are at run time: what they load, and that nothing impure is within their reach."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, sys, types
import treadle.client.session.ledger, treadle.scheduler.transitions.machine, treadle.worker.transitions.machine

cores = [name for name in sys.modules if name == "treadle.client.session.ledger" or ".transitions" in name]
reach = {
    f"{name}.{attribute}": value.__name__
    for name in cores
    for attribute, value in vars(sys.modules[name]).items()
    if isinstance(value, types.ModuleType)
}
print(json.dumps({"loaded": sorted(sys.modules), "cores": cores, "reach": reach}))
"""
#: Parts of treadle that a core may need.
ALLOWED = ("exceptions", "messages", "plugins", "utils", "version")
IMPURE = ("asyncio", "dask", "logging", "random", "socket", "threading", "time")


def look() -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_cores_load_nothing_of_the_shells() -> None:
    found = look()
    assert len(found["cores"]) > 30
    parents = {core.rsplit(".", depth)[0] for core in found["cores"] for depth in range(1, 4)}
    others = set(found["loaded"]) - set(found["cores"]) - parents
    strangers = [name for name in others if name.startswith("treadle.") and name.split(".")[1] not in ALLOWED]
    assert strangers == []
    assert not {"cloudpickle", "dask", "numpy", "pandas", "psutil"} & set(found["loaded"])


def test_no_core_can_reach_anything_impure() -> None:
    reach: dict[str, str] = look()["reach"]  # type: ignore[assignment]
    assert {where: what for where, what in reach.items() if what.split(".")[0] in IMPURE} == {}
