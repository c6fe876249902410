from __future__ import annotations

import socket

import psutil
import pytest

from treadle.comm import addressing
from treadle.comm.addressing import (
    address_from_user_args,
    get_address_host,
    get_address_host_port,
    host_of_interface,
    normalize_address,
    parse_address,
    parse_host_port,
    resolve_address,
    unparse_address,
)


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("10.0.0.3:8786", "tcp://10.0.0.3:8786"),
        ("tcp://10.0.0.3:8786", "tcp://10.0.0.3:8786"),
        (" tcp://[::1]:80 ", "tcp://[::1]:80"),
        ("inproc://10.0.0.3/12/1", "inproc://10.0.0.3/12/1"),
        ("host", "tcp://host"),
    ],
)
def test_addresses_have_a_scheme(address: str, normal: str) -> None:
    assert normalize_address(address) == normal
    assert unparse_address(*parse_address(normal)) == normal


def test_unknown_schemes_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'gopher'.*inproc, tcp"):
        normalize_address("gopher://host:1")
    with pytest.raises(ValueError, match="known are"):
        normalize_address("host:1", default_scheme="gopher")
    with pytest.raises(TypeError, match="8786"):
        parse_address(8786)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rest", "host", "port"),
    [("a.b:80", "a.b", 80), ("[::1]:80", "::1", 80), ("[::1]", "::1", 7), ("host", "host", 7), (":0", "", 0), ("", "", 7)],
)
def test_hosts_and_ports(rest: str, host: str, port: int) -> None:
    assert parse_host_port(rest, 7) == (host, port)


@pytest.mark.parametrize("rest", ["::1", "::1:80", "[::1", "[::1]80", "host:port", "host:-1", "host:65536", "host:\u0663"])
def test_invalid_hosts_and_ports_are_named(rest: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_host_port(rest, 7)


def test_a_port_may_be_required() -> None:
    with pytest.raises(ValueError, match="no port"):
        parse_host_port("host")


def test_parts_of_addresses() -> None:
    assert get_address_host("tcp://[::1]:80") == "::1"
    assert get_address_host("inproc://10.0.0.3/12/1") == "10.0.0.3"
    assert get_address_host_port("tcp://a:80") == ("a", 80)
    with pytest.raises(ValueError, match="no host and port"):
        get_address_host_port("inproc://10.0.0.3/12/1")


def test_names_are_resolved() -> None:
    assert resolve_address("localhost:80") == "tcp://127.0.0.1:80"
    assert resolve_address("tcp://[::1]:80") == "tcp://[::1]:80"
    assert resolve_address("inproc://x/1/2") == "inproc://x/1/2"
    with pytest.raises(OSError, match=r"no-such-host\.invalid"):
        resolve_address("tcp://no-such-host.invalid:1")


def test_interfaces_have_an_address_and_unknown_ones_are_named() -> None:
    loopback = next(
        name
        for name, entries in psutil.net_if_addrs().items()
        if any(entry.family == socket.AF_INET and entry.address == "127.0.0.1" for entry in entries)
    )
    assert host_of_interface(loopback) == "127.0.0.1"
    assert address_from_user_args(interface=loopback, port=3) == "tcp://127.0.0.1:3"
    with pytest.raises(ValueError, match=f"'eth77'.*{loopback}"):
        host_of_interface("eth77")
    with pytest.raises(ValueError, match="not both"):
        address_from_user_args(host="h", interface=loopback)


def test_addresses_from_what_users_give() -> None:
    assert address_from_user_args() == "tcp://:0"
    assert address_from_user_args(default_host="127.0.0.1") == "tcp://127.0.0.1:0"
    assert address_from_user_args(host="h", port=1) == "tcp://h:1"
    assert address_from_user_args(host="h", port="1", protocol="tcp") == "tcp://h:1"
    assert address_from_user_args(host="h:1") == "tcp://h:1"
    assert address_from_user_args(host="::1", port=1) == "tcp://[::1]:1"
    assert address_from_user_args(host="tcp://h:1") == "tcp://h:1"
    assert address_from_user_args(protocol="tcp://", host="h") == "tcp://h:0"
    assert address_from_user_args(protocol="inproc") == "inproc://"


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="give one"):
        address_from_user_args(host="h:1", port=2)
    with pytest.raises(ValueError, match="give one"):
        address_from_user_args(host="inproc://x", protocol="tcp")
    with pytest.raises(ValueError, match="known are"):
        address_from_user_args(protocol="gopher")


def test_wildcards_become_a_host_that_can_be_reached() -> None:
    for wildcard in ("", "0.0.0.0"):
        socket.inet_pton(socket.AF_INET, addressing.contact_host(wildcard))
    socket.inet_pton(socket.AF_INET6, addressing.contact_host("::"))
    assert addressing.contact_host("10.1.2.3") == "10.1.2.3"
