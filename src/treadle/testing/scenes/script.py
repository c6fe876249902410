"""The format of a scene file, and how one is played. Pure.

    A worker dies while it runs a task

    Two or three sentences: why it matters.

    under test: scheduler
    workers: w1, w2
    clients: alice

    alice -> scheduler: SubmitTasks a
        scheduler -> w1: ComputeTasks a attempt 1
    w1 dies while it executes a
        scheduler -> w2: ComputeTasks a attempt 2
        now a is processing on w2

A line at the margin is an event of the party under test: a message that it gets, or something that happens around it. A line that
begins with ``and`` belongs to the same turn as the line before. The indented lines are *everything* that the party does in response: a
superfluous line fails the scene, and so does a missing one. Indented lines that begin with ``now`` are checked against the party's state.
``#`` begins a comment. Lines to different parties may stand in any order.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final, Protocol

INDENT: Final = "    "
_FIELDS: Final = ("under test", "workers", "clients", "settings")


class SceneError(ValueError):
    """The text of a scene is invalid. The error names the line."""


class Stage(Protocol):
    """The party under test, and all parties around it."""

    def happen(self, lines: Sequence[str]) -> list[str]:
        """Let the events of these lines happen in one turn; the lines that say what the party does. Raises SceneError."""
        ...

    def claim(self, line: str) -> str:
        """The true form of a line that begins with ``now``. Raises SceneError."""
        ...


class Scene:
    """A scene as it was written. ``head``: the lines up to the last setting; ``body``: all further lines."""

    def __init__(self, title: str, why: str, settings: dict[str, str], head: list[str], body: list[str]) -> None:
        self.title = title
        self.why = why
        self.settings = settings
        self.head = head
        self.body = body


class Played:
    """A scene that was played. ``actual``: the body as it really went."""

    def __init__(self, scene: Scene, actual: list[str]) -> None:
        self.scene = scene
        self.actual = actual

    @property
    def passed(self) -> bool:
        return self.actual == self.scene.body

    @property
    def text(self) -> str:
        """The whole file, with what happened in place of what was expected."""
        return "\n".join([*self.scene.head, *self.actual]).rstrip("\n") + "\n"

    def diff(self) -> str:
        """The lines that were expected and did not happen (``-``), and those that happened unexpectedly (``+``)."""
        lines = difflib.unified_diff(self.scene.body, self.actual, "expected", "what happened", n=4, lineterm="")
        return "\n".join([f"{self.scene.title}:", *lines])


def parse(text: str) -> Scene:
    """Raises SceneError."""
    lines = [line.rstrip() for line in text.splitlines()]
    if not lines or not lines[0]:
        raise SceneError("the first line of a scene is its title")
    settings: dict[str, str] = {}
    last = 0
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if colon and name in _FIELDS:
            settings[name] = value.strip()
            last = number
        elif settings and line:
            break
    if "under test" not in settings:
        raise SceneError("a scene says who is 'under test:'")
    why = "\n".join([line for line in lines[1 : last + 1] if line.partition(":")[0] not in _FIELDS]).strip()
    if not why:
        raise SceneError("a scene says why it matters, between its title and 'under test:'")
    return Scene(lines[0], why, settings, lines[: last + 1], lines[last + 1 :])


def play(scene: Scene, stage: Stage) -> Played:
    """Play a scene. Raises SceneError for an invalid line."""
    actual: list[str] = []
    body = scene.body
    at = 0
    while at < len(body):
        line = body[at]
        if not line or line.startswith("#"):
            actual.append(line)
            at += 1
            continue
        if line.startswith(" "):
            raise SceneError(f"the response {line.strip()!r} comes before any event; a scene begins with a line at the margin")
        at = _play_turn(stage, body, at, actual)
    return Played(scene, actual)


def _play_turn(stage: Stage, body: list[str], at: int, actual: list[str]) -> int:
    """Play the turn that begins at line ``at``, and append its lines and the response to ``actual``. Returns the line of the next turn."""
    events: list[str] = []
    while at < len(body) and body[at] and not body[at].startswith((" ", "#")) and (not events or body[at].startswith("and ")):
        events.append(body[at].removeprefix("and ") if events else body[at])
        actual.append(body[at])
        at += 1
    expected: list[str] = []
    while at < len(body) and body[at].startswith(" "):
        expected.append(body[at])
        at += 1
    actual += _merged(stage, expected, stage.happen(events))
    return at


def _merged(stage: Stage, expected: list[str], done: list[str]) -> list[str]:
    """``done`` in the order of ``expected`` as far as they agree, with claims and comments where they were."""
    said = [line for line in expected if not _is_aside(line)]
    if not done and [line.strip() for line in said] == ["nothing"]:
        done = ["nothing"]
    else:
        done = _as_expected([line.strip() for line in said], done)
    merged: list[str] = []
    for line in expected:
        if not _is_aside(line):
            if done:
                merged.append(INDENT + done.pop(0))
            continue
        text = line.strip()
        if text.startswith("now "):
            # A claim stands behind all that was done.
            merged += [INDENT + rest for rest in done]
            done = []
            text = stage.claim(text)
        merged.append(INDENT + text)
    return merged + [INDENT + rest for rest in done]


def _is_aside(line: str) -> bool:
    return line.strip().startswith(("now ", "#"))


def _as_expected(expected: list[str], done: list[str]) -> list[str]:
    """``done``, with its streams in the order in which they are expected, because streams are not ordered among each other."""
    order = {party: rank for rank, party in enumerate(dict.fromkeys([_stream(line) for line in [*expected, *done]]))}
    if [_stream(line) for line in expected] != sorted([_stream(line) for line in expected], key=lambda party: order[party]):
        by_stream: dict[str, list[str]] = {}
        for line in done:
            by_stream.setdefault(_stream(line), []).append(line)
        mixed = [by_stream[_stream(line)].pop(0) for line in expected if by_stream.get(_stream(line))]
        return mixed + [line for rest in by_stream.values() for line in rest]
    return sorted(done, key=lambda line: order[_stream(line)])


def _stream(line: str) -> str:
    """``"scheduler -> w1"``, or "" for an act of a party that sends nothing."""
    found = re.match(r"(\S+ -> \S+):", line)
    return found.group(1) if found else ""


# ------------------------------------------------------------------------------------------------ words in lines


def listed(text: str) -> list[str]:
    """``"a, b(c, d)"`` as ``["a", "b(c, d)"]``: commas inside parentheses do not separate."""
    parts = [""]
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def clauses(text: str) -> tuple[str, dict[str, str]]:
    """``"a, b; wanted b; same submission"`` as ``"a, b"`` and ``{"wanted": "b", "same": "submission"}``."""
    first, *others = text.split(";")
    found: dict[str, str] = {}
    for other in others:
        name, _, value = other.strip().partition(" ")
        found[name] = value
    return first.strip(), found


def attempt_of(row: str) -> tuple[str, int]:
    """``"a attempt 2"`` as ``("a", 2)``. Raises SceneError."""
    found = re.fullmatch(r"(\S+) attempt (\d+)", row)
    if found is None:
        raise SceneError(f"an attempt is written as 'a attempt 1', not {row!r}")
    return found.group(1), int(found.group(2))


def held_at(text: str) -> tuple[str, list[str]]:
    """``"a at w1 or w2"`` as ``("a", ["w1", "w2"])``. Raises SceneError."""
    key, at, workers = text.partition(" at ")
    if not at:
        raise SceneError(f"the holders of a value are written as 'a at w1 or w2', not {text!r}")
    return key, workers.split(" or ")
