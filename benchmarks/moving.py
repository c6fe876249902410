"""One large array: from worker to worker, to the client, from the client; beside a bare socket between two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import functions
from on_client import Run
from processes import forget_peak, memory_bytes

#: Of each kind; the first one also pays for connections and first pages.
REPEATS = 12


def transfer(run: Run) -> None:
    """``run.size`` is the array's bytes."""
    size = run.size
    seconds: dict[str, list[float]] = {"raw": [], "raw_reused": [], "worker": [], "gather": [], "scatter": []}
    peaks = {"sender": 0.0, "receiver": 0.0, "gather_worker": 0.0, "gather_client": 0.0, "scatter_worker": 0.0, "scatter_client": 0.0}
    import numpy

    pids = {"client": os.getpid(), **run.cluster.pids}
    for number in range(REPEATS):
        for kind, took in raw_socket(size).items():
            seconds[kind].append(took)
        futures = run.client.submit(functions.make_array, size, number, workers=["w0"], pure=False)
        run.module.wait(futures)
        before = _begin(pids)
        began = time.perf_counter()
        value = run.client.submit(functions.first, futures, workers=["w1"], pure=False).result()
        seconds["worker"].append(time.perf_counter() - began)
        run.check(value, float(number))
        # The sender holds the array already; what comes on top of that counts, and the array itself.
        peaks["sender"] = max(peaks["sender"], (_peak(pids["worker 0"]) - before["worker 0"]) / size + 1)
        peaks["receiver"] = max(peaks["receiver"], (_peak(pids["worker 1"]) - before["worker 1"]) / size)
        _let_go(run, futures)

        futures = run.client.submit(functions.make_array, size, number, workers=["w0"], pure=False)
        run.module.wait(futures)
        before = _begin(pids)
        began = time.perf_counter()
        gathered = run.client.gather(futures)
        seconds["gather"].append(time.perf_counter() - began)
        run.check(float(gathered[-1]), float(number))
        peaks["gather_worker"] = max(peaks["gather_worker"], (_peak(pids["worker 0"]) - before["worker 0"]) / size + 1)
        peaks["gather_client"] = max(peaks["gather_client"], (_peak(pids["client"]) - before["client"]) / size)
        del gathered
        _let_go(run, futures)

        array = numpy.full(size // 8, float(number))
        before = _begin(pids)
        began = time.perf_counter()
        futures = run.client.scatter(array, workers=["w0"], hash=False)
        run.module.wait(futures)
        seconds["scatter"].append(time.perf_counter() - began)
        peaks["scatter_worker"] = max(peaks["scatter_worker"], (_peak(pids["worker 0"]) - before["worker 0"]) / size)
        peaks["scatter_client"] = max(peaks["scatter_client"], (_peak(pids["client"]) - before["client"]) / size + 1)
        del array
        _let_go(run, futures)
    for kind, values in seconds.items():
        steady = sorted(values[1:])
        run.figures[f"{kind}_s"] = steady[len(steady) // 2]
    for kind in ("worker", "gather", "scatter"):
        # Side by side with the bare socket that ran just before.
        shares = sorted(raw / own for raw, own in zip(seconds["raw"][1:], seconds[kind][1:], strict=True))
        run.figures[f"{kind}_of_raw"] = shares[len(shares) // 2]
    run.figures["peaks"] = peaks
    run.figures["peak_of_array"] = max(peaks.values())


def _begin(pids: dict[str, int]) -> dict[str, int]:
    sizes = {}
    for name, pid in pids.items():
        forget_peak(pid)
        sizes[name] = memory_bytes(pid)[0]
    return sizes


def _peak(pid: int) -> int:
    return memory_bytes(pid)[1]


def _let_go(run: Run, future: Any) -> None:
    """Release, and wait until the scheduler has forgotten it and the workers have had the time of a round trip to drop it."""
    future.release()
    before = run.client.run_on_scheduler(functions.count_tasks)
    for _ in range(100):
        before = run.client.run_on_scheduler(functions.count_tasks)
        if not before:
            break
        time.sleep(0.02)
    run.client.run(functions.inc, 0)


# ------------------------------------------------------------------------------------------------ the bare socket


def raw_socket(size: int) -> dict[str, float]:
    """Seconds from the request for ``size`` bytes until all of them are there.

    ``raw``: in a new array, as whoever keeps what he receives needs one each time; ``raw_reused``: in memory that was in use before.
    """
    import numpy

    sender = subprocess.Popen([sys.executable, __file__, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    port = json.loads(sender.stdout.readline())
    used = memoryview(bytearray(size))
    times: dict[str, float] = {}
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The first time warms up; what it took is written over.
        for kind in ("raw_reused", "raw_reused", "raw"):
            began = time.perf_counter()
            sock.sendall(b"x")
            view = used if kind == "raw_reused" else memoryview(numpy.empty(size, dtype=numpy.uint8))
            got = 0
            while got < size:
                got += sock.recv_into(view[got:])
            times[kind] = time.perf_counter() - began
    sender.communicate()
    return times


def _serve(size: int) -> None:
    data = bytearray(size)
    data[::4096] = b"x" * len(data[::4096])
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(json.dumps(server.getsockname()[1]), flush=True)
        sock, _ = server.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while sock.recv(1):
                sock.sendall(data)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
