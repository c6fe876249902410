"""Peers: a worker or a client asks a worker for values, or gives it some. Requests are answered in any order."""

from __future__ import annotations

from treadle.messages.base import Block, Count, Id, Message, Refused, TaskError, WireKey


class GetData(Message, tag=1):
    """Send the values of these. Answered by ``Data`` or ``Busy``."""

    request: Id
    ids: list[Id]


class PutData(Message, tag=2):
    """Keep these values. Answered by ``DataStored`` or ``PeerRefused``."""

    request: Id
    ids: list[Id]
    keys: list[WireKey]
    blocks: list[Block]


class Data(Message, tag=64):
    """Values, in blocks; what is not here; and what could not be pickled.

    Buffers of the blocks ride beside, in the order of the blocks. The answer may cover only some of the
    ids asked for (it is bounded in bytes): an id that is in none of the three is to be asked for again.
    """

    request: Id
    blocks: list[Block]
    missing: list[Id]
    failed: list[tuple[Id, TaskError]]


class Busy(Message, tag=65):
    """Too many requests at once: ask again in a while."""

    request: Id


class DataStored(Message, tag=66):
    """Sizes and type names of what was stored, in the order of ``PutData.ids``."""

    request: Id
    nbytes: list[Count]
    types: list[str]


class PeerRefused(Refused, tag=67):
    """See Refused."""


PeerToWorker = GetData | PutData
WorkerToPeer = Data | Busy | DataStored | PeerRefused
