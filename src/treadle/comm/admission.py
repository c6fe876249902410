"""Which connections may be in their handshake, and which one makes room when there are too many. No I/O, and the time is an argument.

A connection proves itself within a round trip. One that takes longer, or comes from a host that has more of them than others,
goes first; so nobody who is silent keeps out those who speak, and one host does not keep out another.
"""

from __future__ import annotations

import ipaddress


class Handshake:
    """One connection that has not proved itself yet."""

    __slots__ = ("began_s", "host")

    def __init__(self, host: str, began_s: float) -> None:
        self.host = host
        self.began_s = began_s


class _Host:
    """Its handshakes, oldest first: those that have said nothing, and those that have said who they are."""

    __slots__ = ("silent", "speaking")

    def __init__(self) -> None:
        self.silent: dict[Handshake, None] = {}
        self.speaking: dict[Handshake, None] = {}

    def __len__(self) -> int:
        return len(self.silent) + len(self.speaking)


class Admission:
    """At most ``limit`` handshakes. ``patience_s``: so long nobody has to make room for a host with as many handshakes as its own."""

    def __init__(self, limit: int, patience_s: float) -> None:
        self._limit = limit
        self._patience_s = patience_s
        self._hosts: dict[str, _Host] = {}
        self._count = 0
        #: Handshakes that had to make room, and connections that found none.
        self.evicted = 0
        self.refused = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str, now: float) -> tuple[Handshake | None, Handshake | None]:
        """(the new one, or None: there is no room for it; the one that is to be closed for it, or None). ``address``: an IP address."""
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
        """The oldest that has said nothing, of the host with most of them; None when there is none at all."""
        if not self._hosts:
            return None
        fullest = max(self._hosts.values(), key=len)
        return next(iter(fullest.silent or fullest.speaking))

    def has_spoken(self, handshake: Handshake) -> None:
        """It has said who it is, in the right form."""
        host = self._hosts.get(handshake.host)
        if host is not None and handshake in host.silent:
            del host.silent[handshake]
            host.speaking[handshake] = None

    def leave(self, handshake: Handshake) -> None:
        """It is over, however it ended. Idempotent."""
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
    """Whose address that is: one IPv4 address, or the 64 leading bits of an IPv6 address, which are all of one owner."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(ip) >> 64 << 64))
    return address
