"""What the chaos runs share: they say what they do, end at their time limit, and leave no process behind."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Exit codes: a wrong result, and a run that did not finish in time.
WRONG = 1
TIME_LIMIT = 2


class Run:
    """Prints lines with the seconds since its beginning. ``wrong`` collects the checks that failed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.wrong: list[str] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"{self.seconds:7.1f} s  {text}", flush=True)

    def check(self, holds: bool, text: str) -> None:
        """``text`` says what is wrong if ``holds`` is False."""
        if not holds:
            self.wrong.append(text)
            self.say(f"WRONG: {text}")

    @contextlib.contextmanager
    def limit(self, seconds: float, explain: Callable[[], str], end: Callable[[], None]) -> Iterator[None]:
        """After that many seconds, print ``explain()``, call ``end``, which kills what was started, and end this process with TIME_LIMIT.

        A thread does this, so that nothing that hangs can prevent it.
        """

        def give_up() -> None:
            try:
                self.say(f"TIME LIMIT of {seconds:g} s")
                # ``explain`` may hang as well.
                told = threading.Thread(target=lambda: self.say(explain()), daemon=True)
                told.start()
                told.join(20)
                faulthandler.dump_traceback(2)
                end()
            finally:
                os._exit(TIME_LIMIT)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def finish(self) -> int:
        """The exit code."""
        if self.wrong:
            self.say(f"failed: {'; '.join(self.wrong)}")
            return WRONG
        self.say("passed")
        return 0


def kill_processes(nannies: Iterable[Any]) -> None:
    """End the worker processes of nannies at once. May be called from any thread of a process that is about to end itself."""
    for nanny in list(nannies):
        pid = nanny.pid
        if pid is not None and nanny.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
