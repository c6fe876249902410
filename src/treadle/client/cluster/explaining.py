"""``Client.why``: what keeps a task from being finished, as the scheduler and the worker see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from treadle.client.base import ClientBase
from treadle.messages.client_scheduler import Query
from treadle.utils.keys import Key, key_from_wire


@dataclass(frozen=True)
class Explanation:
    """Why a task is where it is. ``print`` it.

    ``waiting_for``: (key, state) of what it depends on and is not there yet. ``causes``: (key, state, reasons) of what all that waits
    for in the end. ``worker``: the address of the worker that it was given to, and ``at_worker`` what that one says. ``since_s``:
    seconds in this state, if known. ``deaths``: workers that died while they executed it.
    """

    key: Key
    state: str
    reasons: list[str]
    since_s: float | None = None
    worker: str | None = None
    at_worker: list[str] = field(default_factory=list)
    executing_s: float | None = None
    waiting_for: list[tuple[Key, str]] = field(default_factory=list)
    causes: list[tuple[Key, str, list[str]]] = field(default_factory=list)
    deaths: int = 0

    def __str__(self) -> str:
        since = "" if self.since_s is None else f" for {self.since_s:.3g} s"
        lines = [f"{self.key!r} is {self.state}{since}"]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  - the worker says: {reason}" for reason in self.at_worker]
        for key, state, reasons in self.causes:
            lines.append(f"  behind it is {key!r}, which is {state}")
            lines += [f"    - {reason}" for reason in reasons]
        return "\n".join(lines)

    __repr__ = __str__


class ExplainingMethods(ClientBase):
    """The part of ``Client`` that says why."""

    def why(self, future: Any) -> Any:
        """Why a future (or key) is not finished: an ``Explanation``, which says what it waits for, where, and for how long."""
        return self.sync(self._why, getattr(future, "key", future))

    async def _why(self, key: Key) -> Explanation:
        answer = await self.session.request(lambda number: Query(number, "why", {"key": key}))
        return Explanation(
            key,
            answer["state"],
            answer["reasons"],
            answer["since_s"],
            answer["worker"],
            answer["at_worker"],
            answer["executing_s"],
            [(key_from_wire(need), state) for need, state in answer["waiting_for"]],
            [(key_from_wire(cause), state, reasons) for cause, state, reasons in answer["causes"]],
            answer["suspicious"],
        )
