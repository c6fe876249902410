"""What a program with workers writes: its own lines and what it has asked for, nothing else, also with closed standard streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import treadle

ROOT = str(Path(treadle.__file__).parents[1])

PROGRAM = """
import logging, sys, time
import dask
from treadle import Client

def say(text):
    print(text, file=sys.stderr)
    print(text)
    return text

def log(level):
    logging.getLogger("mylib").log(level, "from a task")
    logging.getLogger("other").log(level, "from a task")

def wait(path, *_):
    open(path + "/begun", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    {body}
"""


@pytest.fixture
def run(tmp_path):
    def run_program(body, redirect=""):
        script = tmp_path / "program.py"
        script.write_text(PROGRAM.format(body=body.strip().replace("\n", "\n    ")))
        command = ["sh", "-c", f'exec "$0" "$@" {redirect}', sys.executable, str(script), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, "PYTHONPATH": ROOT}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run_program


SAY = """
with Client(n_workers=2, threads_per_worker=1) as client:
    open("result", "w").write(client.submit(say, "hello").result())
"""


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [("", ("hello\n", "hello\n")), (">&-", ("", "hello\n")), ("2>&-", ("hello\n", "")), ("<&- >&- 2>&-", ("", ""))],
)
def test_standard_streams_may_be_closed(run, tmp_path, redirect, expected):
    assert run(SAY, redirect) == expected
    assert (tmp_path / "result").read_text() == "hello"


@pytest.mark.parametrize("end", ["client.close()", "client.shutdown()", "pass"])
def test_closing_with_work_left_is_quiet(run, end):
    out, err = run(f"""
client = Client(n_workers=1, threads_per_worker=1)
first = client.submit(wait, sys.argv[1])
others = client.map(pow, [first] * 10, range(10))
import os
while not os.path.exists("begun"):
    time.sleep(0.01)
{end}
""")
    assert (out, err) == ("", "")


def test_logging_in_the_configuration_reaches_workers(run):
    _, err = run("""
dask.config.set({"logging": {"mylib": "info"}, "distributed.admin.log-format": "HERE %(levelname)s %(name)s %(message)s"})
with Client(n_workers=1, threads_per_worker=1) as client:
    client.submit(log, logging.INFO).result()
""")
    assert err == "HERE INFO mylib from a task\n"


def test_workers_log_what_the_program_logs(run):
    _, err = run("""
logging.basicConfig(level=logging.WARNING, format="HERE %(levelname)s %(name)s %(message)s")
logging.getLogger("mylib").setLevel(logging.DEBUG)
with Client(n_workers=1, threads_per_worker=1) as client:
    client.gather([client.submit(log, level) for level in (logging.DEBUG, logging.WARNING)])
""")
    lines = sorted(err.splitlines())
    assert lines == ["HERE DEBUG mylib from a task", "HERE WARNING mylib from a task", "HERE WARNING other from a task"]
