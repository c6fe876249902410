"""The same events give the same messages, whatever the hash seed of the process."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
from treadle.messages.base import TaskOptions
from treadle.testing.scheduler_scene import SchedulerScene

scene = SchedulerScene()
for number in range(5):
    scene.worker(f"w{number}", nthreads=2, host=f"host-{number % 2}", resources={"gpu": 1, "tpu": 2})
scene.client("c")
scene.client("d")
names = ["c", "d", *[f"w{number}" for number in range(5)]]
lines = []

def look():
    for name in names:
        lines.append((name, scene.sent(name, everything=True)))

layers = [" ".join([f"l{layer}-{number}" for number in range(8)]) for layer in range(4)]
scene.submit(" -> ".join(layers), client="c", function="f")
look()
scene.submit(" -> ".join(layers[:2]), client="d", options=TaskOptions(workers=["host-1", "w0"], allow_other_workers=True))
scene.submit("x y z", client="d", options=TaskOptions(resources={"gpu": 1, "tpu": 1}))
look()
for round in range(6):
    for name in names[2:]:
        state = scene.core.state.by_name.get(name)
        for task in list(state.processing)[:2] if state is not None else []:
            scene.finish(task.key, on=name, duration=0.01)
        look()
    if round == 2:
        scene.lose("w3")
        look()
    if round == 4:
        scene.cancel("l1-3", client="c", force=True)
        look()
scene.leave("d")
look()
scene.forget()
look()
print("\\n".join(map(repr, lines)))
"""


def test_same_messages_under_every_hash_seed() -> None:
    outputs = []
    for hash_seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0].count("compute") > 20
    assert len(set(outputs)) == 1
