"""Questions and orders of a client that the scheduler answers, by number. For the loop's thread."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from typing import Any

from treadle import exceptions
from treadle.exceptions import CommClosedError
from treadle.messages.base import Message
from treadle.messages.client_scheduler import PublishData, Query, UnpublishData


class Request:
    """One that is under way."""

    __slots__ = ("answer", "message", "sequence")

    def __init__(self, message: Message, answer: asyncio.Future[Any]) -> None:
        self.message = message
        self.answer = answer
        #: Number of the frame that it was sent in; 0: not sent yet.
        self.sequence = 0


class Requests:
    """All that are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_number: dict[int, Request] = {}
        self._count = 0

    async def ask(self, make: Callable[[int], Message], send: Callable[[Message], None]) -> Any:
        """Send ``make(number)`` and wait for the answer to that number. Raises what ``send`` does, what a refusal says, CommClosedError."""
        self._count += 1
        number = self._count
        message = make(number)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._by_number[number] = Request(message, future)
        try:
            send(message)
            return await future
        finally:
            self._by_number.pop(number, None)

    def sent(self, batch: list[Message], sequence: int) -> None:
        """These messages were sent in the frame of that number."""
        if self._by_number:
            for message in batch:
                request = self._by_number.get(getattr(message, "request", 0))
                if request is not None:
                    request.sequence = sequence

    def answer(self, number: int, value: Any) -> None:
        request = self._by_number.get(number)
        if request is not None and not request.answer.done():
            request.answer.set_result(value)

    def refuse(self, number: int, error: Exception) -> bool:
        """Whether it was an answer that somebody waits for."""
        request = self._by_number.get(number)
        if request is None or request.answer.done():
            return False
        request.answer.set_exception(error)
        return True

    def fail(self, error: Exception) -> None:
        """No answer will come."""
        for number in list(self._by_number):
            self.refuse(number, error)

    def ask_again(self, received: int) -> list[Message]:
        """The stream was another one: answers to what the scheduler had by then (frames up to ``received``) are lost.

        Returns what is to be sent anew: what only reads, or does no more when it is done once more. Orders fail.
        """
        again: list[Message] = []
        for number, request in self._by_number.items():
            if not 0 < request.sequence <= received:
                continue
            if isinstance(request.message, (Query, PublishData, UnpublishData)):
                if not isinstance(request.message, Query):
                    request.message.again = True
                request.sequence = 0
                again.append(request.message)
            else:
                what = type(request.message).__name__
                text = f"the connection to the scheduler was lost before it had answered {what}, which may or may not have run"
                self.refuse(number, CommClosedError(text))
        return again


def refusal(name: str, text: str) -> Exception:
    """The exception that a Refused message names; RuntimeError when the name is not known here."""
    kind = getattr(exceptions, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass
    return RuntimeError(f"{name}: {text}")
