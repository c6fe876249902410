"""What is made private is for its owner alone, whatever was there before."""

import logging
import os
import stat

import pytest

from treadle.utils.private import create_private, make_private, make_private_directory, make_scratch_directory

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def generous_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_each_directory_that_is_made_is_private(tmp_path):
    os.chmod(tmp_path, 0o755)
    make_private_directory(tmp_path / "a" / "b")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o700
    assert mode_of(tmp_path) == 0o755
    make_private_directory(tmp_path / "a" / "b")


def test_a_directory_that_is_open_to_others_is_closed_and_the_log_says_so(tmp_path, caplog):
    path = tmp_path / "open"
    path.mkdir(mode=0o2775)
    with caplog.at_level(logging.WARNING):
        make_private_directory(path)
    assert mode_of(path) & 0o777 == 0o700
    assert str(path) in caplog.text
    assert "775" in caplog.text


def test_a_directory_of_somebody_else_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to .* a new one inside it"):
        make_private_directory(tmp_path)


def test_a_file_in_place_of_a_directory_is_an_error_and_stays_as_it_is(tmp_path):
    path = tmp_path / "file"
    os.close(os.open(path, os.O_CREAT, 0o644))
    for there in (path, path / "journal"):
        with pytest.raises(OSError, match="file"):
            make_private_directory(there)
    assert mode_of(path) == 0o644


def test_a_file_that_is_created_is_private_and_new(tmp_path):
    path = tmp_path / "file"
    os.close(create_private(path))
    assert mode_of(path) == 0o600
    with pytest.raises(FileExistsError):
        create_private(path)


def test_a_file_that_is_there_is_closed_to_others_unless_it_is_theirs(tmp_path, monkeypatch):
    path = tmp_path / "file"
    os.close(os.open(path, os.O_CREAT, 0o664))
    make_private(path)
    assert mode_of(path) == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to"):
        make_private(path)


@pytest.mark.parametrize("base", [None, "base"])
def test_a_scratch_directory_is_private_wherever_it_is(tmp_path, base):
    path = make_scratch_directory(base and tmp_path / base)
    assert mode_of(path) == 0o700
    path.rmdir()
