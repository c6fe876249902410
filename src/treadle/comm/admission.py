"""Which connections may be in their handshake, and which one makes room when there are too many. No I/O, and the time is an argument.

An honest connection authenticates within a round trip. The first to make room are connections of the host that has the most of them,
and among these the silent ones: so silent connections keep out nobody who speaks, and one host keeps out no other.
"""

from __future__ import annotations

import ipaddress


class Handshake:
    """One connection that has not authenticated itself yet."""

    __slots__ = ("began_s", "host")

    def __init__(self, host: str, began_s: float) -> None:
        self.host = host
        self.began_s = began_s


class _Host:
    """The handshakes of one host, oldest first: those that have said nothing, and those that have introduced themselves."""

    __slots__ = ("silent", "speaking")

    def __init__(self) -> None:
        self.silent: dict[Handshake, None] = {}
        self.speaking: dict[Handshake, None] = {}

    def __len__(self) -> int:
        return len(self.silent) + len(self.speaking)


class Admission:
    """Admits at most ``limit`` handshakes.

    A handshake younger than ``patience_s`` seconds makes room only for a host that has fewer than its own, the new one counted.
    """

    def __init__(self, limit: int, patience_s: float) -> None:
        self._limit = limit
        self._patience_s = patience_s
        self._hosts: dict[str, _Host] = {}
        self._count = 0
        #: How many handshakes had to make room, and how many connections found none.
        self.evicted = 0
        self.refused = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str, now: float) -> tuple[Handshake | None, Handshake | None]:
        """Admit a connection from the IP address ``address``: (its handshake, the one to close in exchange).

        The first is None when there is no room, the second when nobody has to make room.
        """
        name = host_of(address)
        evicted = None
        if self._count >= self._limit:
            evicted = self._who_makes_room(name, now)
            if evicted is None:
                self.refused += 1
                return None, None
            self.evicted += 1
            self.leave(evicted)
        entering = Handshake(name, now)
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host()
        host.silent[entering] = None
        self._count += 1
        return entering, evicted

    def _who_makes_room(self, newcomer: str, now: float) -> Handshake | None:
        found = self.first_to_go()
        if found is None:
            return None
        own = self._hosts.get(newcomer)
        if len(self._hosts[found.host]) > (0 if own is None else len(own)) + 1 or now - found.began_s >= self._patience_s:
            return found
        return None

    def first_to_go(self) -> Handshake | None:
        """The oldest handshake of the host that has the most, silent ones first; None when no handshake is under way."""
        if not self._hosts:
            return None
        fullest = max(self._hosts.values(), key=len)
        return next(iter(fullest.silent or fullest.speaking))

    def has_spoken(self, handshake: Handshake) -> None:
        """The connection has introduced itself with a well-formed message."""
        host = self._hosts.get(handshake.host)
        if host is not None and handshake in host.silent:
            del host.silent[handshake]
            host.speaking[handshake] = None

    def leave(self, handshake: Handshake) -> None:
        """The handshake is over, however it ended. Idempotent."""
        host = self._hosts.get(handshake.host)
        if host is None:
            return
        for place in (host.silent, host.speaking):
            if handshake in place:
                del place[handshake]
                self._count -= 1
        if not host:
            del self._hosts[handshake.host]


def host_of(address: str) -> str:
    """The owner of an IP address: an IPv4 address itself, or the 64 leading bits of an IPv6 address, which have one owner."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(ip) >> 64 << 64))
    return address
