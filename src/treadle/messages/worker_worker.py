"""Peers: a worker or a client requests values from a worker, or hands values over to it. Requests are answered in any order."""

from __future__ import annotations

from treadle.messages.base import Block, Count, Id, Message, Refused, TaskError, WireKey


class GetData(Message, tag=1):
    """Send these values. Answered by ``Data`` or ``Busy``."""

    request: Id
    ids: list[Id]


class PutData(Message, tag=2):
    """Keep these values. Answered by ``DataStored`` or ``PeerRefused``."""

    request: Id
    ids: list[Id]
    keys: list[WireKey]
    blocks: list[Block]


class Data(Message, tag=64):
    """Values, in blocks; ids of values that the worker does not have (``missing``), or could not pickle (``failed``).

    Buffers of the blocks ride beside, in the order of the blocks. The answer has a limit in bytes and may cover only some of the
    requested ids: an id that is in none of the three is to be requested again.
    """

    request: Id
    blocks: list[Block]
    missing: list[Id]
    failed: list[tuple[Id, TaskError]]


class Busy(Message, tag=65):
    """The worker serves too many requests: ask again after a while."""

    request: Id


class DataStored(Message, tag=66):
    """Sizes in bytes and type names of the stored values, in the order of ``PutData.ids``."""

    request: Id
    nbytes: list[Count]
    types: list[str]


class PeerRefused(Refused, tag=67):
    """See Refused."""


PeerToWorker = GetData | PutData
WorkerToPeer = Data | Busy | DataStored | PeerRefused
