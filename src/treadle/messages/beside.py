"""Large answers ride beside the body of a frame: they are not copied, and have no cap in practice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import FunctionRan, Reply
from treadle.messages.client_scheduler import RanOn

#: From here on a result of a function rides beside.
BESIDE_BYTES: Final = 2**20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def put_reply_beside(reply: Reply) -> tuple[Reply, list[Any]]:
    """The same answer, with its value in a buffer. Raises what encoding raises."""
    return type(reply)(reply.request, None, True), [_encode(reply.value)]


def put_result_beside(ran: FunctionRan) -> tuple[FunctionRan, list[Any]]:
    """The same result; its payload is in a buffer if it is large."""
    if len(ran.payload) < BESIDE_BYTES:
        return ran, []
    return type(ran)(ran.request, b"", ran.error, True), [ran.payload]


def put_results_beside(ran: RanOn) -> tuple[RanOn, list[Any]]:
    results = []
    buffers: list[Any] = []
    for address, one in ran.results:
        one, beside = put_result_beside(one)
        results.append((address, one))
        buffers += beside
    return RanOn(ran.request, results), buffers


def count_beside(message: Any) -> int:
    """How many buffers beside belong to a message that may be an answer."""
    if isinstance(message, (Reply, FunctionRan)):
        return int(message.beside)
    if isinstance(message, RanOn):
        return sum([one.beside for _address, one in message.results])
    return 0


def take_beside(message: Any, buffers: Sequence[Any]) -> None:
    """Put the ``count_beside`` buffers of an answer where they belong. Raises PeerProtocolError for others."""
    if len(buffers) != count_beside(message):
        raise PeerProtocolError(f"{type(message).__name__} came with {len(buffers)} buffers, and names {count_beside(message)}")
    if isinstance(message, Reply):
        try:
            message.value = _decode(buffers[0])
        except msgspec.MsgspecError as error:
            raise PeerProtocolError(f"the value of an answer could not be decoded: {error}") from error
        message.beside = False
    elif isinstance(message, FunctionRan):
        message.payload = buffers[0]
        message.beside = False
    elif isinstance(message, RanOn):
        rest = list(buffers)
        for _address, one in message.results:
            if one.beside:
                take_beside(one, [rest.pop(0)])
