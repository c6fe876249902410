"""Addresses: ``scheme://rest``; for the schemes that go through a network, ``rest`` is ``host:port``."""

from __future__ import annotations

import socket
from typing import Final

import psutil

DEFAULT_SCHEME: Final = "tcp"
#: Known schemes; True if the rest of an address is a host and a port.
_schemes: dict[str, bool] = {"tcp": True, "inproc": False}


def add_scheme(scheme: str, has_port: bool = True) -> None:
    """Make a scheme known. ``treadle.comm.registry.register`` calls this."""
    _schemes[scheme] = has_port


def check_scheme(scheme: str) -> str:
    """Return the scheme. Raises ValueError when it is unknown."""
    if scheme not in _schemes:
        raise ValueError(f"unknown protocol {scheme!r} in an address; known are {', '.join(sorted(_schemes))}")
    return scheme


def parse_address(address: str, default_scheme: str = DEFAULT_SCHEME) -> tuple[str, str]:
    """``("tcp", "host:port")`` of ``"tcp://host:port"`` or ``"host:port"``. Raises ValueError for an unknown scheme."""
    if not isinstance(address, str):
        raise TypeError(f"an address is a string such as 'tcp://127.0.0.1:8786', got {address!r}")
    scheme, separator, rest = address.strip().rpartition("://")
    return check_scheme(scheme if separator else default_scheme), rest


def unparse_address(scheme: str, rest: str) -> str:
    return f"{scheme}://{rest}"


def normalize_address(address: str, default_scheme: str = DEFAULT_SCHEME) -> str:
    """The address with its scheme. Raises ValueError for an unknown one."""
    return unparse_address(*parse_address(address, default_scheme))


def parse_host_port(rest: str, default_port: int | None = None) -> tuple[str, int]:
    """``("::1", 80)`` of ``"[::1]:80"``. Raises ValueError for an invalid address, and for one without a port when there is no default."""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"invalid address {rest!r}; an IPv6 address looks like [::1]:8786")
        port_text = tail[1:]
    elif rest.count(":") > 1:
        raise ValueError(f"invalid address {rest!r}; an IPv6 address looks like [::1]:8786")
    else:
        host, _, port_text = rest.partition(":")
    if not port_text:
        if default_port is None:
            raise ValueError(f"the address {rest!r} has no port")
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) < 65536):
        raise ValueError(f"invalid port {port_text!r} in the address {rest!r}")
    return host, int(port_text)


def unparse_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def get_address_host_port(address: str, default_port: int | None = 0) -> tuple[str, int]:
    """Host and port. Raises ValueError for a scheme that has none."""
    scheme, rest = parse_address(address)
    if not _schemes[scheme]:
        raise ValueError(f"an address of {scheme}:// has no host and port: {address!r}")
    return parse_host_port(rest, default_port)


def get_address_host(address: str) -> str:
    """The host: ``"10.0.0.3"`` of ``"tcp://10.0.0.3:8786"`` and of ``"inproc://10.0.0.3/123/1"``."""
    scheme, rest = parse_address(address)
    return parse_host_port(rest, 0)[0] if _schemes[scheme] else rest.partition("/")[0]


def resolve_address(address: str) -> str:
    """The address with the host's IP address in place of its name. Asks the name service; raises OSError that names the address."""
    scheme, rest = parse_address(address)
    if not _schemes[scheme]:
        return unparse_address(scheme, rest)
    host, port = parse_host_port(rest, 0)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"cannot resolve the host of {address!r}: {error}") from error
    # IPv4 first: servers that listen on a name such as localhost mostly listen there.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return unparse_address(scheme, unparse_host_port(str(found[0][4][0]), port))


def host_of_interface(name: str) -> str:
    """The IPv4 address of a network interface, else its IPv6 address. Raises ValueError that names the known interfaces."""
    interfaces = psutil.net_if_addrs()
    if name not in interfaces:
        raise ValueError(f"there is no network interface {name!r}; there are {', '.join(sorted(interfaces))}")
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in interfaces[name]:
            if entry.family == family:
                return entry.address.partition("%")[0]
    raise ValueError(f"the network interface {name!r} has no IP address")


def local_host(peer: str = "8.8.8.8") -> str:
    """The address of this machine that ``peer`` would see; the loopback address when there is no route. Sends nothing."""
    version6 = ":" in peer
    try:
        with socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 80))
            return str(probe.getsockname()[0])
    except OSError:
        return "::1" if version6 else "127.0.0.1"


def contact_host(host: str) -> str:
    """The host that others connect to when a server listens on ``host``: wildcards become this machine's address."""
    if host in ("", "0.0.0.0"):
        return local_host()
    if host == "::":
        return local_host("2001:4860:4860::8888")
    return host


def address_from_user_args(
    host: str | None = None,
    port: int | str | None = None,
    interface: str | None = None,
    protocol: str | None = None,
    default_host: str = "",
) -> str:
    """The address to listen on, such as ``"tcp://10.0.0.3:0"``.

    ``host`` may be a whole address. Raises ValueError for contradictions, unknown interfaces and protocols.
    """
    scheme = None
    if host and "://" in host:
        scheme, host = parse_address(host)
    if protocol:
        given = protocol.removesuffix("://")
        if scheme is not None and given != scheme:
            raise ValueError(f"the host says {scheme}:// and the protocol is {given!r}; give one of them")
        scheme = given
    scheme = check_scheme(scheme or DEFAULT_SCHEME)
    if not _schemes[scheme]:
        return unparse_address(scheme, host or "")
    if interface:
        if host:
            raise ValueError(f"give a host ({host!r}) or an interface ({interface!r}), not both")
        host = host_of_interface(interface)
    number = 0 if port is None else int(port)
    if host and (host.startswith("[") or host.count(":") == 1):
        host, given_port = parse_host_port(host, number)
        if port is not None and given_port != number:
            raise ValueError(f"the host says port {given_port} and the port is {number}; give one of them")
        number = given_port
    return unparse_address(scheme, unparse_host_port(host or default_host, number))
