"""A TCP proxy for tests of broken networks: it stands between two parties and cuts, holds and heals their connections."""

from __future__ import annotations

import asyncio

from treadle.comm.addressing import parse_address, parse_host_port


class Proxy:
    """Listens on ``address`` and passes bytes on to another ``tcp://`` address.

        async with Proxy(scheduler.address) as proxy:
            async with Client(proxy.address, asynchronous=True) as client:
                proxy.cut()

    While it is ``refusing``, new connections break at once.
    """

    def __init__(self, target: str) -> None:
        self._target = parse_host_port(parse_address(target)[1], 0)
        self._ends: set[asyncio.StreamWriter] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self.refusing = False
        #: How many connections were accepted.
        self.connections = 0
        self.address = ""
        self._server: asyncio.Server

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.refusing = True
        self._server.close()
        self.cut()
        self._may_pass.set()

    def cut(self) -> None:
        """Break all connections without a goodbye. Data on its way is lost."""
        for end in list(self._ends):
            end.transport.abort()

    def hold(self) -> None:
        """Let no data pass in either direction until ``heal``. Connections stay open."""
        self._may_pass.clear()

    def heal(self) -> None:
        """Let data pass again, and accept new connections."""
        self.refusing = False
        self._may_pass.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._ends |= ends
        pumps = [asyncio.ensure_future(self._pump(reader, back)), asyncio.ensure_future(self._pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ends -= ends
            for end in ends:
                # An orderly end on one side ends the other side in order, too.
                end.close()
            for pump in pumps:
                pump.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                await self._may_pass.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
