"""Coming back to a scheduler whose connection broke, for every kind of party that has one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from treadle.exceptions import AuthenticationError, VersionError

#: Parties that lost the same scheduler come back within so many seconds of each other.
SPREAD_S: Final = 0.2
#: How long a scheduler may take to welcome one.
WELCOME_S: Final = 30.0


class Refused(Exception):
    """Who came back is not taken, and need not try again. The text says why."""


async def come_back(attempt: Callable[[float], Awaitable[None]], *, grace_s: float, why: str) -> str | None:
    """Connect and register by ``attempt(seconds left)``, for ``grace_s`` seconds and as often as it takes.

    ``attempt`` raises OSError for what may pass, AuthenticationError, VersionError and ``Refused`` for what will not.
    Returns None when it succeeded, else why it did not; ``why`` when nothing better was heard.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    while (remaining_s := deadline - loop.time()) > 0:
        await asyncio.sleep(random.uniform(0.0, SPREAD_S))
        try:
            await attempt(remaining_s)
        except (AuthenticationError, VersionError, Refused) as error:
            return str(error)
        except OSError as error:  # TimeoutError and CommClosedError are ones, too
            why = str(error) or why
        else:
            return None
    return why
