"""Subprocesses on any loop, under any policy."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from treadle.utils.child_process import ChildProcess

LIMIT_S = 60


def run(main):
    asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def child(code, **options):
    return ChildProcess([sys.executable, "-c", code], **options)


@pytest.fixture(params=["descriptor", "thread"])
def way(request, monkeypatch):
    """How its end is noticed."""
    if request.param == "thread":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd here")


def test_what_it_writes_and_how_it_ends(way):
    async def main():
        code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
        process = child(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert await process.stdout.read() == b"out\n"
        assert await process.stderr.read() == b"err\n"
        assert await process.wait() == 3 == process.returncode
        assert await process.wait() == 3
        process.close()

    run(main)


def test_a_signal_ends_it_and_later_ones_do_nothing(way):
    async def main():
        process = child("import time; time.sleep(600)")
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        process.kill()
        assert await process.stdout.read() == b""
        process.close()

    run(main)


def test_a_pipe_that_somebody_else_holds_is_given_back():
    async def main():
        code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdin=3).pid)"
        kept, given = os.pipe()
        os.set_inheritable(kept, True)
        process = child(code.replace("stdin=3", f"stdin={kept}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[kept])
        line = await process.stdout.readline()
        assert await process.wait() == 0 and int(line)
        process.close()
        os.close(given)  # the grandchild ends
        os.close(kept)
        assert await process.stderr.read() == b""

    run(main)


class Policy(asyncio.DefaultEventLoopPolicy if sys.version_info < (3, 14) else object):
    """As that of another loop: nobody waits for the children of asyncio's loops."""

    def get_child_watcher(self):
        raise NotImplementedError


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the policy is not asked any more")
def test_the_policy_is_not_asked(way):
    async def main():
        assert await child("pass").wait() == 0

    asyncio.set_event_loop_policy(Policy())
    try:
        run(main)
    finally:
        asyncio.set_event_loop_policy(None)
