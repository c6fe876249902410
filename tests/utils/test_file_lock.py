"""A lock on a file's name excludes threads and processes, and leaves nothing behind."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import treadle
from treadle.utils.file_lock import FileLock, lock_of_file

ROOT = str(Path(treadle.__file__).parents[1])

#: Adds to a number in a file, which two at the same time would get wrong.
ADD = """
import sys
from treadle.utils.file_lock import FileLock

path = sys.argv[1]
for _ in range(200):
    with FileLock(path):
        with open(path) as file:
            number = int(file.read())
        with open(path, "w") as file:
            file.write(str(number + 1))
"""


def test_processes_exclude_each_other(tmp_path):
    path = tmp_path / "number"
    path.write_text("0")
    environment = {**os.environ, "PYTHONPATH": ROOT}
    processes = [subprocess.Popen([sys.executable, "-c", ADD, str(path)], env=environment) for _ in range(3)]
    assert [process.wait(100) for process in processes] == [0, 0, 0]
    assert path.read_text() == "600"
    assert os.listdir(tmp_path) == ["number"]


def test_threads_exclude_each_other_with_one_lock_and_with_several(tmp_path):
    for locks in ([FileLock(str(tmp_path / "a"))] * 2, [FileLock(str(tmp_path / "a")) for _ in range(2)]):
        numbers = [0]

        def add(lock, numbers=numbers):
            for _ in range(200):
                with lock:
                    number = numbers[0]
                    os.stat(tmp_path)
                    numbers[0] = number + 1

        threads = [threading.Thread(target=add, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert numbers == [400]


def test_waiting_ends(tmp_path):
    one, other = (FileLock(str(tmp_path / "a")) for _ in range(2))
    assert one.acquire()
    assert not other.acquire(blocking=False) and not one.acquire(blocking=False)
    assert not other.acquire(timeout=0.05) and not one.acquire(timeout=0.05)
    assert one.locked() and not other.locked()
    one.release()
    assert other.acquire(blocking=False)
    other.release()
    with pytest.raises(RuntimeError):
        other.release()


def test_where_there_is_no_directory_nothing_is_held(tmp_path):
    lock = FileLock(str(tmp_path / "missing" / "a"))
    with pytest.raises(FileNotFoundError):
        lock.acquire()
    assert not lock.locked()


def test_a_process_has_one_for_each_name(tmp_path):
    lock = lock_of_file(str(tmp_path / "a"))
    assert pickle.loads(pickle.dumps(lock)) is lock
    assert lock_of_file(str(tmp_path / "b")) is not lock
