from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest

from treadle.comm.security import Secret, Security, create_secret, ensure_secret_file, find_secret
from treadle.config import SecretSettings
from treadle.exceptions import AuthenticationError


def settings(tmp_path: Path, environment: str | None = None, config: str | None = None) -> SecretSettings:
    return SecretSettings(environment, config, tmp_path / "config" / "treadle" / "secret")


def test_new_secrets_are_long_and_differ() -> None:
    assert len(create_secret()) == 64
    assert create_secret() != create_secret()


def test_a_secret_is_never_shown() -> None:
    security = Security(secret="pssst")
    for shown in (repr(security), str(security), repr(Secret(b"pssst", "here"))):
        assert "pssst" not in shown


def test_security_travels() -> None:
    assert pickle.loads(pickle.dumps(Security(secret="pssst"))).secret == b"pssst"


def test_a_temporary_one_is_random() -> None:
    assert Security.temporary().secret != Security.temporary().secret


def test_encryption_is_refused_clearly_and_typos_too() -> None:
    for arguments in ({"tls_ca_file": "x.pem"}, {"require_encryption": True}, {"tls_client_cert": "a", "tls_client_key": "b"}):
        with pytest.raises(NotImplementedError, match="encrypt"):
            Security(**arguments)  # type: ignore[arg-type]
    Security(tls_ca_file=None, require_encryption=False)
    with pytest.raises(TypeError, match="tls_ca_flie"):
        Security(tls_ca_flie="x.pem")
    with pytest.raises(ValueError, match="not both"):
        Security(secret="a", secret_file="b")
    with pytest.raises(ValueError, match="empty"):
        Security(secret="  ")


def test_the_secret_is_looked_for_in_order(tmp_path: Path) -> None:
    where = settings(tmp_path, "from environment", "from config")
    ensure_secret_file(where.file)
    named = tmp_path / "named"
    ensure_secret_file(named)
    assert find_secret(Security(secret="given"), where, "from scheduler file").value == b"given"
    assert find_secret(Security(secret_file=named), where, "from scheduler file").value == named.read_bytes().strip()
    assert find_secret(Security(), where, "from scheduler file").value == b"from scheduler file"
    assert find_secret(None, where).value == b"from environment"
    assert find_secret(None, settings(tmp_path, None, "from config")).value == b"from config"
    found = find_secret(None, settings(tmp_path))
    assert found.value == where.file.read_bytes().strip()
    assert str(where.file) in found.source


def test_no_secret_anywhere_names_the_places_and_the_way_out(tmp_path: Path) -> None:
    where = settings(tmp_path)
    with pytest.raises(AuthenticationError, match="set TREADLE_SECRET") as caught:
        find_secret(None, where)
    for place in ("Security(", "scheduler file", "TREADLE_SECRET", "treadle.security.secret", str(where.file)):
        assert place in str(caught.value)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_secret(Security(secret_file=tmp_path / "nothing"), settings(tmp_path, "environment"))


def test_the_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "secret"
    first = ensure_secret_file(path)
    assert ensure_secret_file(path) == first
    assert len(first.value) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["secret"]


def test_all_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    barrier = threading.Barrier(8)
    found: list[Secret] = []

    def make() -> None:
        barrier.wait()
        found.append(ensure_secret_file(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_without_hard_links_it_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "secret"
    assert ensure_secret_file(path) == ensure_secret_file(path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    ensure_secret_file(path)
    path.chmod(0o640)
    for look in (lambda: ensure_secret_file(path), lambda: find_secret(Security(secret_file=path), settings(tmp_path))):
        with pytest.raises(PermissionError, match=f"chmod 600 {path}"):
            look()
