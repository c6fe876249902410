"""The transports by URI scheme, and the two calls that everybody uses: ``listen`` and ``connect``."""

from __future__ import annotations

import asyncio
import logging
import random

from treadle.comm import inproc, tcp_connect
from treadle.comm.addressing import add_scheme, check_scheme, normalize_address, parse_address
from treadle.comm.interface import Backend, Comm, CommHandler, CommLimits, Introduction, Listener, RefusalHandler
from treadle.exceptions import AuthenticationError, PeerProtocolError, VersionError

logger = logging.getLogger(__name__)

#: Seconds between two attempts to connect, at first and at most; each pause is shortened at random by up to a half.
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.5

_backends: dict[str, Backend] = {}


def register(scheme: str, backend: Backend, has_port: bool = True) -> None:
    """Make a transport available under ``scheme://``. ``has_port``: whether its addresses are a host and a port."""
    _backends[scheme] = backend
    add_scheme(scheme, has_port)


def backend(scheme: str) -> Backend:
    """The transport of a scheme. Raises ValueError that lists the known ones."""
    return _backends[check_scheme(scheme)]


register("tcp", tcp_connect.BACKEND)
register("inproc", inproc.BACKEND, has_port=False)


def log_refusal(line: str) -> None:
    logger.warning("%s", line)


async def listen(
    address: str,
    handler: CommHandler,
    *,
    session: bytes,
    secret: bytes,
    limits: CommLimits = CommLimits(),
    refused: RefusalHandler = log_refusal,
) -> Listener:
    """Accept connections; ``handler`` gets each one that has proved that it knows the secret.

    Raises OSError that names the address (for instance when the port is in use), ValueError for an invalid address.
    """
    address = normalize_address(address)
    return await backend(parse_address(address)[0]).listen(address, handler, session, secret, limits, refused)


async def connect(
    address: str,
    introduction: Introduction,
    *,
    secret: bytes,
    limits: CommLimits = CommLimits(),
    timeout_s: float,
) -> Comm:
    """Connect and authenticate. Tries again for up to ``timeout_s`` seconds while nobody listens there.

    Raises AuthenticationError and VersionError at once; OSError after the timeout, with the address and the timeout in its
    text; ValueError for an invalid address.
    """
    address = normalize_address(address)
    transport = backend(parse_address(address)[0])
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    delay_s = _FIRST_DELAY_S
    reason: OSError | None = None
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await transport.connect(address, introduction, secret, limits)
        except (AuthenticationError, VersionError):
            raise
        except TimeoutError:
            pass  # our deadline; a transport's own timeout is a CommClosedError
        except OSError as error:
            if isinstance(error.__cause__, PeerProtocolError):
                raise
            reason = error
        remaining_s = deadline - loop.time()
        if remaining_s < _FIRST_DELAY_S:
            text = f"no answer from {address}" if reason is None else str(reason.strerror or reason)
            if address not in text:
                text = f"cannot connect to {address}: {text}"
            raise OSError(f"{text} (tried again and again until the timeout of {timeout_s:g} s)") from reason
        await asyncio.sleep(min(delay_s * random.uniform(0.5, 1.0), remaining_s - _FIRST_DELAY_S / 2))
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
