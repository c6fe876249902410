"""How a ``tcp://`` comm is made: listening, connecting, and the handshake on a new socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import Any

from treadle.comm.addressing import contact_host, parse_address, parse_host_port, unparse_address, unparse_host_port
from treadle.comm.admission import Admission, Handshake
from treadle.comm.handshake import NONCE_BYTES, ConnectorHandshake, ListenerHandshake, busy_answer
from treadle.comm.interface import Backend, Comm, CommHandler, CommLimits, Introduction, Listener, RefusalHandler
from treadle.comm.tcp import TcpComm
from treadle.exceptions import AuthenticationError, CommClosedError, PeerProtocolError, VersionError

logger = logging.getLogger(__name__)

SCHEME = "tcp"
_BACKLOG = 2048
#: Connections accepted in one wake-up of the loop.
_ACCEPTS_A_TURN = 32
#: When file descriptors run out, accepting resumes after this many seconds.
_ACCEPT_PAUSE_S = 1.0
#: Connections that had to make room for others are reported together, after this many seconds.
_REPORT_S = 1.0
#: The kernel probes a silent host after this many seconds of silence, again after this many, and at most this often. The other kernel
#: answers even if its processes are busy or stopped. For a host that data is being sent to, see ``_MOST_ATTEMPTS`` in ``treadle.comm.tcp``.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _socket_address(name: Any) -> str:
    return unparse_address(SCHEME, unparse_host_port(str(name[0]), int(name[1])))


async def _resolve(address: str, flags: int = 0) -> list[Any]:
    """The results of ``getaddrinfo``, IPv4 first. Raises OSError that names the address, ValueError for an invalid address."""
    host, port = parse_host_port(parse_address(address)[1], 0)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as error:
        raise OSError(f"cannot resolve the host of {address}: {error}") from error
    return sorted(found, key=lambda entry: entry[0] != socket.AF_INET)


async def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Raises EOFError, with the bytes that arrived, when the other side closes before ``size`` bytes."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise EOFError(data)
        data += more
    return data


# -------------------------------------------------------------------------------------------------- connecting


async def connect(address: str, introduction: Introduction, secret: bytes, limits: CommLimits) -> Comm:
    """Connect to the first of the host's addresses that answers. See ``treadle.comm.registry.connect`` for errors."""
    failure: OSError | None = None
    for family, kind, protocol, _, target in await _resolve(address):
        try:
            sock = await _open(family, kind, protocol, target)
        except OSError as error:
            failure = failure or error
            continue
        try:
            async with asyncio.timeout(limits.handshake_timeout_s):
                return await _introduce(sock, address, introduction, secret, limits)
        except TimeoutError as error:
            sock.close()
            raise CommClosedError(f"{address} did not finish the handshake in {limits.handshake_timeout_s:g} s") from error
        except BaseException:
            sock.close()
            raise
    assert failure is not None
    text = os.strerror(failure.errno) if failure.errno else str(failure)
    raise OSError(failure.errno, f"cannot connect to {address}: {text}") from failure


async def _open(family: int, kind: int, protocol: int, target: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        _prepare(sock)
        await asyncio.get_running_loop().sock_connect(sock, target)
        if sock.getsockname() == sock.getpeername():
            # Nobody listens: the kernel chose the target port as our own and connected us to ourselves.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        sock.close()
        raise
    return sock


async def _introduce(sock: socket.socket, address: str, introduction: Introduction, secret: bytes, limits: CommLimits) -> Comm:
    loop = asyncio.get_running_loop()
    handshake = ConnectorHandshake(address, introduction, secret, os.urandom(NONCE_BYTES))
    try:
        await loop.sock_sendall(sock, handshake.hello)
        while handshake.needed:
            answer = handshake.receive(await _receive_exactly(sock, handshake.needed))
            if answer:
                await loop.sock_sendall(sock, answer)
    except EOFError as error:
        raise CommClosedError(f"{address} closed the connection during the handshake") from error
    except PeerProtocolError as error:
        raise CommClosedError(str(error)) from error
    except (AuthenticationError, VersionError, CommClosedError, TimeoutError):
        raise
    except OSError as error:
        raise CommClosedError(f"the connection to {address} broke during the handshake: {error.strerror or error}") from error
    return TcpComm(loop, sock, _socket_address(sock.getsockname()), address, handshake.peer, limits)


# --------------------------------------------------------------------------------------------------- listening


async def listen(
    address: str, handler: CommHandler, session: bytes, secret: bytes, limits: CommLimits, refused: RefusalHandler
) -> Listener:
    """Listen on the first of the host's addresses; port 0 takes any free port."""
    ListenerHandshake(session, secret, bytes(NONCE_BYTES))  # an invalid session or secret fails now, not with the first peer
    family, kind, protocol, _, target = (await _resolve(address, socket.AI_PASSIVE))[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] includes IPv4, as with other servers.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if target[0] == "::" else 1)
        sock.bind(target)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    return TcpListener(sock, handler, session, secret, limits, refused)


