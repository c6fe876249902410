"""Messages <-> bytes: one encoder, one typed decoder for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.client_scheduler import ClientToScheduler, SchedulerToClient
from treadle.messages.nanny import NannyToScheduler, SchedulerToNanny
from treadle.messages.worker_scheduler import SchedulerToWorker, WorkerToScheduler
from treadle.messages.worker_worker import PeerToWorker, WorkerToPeer

M = TypeVar("M", bound=Message)
_encoder = msgspec.msgpack.Encoder()


def encode(messages: Sequence[Message]) -> bytes:
    """The body of one frame. Raises TypeError or OverflowError for values that msgpack cannot hold."""
    return _encoder.encode(messages)


class Decoder(Generic[M]):
    """Decodes the bodies of frames of one direction."""

    def __init__(self, union: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(list[union]).decode

    def __call__(self, body: bytes | bytearray | memoryview) -> list[M]:
        """The messages of one frame. Raises PeerProtocolError when the body holds anything but messages of this direction."""
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise PeerProtocolError(f"a frame could not be decoded: {error}") from error


decode_client_to_scheduler: Decoder[Any] = Decoder(ClientToScheduler)
decode_scheduler_to_client: Decoder[Any] = Decoder(SchedulerToClient)
decode_worker_to_scheduler: Decoder[Any] = Decoder(WorkerToScheduler)
decode_scheduler_to_worker: Decoder[Any] = Decoder(SchedulerToWorker)
decode_peer_to_worker: Decoder[Any] = Decoder(PeerToWorker)
decode_worker_to_peer: Decoder[Any] = Decoder(WorkerToPeer)
decode_nanny_to_scheduler: Decoder[Any] = Decoder(NannyToScheduler)
decode_scheduler_to_nanny: Decoder[Any] = Decoder(SchedulerToNanny)


def check_from_client(message: Message) -> None:
    """Raises TypeError or ValueError unless the scheduler takes that: what users have given may be in it as it came."""
    try:
        decode_client_to_scheduler(encode([message]))
    except (PeerProtocolError, OverflowError, RecursionError, UnicodeError) as error:
        cause = error.__cause__ or error
        raise ValueError(f"{type(message).__name__} cannot be sent to the scheduler: {cause}") from None
