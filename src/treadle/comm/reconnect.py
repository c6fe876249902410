"""Reconnect to a scheduler after the connection broke; for workers, clients and nannies alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from treadle.exceptions import AuthenticationError, VersionError

#: Parties that lost the same scheduler spread their attempts over this many seconds.
SPREAD_S: Final = 0.2
#: How long a scheduler may take to welcome a party, in seconds.
WELCOME_S: Final = 30.0


class Refused(Exception):
    """The scheduler does not take this party back, and another attempt would be useless. The text says why."""


async def come_back(attempt: Callable[[float], Awaitable[None]], *, grace_s: float, why: str) -> str | None:
    """Call ``attempt(seconds left)``, which connects and registers, until it succeeds or ``grace_s`` seconds are over.

    ``attempt`` raises OSError for a failure that may pass, and AuthenticationError, VersionError or ``Refused`` for one that
    will not. Returns None on success, else the reason: that of the last attempt, or ``why`` if no attempt gave one.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    while (remaining_s := deadline - loop.time()) > 0:
        await asyncio.sleep(random.uniform(0.0, SPREAD_S))
        try:
            await attempt(remaining_s)
        except (AuthenticationError, VersionError, Refused) as error:
            return str(error)
        except OSError as error:  # also TimeoutError and CommClosedError, which derive from it
            why = str(error) or why
        else:
            return None
    return why
