"""The cluster's secret: how users pass it, where it is kept, where it is looked for."""

from __future__ import annotations

import os
import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from treadle.config import SecretSettings
from treadle.exceptions import AuthenticationError
from treadle.utils.private import create_private, make_directories

_TLS_ARGUMENTS: Final = frozenset(
    [
        "tls_ca_file",
        "tls_ciphers",
        "tls_min_version",
        "tls_max_version",
        "tls_client_cert",
        "tls_client_key",
        "tls_scheduler_cert",
        "tls_scheduler_key",
        "tls_worker_cert",
        "tls_worker_key",
        "extra_conn_args",
    ]
)


@dataclass(frozen=True)
class Secret:
    """The secret that the parties of a cluster share, and where it was found (for error messages)."""

    value: bytes = field(repr=False)
    source: str


def create_secret() -> str:
    """A new random secret, 64 hexadecimal digits."""
    return secrets.token_hex(32)


class Security:
    """How the parties of a cluster authenticate each other: by ``secret``, or by the one in ``secret_file``.

    With neither, the secret is looked for in the places that ``find_secret`` lists. Whoever knows the secret can run code
    in the cluster, and a short one can be guessed: ``Security.temporary()`` makes a good one. Connections are authenticated
    but not encrypted: TLS is not available yet, and asking for it raises NotImplementedError.
    """

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        secret_file: str | os.PathLike[str] | None = None,
        require_encryption: bool | None = None,
        **tls: Any,
    ) -> None:
        unknown = sorted(set(tls) - _TLS_ARGUMENTS)
        if unknown:
            raise TypeError(f"unknown argument of Security: {', '.join(unknown)}")
        asked = sorted(name for name, value in tls.items() if value)
        if require_encryption:
            asked.append("require_encryption=True")
        if asked:
            raise NotImplementedError(f"treadle does not encrypt connections yet; Security does not take {', '.join(asked)}")
        if secret is not None and secret_file is not None:
            raise ValueError("give secret or secret_file, not both")
        self.secret: bytes | None = None if secret is None else _clean(secret, "Security(secret=...)")
        self.secret_file: Path | None = None if secret_file is None else Path(secret_file).expanduser()
        self.require_encryption = False

    @classmethod
    def temporary(cls) -> Security:
        """A ``Security`` with a new random secret that nobody else knows; for a cluster that lives and dies with this process."""
        return cls(secret=create_secret())

    def __repr__(self) -> str:
        if self.secret is not None:
            return "Security(secret=<hidden>)"
        return "Security()" if self.secret_file is None else f"Security(secret_file={str(self.secret_file)!r})"


def _clean(text: str | bytes, source: str) -> bytes:
    value = text.encode() if isinstance(text, str) else bytes(text)
    value = value.strip()
    if not value:
        raise ValueError(f"the secret in {source} is empty")
    return value


def find_secret(security: Security | None, settings: SecretSettings, scheduler_file_secret: str | None = None) -> Secret:
    """The first secret found in: ``security``, the scheduler file, TREADLE_SECRET, the config, the secret file.

    Raises AuthenticationError that names all of these places when none has a secret, PermissionError for a file that others
    can read, FileNotFoundError when the ``secret_file`` of ``security`` does not exist.
    """
    if security is not None and security.secret is not None:
        return Secret(security.secret, "Security(secret=...)")
    if security is not None and security.secret_file is not None:
        return _read(security.secret_file)
    places = (
        (scheduler_file_secret, "the scheduler file"),
        (settings.environment, "the environment variable TREADLE_SECRET"),
        (settings.config, "the config key treadle.security.secret"),
    )
    for text, source in places:
        if text:
            return Secret(_clean(text, source), source)
    try:
        return _read(settings.file)
    except FileNotFoundError:
        looked = "; ".join(["Security(secret=..., secret_file=...)", *(source for _, source in places), str(settings.file)])
        raise AuthenticationError(
            f"no secret found to authenticate with. Looked, in this order, at: {looked}. "
            f"Either set TREADLE_SECRET to the scheduler's secret (it is in the scheduler's secret file), or copy that file here"
        ) from None


def ensure_secret_file(path: Path) -> Secret:
    """The secret in the file ``path``. A missing file is created with a new secret, readable by its owner only.

    Raises PermissionError for a file that others can read.
    """
    path = path.expanduser()
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    make_directories(path.parent)
    # Written under another name and linked into place: of several processes that do so at once one wins, and all read a whole secret.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write_new(draft)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            try:
                _write_new(path)
            except FileExistsError:
                pass
    finally:
        draft.unlink(missing_ok=True)
    return _read(path)


def _write_new(path: Path) -> None:
    with open(create_private(path), "w") as file:
        file.write(create_secret() + "\n")


def _read(path: Path) -> Secret:
    source = f"the file {path}"
    deadline = time.monotonic() + 1.0
    while True:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise PermissionError(f"others can read the secret in {path} (mode {mode:04o}); run: chmod 600 {path}")
            data = file.read()
        if data.strip() or time.monotonic() > deadline:
            return Secret(_clean(data, source), source)
        time.sleep(0.01)  # empty: on a file system without links, another process may be about to write the secret
