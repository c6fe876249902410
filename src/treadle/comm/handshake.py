"""Version and mutual authentication before anything else is read. No I/O, no clock, no randomness.

    connector -> Hello      magic, version, kind, role, session, nonce
    listener  -> Challenge  magic, version, kind, status, session, nonce    (or a refusal: the status says why)
    connector -> Proof      HMAC-SHA256(secret, "connector" + all bytes so far)
    listener  -> Verdict    status, HMAC-SHA256(secret, "listener" + all bytes so far)

All four have a fixed size. The size and the layout of Hello and Challenge are the same in every version of the
protocol, so that two versions can tell each other who they are. A refusal carries a status and nothing else, because its
sender has proved nothing yet.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import IntEnum
from typing import Final

from treadle.comm.interface import Introduction, Role
from treadle.exceptions import AuthenticationError, CommClosedError, PeerProtocolError, VersionError

#: Increased by one with every change that an older party would misunderstand.
PROTOCOL_VERSION: Final = 1
NONCE_BYTES: Final = 32
SESSION_BYTES: Final = 16

_MAGIC: Final = b"treadle\x00"
#: magic, version, kind (1 Hello, 2 Challenge), role or status, session, nonce
_GREETING: Final = struct.Struct(f"<8sHBB{SESSION_BYTES}s{NONCE_BYTES}s")
GREETING_BYTES: Final = _GREETING.size
PROOF_BYTES: Final = hashlib.sha256().digest_size
VERDICT_BYTES: Final = 1 + PROOF_BYTES
_HELLO: Final = 1
_CHALLENGE: Final = 2

SECRET_ADVICE: Final = "Both need the same one: set TREADLE_SECRET in both environments, or share the secret file or the scheduler file"


class Status(IntEnum):
    """The listener's answer to a connection attempt."""

    OK = 0
    WRONG_SECRET = 1
    WRONG_VERSION = 2
    BUSY = 3


def busy_answer(session: bytes) -> bytes:
    """What a listener sends at once when too many connections are in their handshake."""
    return _GREETING.pack(_MAGIC, PROTOCOL_VERSION, _CHALLENGE, Status.BUSY, session, bytes(NONCE_BYTES))


def _check_lengths(session: bytes, nonce: bytes, secret: bytes) -> None:
    if len(session) != SESSION_BYTES:
        raise ValueError(f"a session id has {SESSION_BYTES} bytes, not {len(session)}")
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    if not secret:
        raise ValueError("the secret must not be empty")


class ConnectorHandshake:
    """The connecting side. Send ``hello``; then, until ``needed`` is 0, read exactly ``needed`` bytes, give them to ``receive`` and
    send its answer."""

    def __init__(self, address: str, introduction: Introduction, secret: bytes, nonce: bytes) -> None:
        _check_lengths(introduction.session, nonce, secret)
        self._address = address
        self._role = introduction.role
        self._secret = secret
        self.hello = _GREETING.pack(_MAGIC, PROTOCOL_VERSION, _HELLO, introduction.role, introduction.session, nonce)
        self._transcript = self.hello
        self._session = b""
        #: How many bytes to read next; 0 when the listener has authenticated itself.
        self.needed = GREETING_BYTES

    @property
    def peer(self) -> Introduction:
        """The listener's session with our own role; valid when ``needed`` is 0."""
        return Introduction(self._role, self._session)

    def receive(self, data: bytes) -> bytes:
        """The bytes to answer with. Raises AuthenticationError or VersionError, CommClosedError when the listener is busy,
        PeerProtocolError when it speaks another protocol."""
        if len(data) != self.needed or not data:
            raise PeerProtocolError(f"{len(data)} bytes in a handshake where {self.needed} were due")
        return self._on_challenge(data) if self.needed == GREETING_BYTES else self._on_verdict(data)

    def _on_challenge(self, data: bytes) -> bytes:
        magic, version, kind, status, session, _ = _GREETING.unpack(data)
        if magic != _MAGIC or kind != _CHALLENGE:
            raise PeerProtocolError(f"{self._address} does not speak treadle's protocol; does the port belong to another service?")
        if status == Status.WRONG_VERSION or version != PROTOCOL_VERSION:
            raise VersionError(
                f"{self._address} speaks version {version} of treadle's protocol, this process speaks {PROTOCOL_VERSION}. "
                f"Install the same version of treadle on both sides"
            )
        if status == Status.BUSY:
            raise CommClosedError(f"{self._address} is busy: too many connections at once")
        if status != Status.OK:
            raise PeerProtocolError(f"{self._address} refused with the unknown status {status}")
        self._session = session
        self._transcript += data
        self.needed = VERDICT_BYTES
        proof = _mac(self._secret, b"connector", self._transcript)
        self._transcript += proof
        return proof

    def _on_verdict(self, data: bytes) -> bytes:
        status, proof = data[0], data[1:]
        if status == Status.WRONG_SECRET:
            raise AuthenticationError(f"{self._address} refused: its secret is not the one that this process has. {SECRET_ADVICE}")
        if status != Status.OK:
            raise PeerProtocolError(f"{self._address} refused with the unknown status {status}")
        if not hmac.compare_digest(proof, _mac(self._secret, b"listener", self._transcript + data[:1])):
            raise AuthenticationError(f"{self._address} does not know the secret that this process has. {SECRET_ADVICE}")
        self.needed = 0
        return b""


