"""A program may end with its client open: it does so quietly, and leaves no process behind."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
from treadle import Client

def inc(x):
    return x + 1

if __name__ == "__main__":
    client = Client(n_workers=2, threads_per_worker=1)
    print(client.submit(inc, 1).result(), *client.run(os.getpid).values(), flush=True)
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("raise SystemExit(3)", 3), ("1 / 0", 1)])
def test_program_ends_with_its_client_open(tmp_path, end, code):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(end=end))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr
    result, *pids = done.stdout.split()
    assert result == "2"
    assert len(pids) == 2
    for pid in pids:
        assert not os.path.exists(f"/proc/{pid}")
    noise = done.stderr if code != 1 else done.stderr.partition("ZeroDivisionError: division by zero\n")[2]
    assert noise == ""
