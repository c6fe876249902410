"""Serve values to peers and clients, and take values that they hand over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from treadle.comm.interface import Buffer, Comm, Role
from treadle.exceptions import CommClosedError, PeerProtocolError
from treadle.messages.base import Message, TaskError
from treadle.messages.codec import decode_peer_to_worker, encode
from treadle.messages.local import DataLost, DataPut
from treadle.messages.worker_worker import Busy, Data, DataStored, GetData, PeerRefused, PutData
from treadle.serialize.sizes import sizeof, type_name
from treadle.serialize.values import belongs_in_a_thread, hand_over, pack_or_hand_over, pack_values
from treadle.utils.background import Background
from treadle.utils.buffers import Buffers
from treadle.worker.data.store import Store
from treadle.worker.unpacking import Unpack

logger = logging.getLogger(__name__)

#: Answers up to this size are made at once; larger ones are counted and made in another thread.
_SMALL_BYTES: Final = 65_536
#: An answer is under way while more than this many bytes of it are unsent.
_LARGE_BYTES: Final = 1_000_000


class DataServer:
    """Answers the requests of peers and clients.

    ``find`` returns the (key, bytes) of a value in the store, by id. ``deliver`` takes an event and has handled it when it returns.
    """

    def __init__(
        self,
        store: Store,
        find: Callable[[int], tuple[object, int] | None],
        deliver: Callable[[object], None],
        offload: Executor,
        unpack: Unpack,
        *,
        max_incoming: int,
        max_answer_bytes: int,
    ) -> None:
        self._store = store
        self._find = find
        self._deliver = deliver
        self._offload = offload
        self._unpack_block = unpack
        self._max_incoming = max_incoming
        self._max_answer_bytes = max_answer_bytes
        #: The open comms, and whether a client of this worker's own tasks is at the other end.
        self._comms: dict[Comm, bool] = {}
        #: Large answers that are being made or sent.
        self._background = Background("serving data")
        self._under_way: dict[asyncio.Task[None], None] = {}

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def accept(self, comm: Comm, *, is_own: bool = False) -> None:
        """A ``CommHandler``. ``is_own``: a client of this worker's own tasks, in this process, is at the other end."""
        if comm.peer.role is not Role.PEER:
            comm.abort()
            return
        self._comms[comm] = is_own

        def on_closed(error: Exception | None) -> None:
            self._comms.pop(comm, None)

        comm.start(lambda body, buffers: self._on_frame(comm, body, buffers), on_closed)

    def close(self) -> None:
        for task in list(self._under_way):
            task.cancel()
        for comm in list(self._comms):
            comm.abort()

    def _on_frame(self, comm: Comm, body: Buffer, buffers: list[Buffer]) -> None:
        beside = Buffers(buffers)
        for message in decode_peer_to_worker(body):
            if isinstance(message, GetData):
                self._get(comm, message)
            elif isinstance(message, PutData):
                self._put(comm, message, beside.take(sum([block.buffers for block in message.blocks])))

    # ------------------------------------------------------------------------------------------ get

    def _get(self, comm: Comm, request: GetData) -> None:
        ids: list[int] = []
        keys: list[object] = []
        sizes: list[int] = []
        missing: list[int] = []
        total = 0
        for id in request.ids:
            found = self._find(id)
            if found is None:
                missing.append(id)
                continue
            if ids and total + found[1] > self._max_answer_bytes:
                continue  # the peer will request it again
            ids.append(id)
            keys.append(found[0])
            sizes.append(found[1])
            total += found[1]
        if total <= _SMALL_BYTES:
            answer, buffers, lost = self._pack(comm, request.request, ids, keys, sizes, missing)
            self._answer(comm, answer, buffers, lost)
        elif len(self._under_way) >= self._max_incoming:
            comm.send(encode([Busy(request.request)]))
        else:
            self._spawn(self._get_large(comm, request.request, ids, keys, sizes, missing))

    async def _get_large(self, comm: Comm, request: int, ids: list[int], keys: list[object], sizes: list[int], missing: list[int]) -> None:
        loop = asyncio.get_running_loop()
        answer, buffers, lost = await loop.run_in_executor(self._offload, self._pack, comm, request, ids, keys, sizes, missing)
        self._answer(comm, answer, buffers, lost)
        # The answer counts as under way until most of it is sent.
        await comm.drained(_LARGE_BYTES)

    def _pack(
        self, comm: Comm, request: int, ids: list[int], keys: list[object], sizes: list[int], missing: list[int]
    ) -> tuple[Data, list[Buffer], list[int]]:
        """The answer, its buffers, and the ids of values that the store has lost. May be called in any thread."""
        values: list[Any] = []
        here: list[int] = []
        here_sizes: list[int] = []
        lost: list[int] = []
        for id, key, size in zip(ids, keys, sizes, strict=True):
            try:
                values.append(self._store.get(key))
            except KeyError:
                lost.append(id)
                continue
            here.append(id)
            here_sizes.append(size)
        failed: list[tuple[int, TaskError]] = []
        if self._comms.get(comm):
            blocks, buffers = hand_over(here, values)
        elif comm.by_reference:
            blocks, buffers = pack_or_hand_over(here, values, here_sizes)
        else:
            blocks, buffers, failed = pack_values(here, values, here_sizes)
        return Data(request, blocks, missing + lost, failed), buffers, lost

    def _answer(self, comm: Comm, answer: Data, buffers: list[Buffer], lost: list[int]) -> None:
        # A value that was dropped while the answer was made is no loss.
        lost = [id for id in lost if self._find(id) is not None]
        if lost:
            self._deliver(DataLost(lost))
        try:
            comm.send(encode([answer]), buffers)
        except (ValueError, OverflowError) as error:
            self._refuse(comm, answer.request, error)

    # ------------------------------------------------------------------------------------------ put

    def _put(self, comm: Comm, message: PutData, buffers: list[Buffer]) -> None:
        if len(message.ids) != len(message.keys):
            raise PeerProtocolError("PutData has columns of different lengths")
        if any([belongs_in_a_thread(block) for block in message.blocks]):
            self._spawn(self._put_large(comm, message, buffers))
            return
        try:
            values = self._unpack(message, buffers)
        except Exception as error:
            self._refuse(comm, message.request, error)
        else:
            self._keep(comm, message, values)

    async def _put_large(self, comm: Comm, message: PutData, buffers: list[Buffer]) -> None:
        try:
            values = await asyncio.get_running_loop().run_in_executor(self._offload, self._unpack, message, buffers)
        except Exception as error:
            self._refuse(comm, message.request, error)
        else:
            self._keep(comm, message, values)

    def _unpack(self, message: PutData, buffers: list[Buffer]) -> list[Any]:
        """The values in the order of ``message.ids``. Raises what unpickling raises, ValueError when some are missing."""
        values: dict[int, Any] = {}
        beside = Buffers(buffers)
        for block in message.blocks:
            values.update(zip(block.ids, self._unpack_block(block, beside.take(block.buffers)), strict=True))
        try:
            return [values[id] for id in message.ids]
        except KeyError as error:
            raise ValueError(f"PutData names the value {error} but does not contain it") from None

    def _keep(self, comm: Comm, message: PutData, values: list[Any]) -> None:
        nbytes = [sizeof(value) for value in values]
        types = [type_name(value) for value in values]
        self._deliver(DataPut(message.ids, message.keys, values, nbytes, types))
        comm.send(encode([DataStored(message.request, nbytes, types)]))

    def _refuse(self, comm: Comm, request: int, error: Exception) -> None:
        refused: Message = PeerRefused(request, type(error).__name__, str(error))
        comm.send(encode([refused]))

    def _spawn(self, coroutine: Any) -> None:
        async def serve() -> None:
            try:
                await coroutine
            except CommClosedError:
                pass  # the peer that asked is gone

        task = self._background.spawn("an answer", serve())
        self._under_way[task] = None
        task.add_done_callback(lambda task: self._under_way.pop(task, None))