class ListenerHandshake:
    """The listening side. Until ``needed`` is 0, read exactly ``needed`` bytes, give them to ``receive`` and send its answer.

    Then either ``refusal`` is None and ``peer`` is authenticated, or ``refusal`` says why to disconnect.
    """

    def __init__(self, session: bytes, secret: bytes, nonce: bytes) -> None:
        _check_lengths(session, nonce, secret)
        self._session = session
        self._secret = secret
        self._nonce = nonce
        self._transcript = b""
        self._peer: Introduction | None = None
        self.needed = GREETING_BYTES
        self.refusal: str | None = None

    @property
    def peer(self) -> Introduction:
        """Who connects; valid when ``needed`` is 0 and there is no ``refusal``."""
        assert self._peer is not None
        return self._peer

    def receive(self, data: bytes) -> bytes:
        """The bytes to answer with. Raises PeerProtocolError when the other side is no treadle: disconnect without an answer."""
        if len(data) != self.needed or not data:
            raise PeerProtocolError(f"{len(data)} bytes in a handshake where {self.needed} were due")
        return self._on_hello(data) if self.needed == GREETING_BYTES else self._on_proof(data)

    def _on_hello(self, data: bytes) -> bytes:
        magic, version, kind, role, session, _ = _GREETING.unpack(data)
        if magic != _MAGIC or kind != _HELLO:
            raise PeerProtocolError("it does not speak treadle's protocol")
        status = Status.OK
        if version != PROTOCOL_VERSION:
            status = Status.WRONG_VERSION
            self.refusal = f"it speaks version {version} of treadle's protocol, this process speaks {PROTOCOL_VERSION}"
        elif role not in Role._value2member_map_:
            raise PeerProtocolError(f"it introduced itself with the unknown role {role}")
        else:
            self._peer = Introduction(Role(role), session)
        challenge = _GREETING.pack(_MAGIC, PROTOCOL_VERSION, _CHALLENGE, status, self._session, self._nonce)
        self._transcript = data + challenge
        self.needed = PROOF_BYTES if self.refusal is None else 0
        return challenge

    def _on_proof(self, data: bytes) -> bytes:
        self.needed = 0
        if not hmac.compare_digest(data, _mac(self._secret, b"connector", self._transcript)):
            self.refusal = "it does not know the cluster's secret"
            return bytes([Status.WRONG_SECRET]) + bytes(PROOF_BYTES)
        status = bytes([Status.OK])
        return status + _mac(self._secret, b"listener", self._transcript + data + status)


def _mac(secret: bytes, side: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, side + transcript, "sha256")
