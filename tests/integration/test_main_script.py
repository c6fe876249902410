"""What the main script is in its worker processes, and functions of it that are pickled in their own way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import treadle

ROOT = str(Path(treadle.__file__).parents[1])

TOP = """
import functools, os, sys
from treadle import Client, LocalCluster

SEEN = []
SEEN.append(__name__)

@functools.cache
def square(x):
    return x * x

@functools.lru_cache(maxsize=10, typed=True)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

@functools.cache
def noted(x):
    with open("calls", "a") as file:
        file.write(str(x))
    return x

class Marker:
    def __reduce__(self):
        return "MARKER"

MARKER = Marker()

def of_main(name):
    return getattr(sys.modules["__main__"], name)

def same(marker):
    return marker is sys.modules["__main__"].MARKER
"""
WORK = """
    with Client(n_workers=2, threads_per_worker=1) as client:
        {body}
"""
GUARD = 'if __name__ == "__main__":'


@pytest.fixture
def run(tmp_path):
    def run_program(text, *arguments, way="file"):
        (tmp_path / "package").mkdir(exist_ok=True)
        (tmp_path / "package" / "__init__.py").touch()
        script = tmp_path / "package" / "program.py"
        script.write_text(text)
        command = {"file": [str(script)], "module": ["-m", "package.program"], "input": ["-"]}[way]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            input=text if way == "input" else None,
            capture_output=True,
            text=True,
            timeout=100,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1], done.stderr

    return run_program


@pytest.mark.parametrize("way", ["file", "module", "input"])
def test_cached_functions(run, way):
    body = """
        print(client.gather(client.map(square, range(4))), client.submit(fib, 80).result())
        print(client.submit(lambda: fib.cache_parameters()).result())
        square = functools.cache(lambda x: -x)
        square.__wrapped__.__qualname__ = square.__qualname__ = "square"
        print(client.submit(square, 3).result())
    """
    out, err = run(TOP + GUARD + WORK.format(body=body.strip()), way=way)
    assert out == ["[0, 1, 4, 9] 23416728348467685", "{'maxsize': 10, 'typed': True}", "-3"] and err == ""


def test_a_cache_lasts_from_call_to_call(run, tmp_path):
    body = """
        print(client.gather([client.submit(noted, 5, workers=[0], pure=False) for _ in range(3)]))
    """
    out, _ = run(TOP + GUARD + WORK.format(body=body.strip()))
    assert out == ["[5, 5, 5]"]
    assert (tmp_path / "calls").read_text() == "5"


@pytest.mark.parametrize("way", ["file", "module"])
def test_workers_import_it_with_its_arguments(run, way):
    body = """
        print(client.submit(of_main, "SEEN").result(), client.submit(same, MARKER).result())
        print(client.submit(lambda: sys.argv[1:]).result())
    """
    out, err = run(TOP + GUARD + WORK.format(body=body.strip()), "--one", way=way)
    assert out == ["['__mp_main__'] True", "['--one']"] and err == ""


def test_what_workers_made_of_it_comes_back(run):
    body = """
        marker = client.submit(of_main, "MARKER").result()
        print(marker is MARKER)
    """
    out, err = run(TOP + GUARD + WORK.format(body=body.strip()))
    assert out == ["True"] and err == ""


@pytest.mark.parametrize("start", ["Client(n_workers=2, threads_per_worker=1)", "Client(LocalCluster(n_workers=2, threads_per_worker=1))"])
def test_a_script_without_its_guard_is_imported_up_to_the_start_of_its_cluster(run, start):
    text = TOP + f"client = {start}\nprint(client.submit(same, MARKER).result())\nclient.shutdown()\n"
    out, err = run(text)
    assert out == ["True"]
    (line,) = err.splitlines()
    assert "program.py starts a c" in line and 'if __name__ == "__main__":' in line


@pytest.mark.parametrize("end", ["raise OSError('no such machine')", "sys.exit(1)"])
def test_a_script_that_cannot_be_imported_is_no_reason_to_fail(run, end):
    text = TOP + f"if __name__ != '__main__':\n    {end}\n" + GUARD + WORK.format(body="print(client.submit(same, MARKER).result())")
    out, err = run(text)
    assert out == ["True"]
    (line,) = err.splitlines()
    assert "could import only a part" in line and "program.py" in line


def test_interactive_sessions_have_nothing_to_import(run):
    out, err = run(TOP + WORK.format(body="print(client.submit(of_main, '__name__').result())").replace("\n    ", "\n"), way="input")
    assert out == ["__main__"] and err == ""
