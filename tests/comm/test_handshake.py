"""Both sides prove themselves or part; nothing that anybody says makes a side raise something unexpected."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.comm import handshake
from treadle.comm.handshake import (
    GREETING_BYTES,
    PROOF_BYTES,
    PROTOCOL_VERSION,
    VERDICT_BYTES,
    ConnectorHandshake,
    ListenerHandshake,
    busy_answer,
)
from treadle.comm.interface import Introduction, Role
from treadle.exceptions import AuthenticationError, CommClosedError, PeerProtocolError, VersionError

ME = Introduction(Role.WORKER, b"w" * 16)
ADDRESS = "tcp://10.0.0.3:8786"


def connector(secret: bytes = b"secret") -> ConnectorHandshake:
    return ConnectorHandshake(ADDRESS, ME, secret, b"n" * 32)


def listener(secret: bytes = b"secret") -> ListenerHandshake:
    return ListenerHandshake(b"s" * 16, secret, b"m" * 32)


def test_two_that_share_the_secret_know_each_other_afterwards() -> None:
    near, far = connector(), listener()
    verdict = far.receive(near.receive(far.receive(near.hello)))
    assert (far.needed, far.refusal, far.peer) == (0, None, ME)
    assert near.receive(verdict) == b""
    assert near.needed == 0
    assert near.peer == Introduction(Role.WORKER, b"s" * 16)


def test_the_messages_have_a_fixed_size() -> None:
    near, far = connector(), listener()
    challenge = far.receive(near.hello)
    proof = near.receive(challenge)
    verdict = far.receive(proof)
    assert [len(near.hello), len(challenge), len(proof), len(verdict)] == [GREETING_BYTES, GREETING_BYTES, PROOF_BYTES, VERDICT_BYTES]


def test_a_connector_with_another_secret_is_refused_and_told_the_way_out() -> None:
    near, far = connector(b"other"), listener()
    verdict = far.receive(near.receive(far.receive(near.hello)))
    assert far.needed == 0
    assert far.refusal is not None and "secret" in far.refusal
    with pytest.raises(AuthenticationError, match=r"tcp://10.0.0.3:8786.*TREADLE_SECRET"):
        near.receive(verdict)


def test_a_listener_that_only_pretends_is_found_out() -> None:
    near, far = connector(), listener()
    near.receive(far.receive(near.hello))
    with pytest.raises(AuthenticationError, match="does not know the secret"):
        near.receive(bytes([0]) + bytes(32))


def test_a_listener_cannot_answer_with_the_connectors_own_proof() -> None:
    near, far = connector(), listener()
    proof = near.receive(far.receive(near.hello))
    with pytest.raises(AuthenticationError):
        near.receive(bytes([0]) + proof)


def test_a_proof_holds_for_one_challenge_only() -> None:
    near, far = connector(), listener()
    proof = near.receive(far.receive(near.hello))
    replayed = ListenerHandshake(b"s" * 16, b"secret", b"another nonce of thirty-two byte")
    replayed.receive(near.hello)
    replayed.receive(proof)
    assert replayed.refusal is not None


def test_a_changed_introduction_spoils_the_proof() -> None:
    near, far = connector(), listener()
    hello = bytearray(near.hello)
    hello[11] = Role.CLIENT
    far.receive(near.receive(far.receive(bytes(hello))))
    assert far.refusal is not None


def test_another_version_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    far = listener()
    monkeypatch.setattr(handshake, "PROTOCOL_VERSION", PROTOCOL_VERSION + 7)
    near = connector()
    monkeypatch.undo()
    challenge = far.receive(near.hello)
    assert far.needed == 0
    assert far.refusal == f"it speaks version {PROTOCOL_VERSION + 7} of treadle's protocol, this process speaks {PROTOCOL_VERSION}"
    with pytest.raises(VersionError, match=ADDRESS):
        near.receive(challenge)


def test_a_busy_listener_says_so_and_no_more() -> None:
    with pytest.raises(CommClosedError, match="busy"):
        connector().receive(busy_answer(b"s" * 16))


@pytest.mark.parametrize("talk", [b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n" * 3, b"\x16\x03\x01" + bytes(200)])
def test_other_protocols_get_no_answer(talk: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        listener().receive(talk[:GREETING_BYTES])


def test_an_unknown_role_is_refused() -> None:
    hello = bytearray(connector().hello)
    hello[11] = 99
    with pytest.raises(PeerProtocolError, match="role 99"):
        listener().receive(bytes(hello))


def test_a_hello_is_no_challenge() -> None:
    with pytest.raises(PeerProtocolError):
        connector().receive(connector().hello)


def mangled(data: bytes, position: int, value: int) -> bytes:
    changed = bytearray(data)
    changed[position % len(data)] ^= value
    return bytes(changed)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_a_listener_meets_garbage_with_a_protocol_error_or_a_refusal(messages: list[bytes]) -> None:
    far = listener()
    for message in messages:
        if not far.needed:
            break
        try:
            far.receive(message.ljust(far.needed, b"\0")[: far.needed])
        except PeerProtocolError:
            return
    assert far.needed or far.refusal


@settings(max_examples=300)
@given(stage=st.integers(0, 2), position=st.integers(0, 100), value=st.integers(1, 255))
def test_one_changed_byte_anywhere_ends_the_handshake(stage: int, position: int, value: int) -> None:
    near, far = connector(), listener()
    try:
        hello = near.hello if stage != 0 else mangled(near.hello, position, value)
        challenge = far.receive(hello)
        proof = near.receive(challenge if stage != 1 else mangled(challenge, position, value))
        verdict = far.receive(proof)
        near.receive(verdict if stage != 2 else mangled(verdict, position, value))
    except (PeerProtocolError, CommClosedError):
        return
    pytest.fail("accepted")


@given(st.binary(max_size=100))
def test_a_connector_meets_garbage_with_its_known_errors(message: bytes) -> None:
    near = connector()
    with pytest.raises((PeerProtocolError, CommClosedError)):
        near.receive(message)


def test_lengths_and_secrets_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="secret"):
        connector(b"")
    with pytest.raises(ValueError, match="session"):
        ListenerHandshake(b"short", b"secret", b"m" * 32)
    with pytest.raises(ValueError, match="nonce"):
        ListenerHandshake(b"s" * 16, b"secret", b"m")


def test_the_first_bytes_of_a_greeting_never_change() -> None:
    """Other versions rely on them to tell their own version."""
    assert GREETING_BYTES == 60
    assert connector().hello[:12] == struct.pack("<8sHBB", b"treadle\0", PROTOCOL_VERSION, 1, Role.WORKER)