class TcpListener(Listener):
    """Accepts sockets, shakes hands on each, and hands over those that pass."""

    def __init__(
        self,
        sock: socket.socket,
        handler: CommHandler,
        session: bytes,
        secret: bytes,
        limits: CommLimits,
        refused: RefusalHandler,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._handler = handler
        self._session = session
        self._secret = secret
        self._limits = limits
        self._refused = refused
        self._admission = Admission(limits.max_unauthenticated, limits.handshake_patience_s)
        self._handshakes: dict[Handshake, tuple[asyncio.Task[None], socket.socket]] = {}
        self._report: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stopped = False
        host, port = sock.getsockname()[:2]
        self.listen_address = unparse_address(SCHEME, unparse_host_port(host, port))
        self.contact_address = unparse_address(SCHEME, unparse_host_port(contact_host(host), port))
        self._loop.add_reader(sock.fileno(), self._accept)

    def __repr__(self) -> str:
        return f"<TcpListener {self.listen_address}{' stopped' if self._stopped else ''}>"

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for timer in (self._retry, self._report):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        # The handler runs inside a handshake's task and may itself stop the listener: that task must not wait for itself.
        others = [place for place, (task, _sock) in self._handshakes.items() if task is not asyncio.current_task()]
        await asyncio.gather(*[self._close_handshake(place) for place in others], return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._stopped:
                return
            try:
                sock, name = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Mostly too many open files. The socket stays readable, so watching it would spin.
                logger.error("%s cannot accept connections for now: %s", self.listen_address, error)
                self._loop.remove_reader(self._sock.fileno())
                place = self._admission.first_to_go()
                if place is not None:
                    self._close_handshake(place)
                self._retry = self._loop.call_later(_ACCEPT_PAUSE_S, self._loop.add_reader, self._sock.fileno(), self._accept)
                return
            self._begin_handshake(sock, _socket_address(name), str(name[0]))

    def _begin_handshake(self, sock: socket.socket, peer_address: str, host: str) -> None:
        try:
            _prepare(sock)
            place, evicted = self._admission.enter(host, self._loop.time())
            if (place is None or evicted is not None) and self._report is None:
                self._report = self._loop.call_later(_REPORT_S, self._report_crowd, len(self._admission))
            if evicted is not None:
                self._close_handshake(evicted)
            if place is None:
                sock.send(busy_answer(self._session))
                sock.close()
                return
        except OSError:  # the peer is gone already
            sock.close()
            return
        self._handshakes[place] = self._loop.create_task(self._shake_hands(sock, peer_address, place)), sock

    def _close_handshake(self, place: Handshake) -> asyncio.Task[None]:
        task, sock = self._handshakes.pop(place)
        self._admission.leave(place)
        task.cancel()
        # A task that is cancelled before it begins runs none of its code, so it cannot close the socket itself.
        task.add_done_callback(lambda _task: sock.close())
        return task

    def _report_crowd(self, count: int) -> None:
        """Log one line for many connections: a line for each would be one more way to do harm."""
        self._report = None
        admission = self._admission
        evicted, admission.evicted = admission.evicted, 0
        refused, admission.refused = admission.refused, 0
        self._refused(
            f"{count} connections were in their handshake: closed {evicted} that took too long or came from the host with the most, "
            f"and had no room for {refused} more"
        )

    async def _shake_hands(self, sock: socket.socket, peer_address: str, place: Handshake) -> None:
        try:
            await self._prove(sock, peer_address, place)
        finally:
            self._admission.leave(place)
            self._handshakes.pop(place, None)

    async def _prove(self, sock: socket.socket, peer_address: str, place: Handshake) -> None:
        handshake = ListenerHandshake(self._session, self._secret, os.urandom(NONCE_BYTES))
        refusal: str | None = None
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                while handshake.needed:
                    answer = handshake.receive(await _receive_exactly(sock, handshake.needed))
                    self._admission.has_spoken(place)
                    await self._loop.sock_sendall(sock, answer)
            refusal = handshake.refusal
            local_address = _socket_address(sock.getsockname())
        except TimeoutError:
            refusal = f"no complete handshake in {self._limits.handshake_timeout_s:g} s"
        except PeerProtocolError as error:
            refusal = str(error)
        except EOFError as error:
            sock.close()
            if error.args[0]:  # a peer that says nothing at all only probes whether somebody listens
                self._refused(f"refused {peer_address}: it closed the connection in the middle of the handshake")
            return
        except OSError:
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        if refusal is not None:
            sock.close()
            self._refused(f"refused {peer_address}: {refusal}")
            return
        comm = TcpComm(self._loop, sock, local_address, peer_address, handshake.peer, self._limits)
        try:
            self._handler(comm)
        except Exception:
            logger.exception("the connection of %s could not be accepted", peer_address)
            comm.abort()


BACKEND = Backend(listen=listen, connect=connect)
