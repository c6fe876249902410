"""One loop thread for the process, shared, and a bridge that blocks."""

import asyncio
import contextvars
import os
import threading

import pytest

from treadle.utils.loop import LoopRunner


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


def test_sync_returns_and_raises():
    runner = LoopRunner()
    runner.start()
    try:
        assert runner.sync(double, 4) == 8

        async def fail():
            raise KeyError("no")

        with pytest.raises(KeyError, match="no"):
            runner.sync(fail)
    finally:
        runner.stop()
    with pytest.raises(RuntimeError, match="start"):
        runner.sync(double, 1)


def test_the_thread_is_shared_and_ends_with_the_last_user():
    first, second = LoopRunner(), LoopRunner()
    first.start()
    first.start()
    second.start()
    assert first.loop is second.loop
    loop = first.loop
    first.stop()
    first.stop()
    assert second.sync(double, 1) == 2
    second.stop()
    assert loop.is_closed()


def test_what_still_runs_at_the_end_is_cancelled():
    runner = LoopRunner()
    runner.start()
    started = threading.Event()
    seen = []

    async def forever():
        started.set()
        await asyncio.Event().wait()

    def wait():
        try:
            runner.sync(forever)
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(30)
    runner.stop()
    thread.join(30)
    assert len(seen) == 1


def test_timeout_cancels_the_coroutine():
    runner = LoopRunner()
    runner.start()
    cancelled = threading.Event()

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    try:
        with pytest.raises(TimeoutError):
            runner.sync(forever, callback_timeout=0.01)
        assert cancelled.wait(30)
    finally:
        runner.stop()


def test_blocking_on_the_own_loop_is_refused():
    runner = LoopRunner()
    runner.start()

    async def block():
        runner.sync(double, 1)

    try:
        with pytest.raises(RuntimeError, match="asynchronous=True"):
            runner.sync(block)
    finally:
        runner.stop()


def test_context_variables_travel():
    variable = contextvars.ContextVar("variable", default=0)
    runner = LoopRunner()
    runner.start()

    async def read():
        return variable.get()

    try:
        variable.set(5)
        assert runner.sync(read) == 5
    finally:
        runner.stop()


def test_asynchronous_uses_the_running_loop():
    async def main():
        runner = LoopRunner(asynchronous=True)
        runner.start()
        assert runner.loop is asyncio.get_running_loop()
        assert runner.in_loop_thread
        runner.stop()
        assert not runner.loop.is_closed()

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_gets_a_loop_of_its_own():
    runner = LoopRunner()
    runner.start()
    try:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                assert not runner.started
                runner.start()
                code = 0 if runner.sync(double, 3) == 6 else 2
                runner.stop()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert runner.sync(double, 2) == 4
    finally:
        runner.stop()
