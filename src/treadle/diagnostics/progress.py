"""A progress bar in the terminal, made from the states of futures and the scheduler's counts of tasks.

It uses the public interface of ``Client`` and ``Future`` only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TextIO

from dask.base import is_dask_collection
from dask.utils import parse_timedelta

from treadle.exceptions import CancelledError

#: Seconds between two drawings on a terminal, and between two lines in a file or pipe, unless the user says otherwise.
TERMINAL_INTERVAL_S: Final = 0.1
PLAIN_INTERVAL_S: Final = 5.0
#: No estimate is shown before this much of the work is done.
ESTIMATE_FROM: Final = 0.02
BAR_WIDTH: Final = 32
#: States of a task on the scheduler that mean it is still to be finished.
UNFINISHED_STATES: Final = ("waiting", "no-worker", "queued", "processing")


@dataclass(frozen=True)
class ProgressStatistics:
    """How far the computation is: futures finished, failed (or cancelled) and in all; steps done and in all; seconds since the start.

    Steps are what the bar counts: the futures, or all tasks of the cluster.
    """

    finished: int
    failed: int
    futures: int
    steps_done: int
    steps: int
    elapsed_s: float

    @property
    def remaining_s(self) -> float | None:
        """Seconds left at the present rate; None when it is too early to say."""
        if self.steps_done >= self.steps:
            return 0.0
        if self.steps_done < ESTIMATE_FROM * self.steps or not self.steps_done:
            return None
        return self.elapsed_s * (self.steps - self.steps_done) / self.steps_done


def progress(
    *futures: Any,
    notebook: bool | None = None,
    count: str = "futures",
    label: str = "",
    interval: float | str | None = None,
    file: TextIO | None = None,
) -> ProgressStatistics:
    """Show the progress of futures (or persisted collections, or containers of them) until all are done.

    Errors are counted and shown, never raised: ``future.result()`` and ``client.gather`` raise them.

    ``count``: ``"futures"`` counts the futures; ``"cluster"`` counts all unfinished tasks of the scheduler, including
    intermediate tasks and those of other users. ``interval``: seconds between drawings.
    ``file``: where to draw, ``sys.stderr`` by default. On a terminal one line is redrawn; elsewhere a plain line
    is written from time to time.

    Raises TypeError when the arguments contain no future, ValueError for an unknown ``count``, and
    NotImplementedError for ``notebook=True`` and for futures of an asynchronous client.
    """
    if notebook:
        raise NotImplementedError("progress draws in the terminal only; there is no notebook widget. Leave notebook out.")
    if count not in ("futures", "cluster"):
        raise ValueError(f"count must be 'futures' or 'cluster', got {count!r}")
    wanted = _futures_in(futures)
    if not wanted:
        raise TypeError(f"progress needs futures, or collections that were persisted; found none in {_type_names(futures)}")
    client = wanted[0].client
    if client.asynchronous:
        raise NotImplementedError("progress blocks, so it cannot be used with an asynchronous client; use as_completed there")
    out = sys.stderr if file is None else file
    terminal = bool(getattr(out, "isatty", lambda: False)())
    seconds = (TERMINAL_INTERVAL_S if terminal else PLAIN_INTERVAL_S) if interval is None else float(parse_timedelta(interval))
    painter = _Painter(out, terminal, label)
    watch = _Watch(wanted, client if count == "cluster" else None)
    try:
        while not watch.done:
            painter.draw(watch.look())
            watch.wait(seconds)
    except BaseException:
        painter.leave()
        raise
    statistics = watch.look()
    painter.draw(statistics, last=True)
    return statistics


class _Watch:
    """Counts what is done. Each future is checked until it is done, then never again."""

    def __init__(self, futures: Sequence[Any], client: Any) -> None:
        self._pending = list(futures)
        self._futures = len(futures)
        self._finished = 0
        self._failed = 0
        #: The client to ask for the number of unfinished tasks; None when only the futures are counted.
        self._client = client
        #: The most steps that were seen: a graph arrives at the scheduler in chunks.
        self._steps = self._futures if client is None else 0
        self._started = time.perf_counter()
        self._count_done()

    @property
    def done(self) -> bool:
        return not self._pending

    def look(self) -> ProgressStatistics:
        steps_done = self._finished + self._failed
        if self._client is not None:
            counts = self._client.scheduler_info(n_workers=0)["tasks"] if self._pending else {}
            left = max(sum(counts.get(state, 0) for state in UNFINISHED_STATES), len(self._pending))
            self._steps = max(self._steps, left, self._futures)
            steps_done = self._steps - left
        elapsed = time.perf_counter() - self._started
        return ProgressStatistics(self._finished, self._failed, self._futures, steps_done, self._steps, elapsed)

    def wait(self, seconds: float) -> None:
        """Wait for that time, or until all futures are done."""
        deadline = time.perf_counter() + seconds
        # Waits for one future at a time, so that any number of futures needs only one waiting object.
        while self._pending:
            left = deadline - time.perf_counter()
            if left <= 0:
                break
            future = self._pending[-1]
            if future.status != "pending":
                self._take(self._pending.pop())
                continue
            try:
                future.exception(timeout=left)
            except TimeoutError:
                break
            except CancelledError:
                # The failure is counted by the future's status.
                pass
        self._count_done()

    def _count_done(self) -> None:
        pending = []
        for future in self._pending:
            if future.status != "pending":
                self._take(future)
            else:
                pending.append(future)
        self._pending = pending

    def _take(self, future: Any) -> None:
        if future.status == "finished":
            self._finished += 1
        else:
            self._failed += 1


class _Painter:
    """Redraws one line on a terminal; writes a line from time to time elsewhere."""

    def __init__(self, out: TextIO, terminal: bool, label: str) -> None:
        self._out = out
        self._terminal = terminal
        self._label = f"{label}: " if label else ""
        self._width = 0
        #: The content of the last plain line, without the time, so that no line is repeated.
        self._said: tuple[int, int, int] | None = None

    def draw(self, now: ProgressStatistics, last: bool = False) -> None:
        if self._terminal:
            line = self._label + bar(now)
            padded = line.ljust(self._width)
            self._width = len(line)
            self._write("\r" + padded + ("\n" if last else ""))
            return
        said = (now.steps_done, now.steps, now.failed)
        if last or (now.steps_done and said != self._said):
            self._said = said
            self._write(self._label + text(now) + "\n")

    def leave(self) -> None:
        """End the line after an interrupt, so that the next output begins on a line of its own."""
        if self._terminal:
            self._write("\n")

    def _write(self, line: str) -> None:
        # A closed pipe must not end the computation, which is worth more than the bar.
        with suppress(OSError, ValueError):
            self._out.write(line)
            self._out.flush()


def bar(now: ProgressStatistics) -> str:
    """``[########------------------------] 25 % | 1 of 4 | 0.2 s, about 0.6 s left``"""
    fraction = now.steps_done / now.steps if now.steps else 1.0
    filled = int(BAR_WIDTH * fraction)
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] {text(now)}"


def text(now: ProgressStatistics) -> str:
    """``25 % | 1 of 4 | 0.2 s, about 0.6 s left``, with the number of failed futures when there are some."""
    fraction = now.steps_done / now.steps if now.steps else 1.0
    parts = [f"{int(100 * fraction):3d} %", f"{now.steps_done:,} of {now.steps:,}"]
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    when = seconds_text(now.elapsed_s)
    remaining = now.remaining_s
    if remaining:
        when += f", about {seconds_text(remaining)} left"
    return " | ".join([*parts, when])


def seconds_text(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``"""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _futures_in(arguments: Iterable[Any]) -> list[Any]:
    """All futures in the arguments, each once, in order; from nested containers and from the graphs of collections, too."""
    found: dict[int, Any] = {}
    queue = list(arguments)
    queue.reverse()
    while queue:
        item = queue.pop()
        if getattr(item, "__dask_future__", False):
            found.setdefault(id(item), item)
        elif is_dask_collection(item):
            queue.extend(reversed(list(dict(item.__dask_graph__()).values())))
        elif isinstance(item, dict):
            queue.extend(reversed(list(item.values())))
        elif isinstance(item, (list, tuple, set, frozenset)):
            queue.extend(reversed(list(item)))
    return list(found.values())


def _type_names(arguments: Sequence[Any]) -> str:
    return ", ".join(type(item).__name__ for item in arguments) or "no arguments"
