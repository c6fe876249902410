"""A journal cut anywhere is a prefix; a journal damaged anywhere is noticed."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.exceptions import JournalError
from treadle.journal.compaction import write_snapshot
from treadle.journal.directory import Directory
from treadle.journal.format import VERSION, Header, pack_header, pack_record, unpack_header
from treadle.journal.reader import Segment
from treadle.journal.writer import Writer

MARKER = 0x1234ABCD
Records = list[tuple[bytes, list[bytes]]]
some_records = st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.lists(st.binary(max_size=20), max_size=3)), max_size=8)


def a_segment(records: Records, snapshot: bool = False, synced: bool = True) -> bytes:
    """As written when every record was synced before the next one, or none was."""
    data = pack_header(Header("S", 1, MARKER, snapshot, "0"))
    for body, buffers in records:
        data += b"".join(pack_record(MARKER, len(data) if synced else 0, body, buffers))
    return data


def read(path: Path, last: bool = True) -> Records:
    return [(bytes(record.body), [bytes(buffer) for buffer in record.buffers]) for record in Segment(path).records(last)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segment") / "0000000001.journal"


@settings(deadline=None)
@given(records=some_records)
def test_what_is_written_is_read(path: Path, records: Records) -> None:
    path.write_bytes(a_segment(records))
    assert read(path) == records
    assert read(path, last=False) == records


@settings(deadline=None)
@given(records=some_records, data=st.data())
def test_cut_anywhere_it_is_a_prefix(path: Path, records: Records, data: st.DataObject) -> None:
    whole = a_segment(records)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    segment = Segment(path)
    found = [(bytes(record.body), [bytes(buffer) for buffer in record.buffers]) for record in segment.records(True)]
    assert found == records[: len(found)]
    if segment.header is not None:
        assert len(a_segment(found)) == segment.good_bytes <= cut
        assert cut < len(whole) or found == records


@settings(deadline=None)
@given(records=some_records, data=st.data())
def test_a_flipped_bit_is_noticed(path: Path, records: Records, data: st.DataObject) -> None:
    damaged = bytearray(a_segment(records))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    with_error = False
    found: Records = []
    try:
        found = read(path)
    except JournalError as error:
        with_error = True
        assert str(path) in str(error)
    # In the last record it cannot be told from a torn tail.
    assert with_error or found == records[:-1]
    if len(records) > 1 and place < len(a_segment(records[:-1])):
        assert with_error


@settings(deadline=None)
@given(records=some_records.filter(bool), data=st.data())
def test_in_what_was_never_synced_damage_is_a_torn_tail(path: Path, records: Records, data: st.DataObject) -> None:
    damaged = bytearray(a_segment(records, synced=False))
    place = data.draw(st.integers(len(a_segment([])), len(damaged) - 1))
    damaged[place] ^= 1
    path.write_bytes(damaged)
    found = read(path)
    assert found == records[: len(found)]
    assert len(found) < len(records)


def test_no_bit_of_a_header_may_be_flipped(path: Path) -> None:
    whole = a_segment([(b"a", []), (b"b", [])])
    for place in range(len(a_segment([]))):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(JournalError):
                read(path)


def test_segments_before_the_last_must_be_whole(path: Path) -> None:
    path.write_bytes(a_segment([(b"a", []), (b"b", [])])[:-1])
    with pytest.raises(JournalError, match="damaged at byte"):
        read(path, last=False)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"something else", "not a segment"),
        (pack_header(Header("S", 1, 1, False, "0")).replace(VERSION.to_bytes(4, "little"), b"\x63\0\0\0", 1), "of version 99"),
        (pack_header(Header("S", 1, 1, False, "0"))[:-1] + b"?", "header .* is damaged"),
    ],
)
def test_other_files_are_refused_by_name(path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError, match=text) as caught:
        Segment(path)
    assert str(path) in str(caught.value)


def test_a_header_cut_off_is_no_error() -> None:
    whole = pack_header(Header("S", 1, 1, False, "0"))
    for length in range(len(whole)):
        assert unpack_header(whole[:length], "x") is None


class Appending:
    """A writer on a loop, and what it told."""

    def __init__(self, directory: Directory, number: int = 1) -> None:
        self.durable = 0
        self.failures: list[str | None] = []
        self.changed = asyncio.Event()
        self.writer = Writer(
            directory,
            number,
            scheduler_id="S",
            epoch=1,
            release="0",
            call_soon=asyncio.get_running_loop().call_soon_threadsafe,
            on_durable=self._on_durable,
            on_failure=self._on_failure,
        )

    def _on_durable(self, count: int) -> None:
        self.durable = count
        self.changed.set()

    def _on_failure(self, text: str | None) -> None:
        self.failures.append(text)
        self.changed.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def test_a_turn_is_durable_when_it_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        directory = Directory(tmp_path)
        appending = Appending(directory)
        for number in range(100):
            appending.writer.append(b"%d" % number, [b"x" * number] if number % 3 else [])
            if number % 10 == 9:
                appending.writer.commit()
                await appending.until(lambda: appending.durable == appending.writer.appended)
                assert [int(body) for body, _ in read(directory.path_of(1))] == list(range(number + 1))
        appending.writer.close()
        directory.close()

    asyncio.run(scene())


def test_rotation_and_snapshot_take_over(tmp_path: Path) -> None:
    async def scene() -> None:
        directory = Directory(tmp_path)
        appending = Appending(directory)
        rotated = asyncio.Event()
        appending.writer.append(b"old")
        appending.writer.rotate(3, rotated.set)
        appending.writer.append(b"new")
        appending.writer.commit()
        await asyncio.wait_for(rotated.wait(), 30)
        assert directory.numbers() == [1, 3]
        write_snapshot(directory, 2, Header("S", 1, 7, True, "0"), [(b"all that was old", [])])
        appending.writer.close()
        directory.tidy()
        assert directory.numbers() == [2, 3]
        found = [bytes(record.body) for number, segment in directory.segments() for record in segment.records(number == 3)]
        assert found == [b"all that was old", b"new"]
        directory.close()

    asyncio.run(scene())


def test_a_snapshot_that_is_cut_is_an_error(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    write_snapshot(directory, 1, Header("S", 1, MARKER, True, "0"), [(b"a", []), (b"b", [])])
    path = directory.path_of(1)
    assert read(path) == [(b"a", []), (b"b", [])]
    whole = path.read_bytes()
    first = len(a_segment([], snapshot=True))
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(JournalError, match="damaged"):
            read(path)


def test_two_cannot_have_one_directory(tmp_path: Path) -> None:
    first = Directory(tmp_path)
    with pytest.raises(JournalError, match=f"in use by another scheduler .process {os.getpid()}"):
        Directory(tmp_path)
    first.close()
    Directory(tmp_path).close()


def test_a_directory_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="cannot be used"):
        Directory(tmp_path / "file" / "journal")


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.journal.writer.RETRY_S", 0.01)
    real = os.write
    full = True

    def write(file: int, data: Any) -> int:
        if full:
            if len(data) > 40:
                return real(file, data[:40])
            raise OSError(28, "No space left on device")
        return real(file, data)

    async def scene() -> None:
        nonlocal full
        directory = Directory(tmp_path)
        full = False
        appending = Appending(directory)
        appending.writer.append(b"before")
        appending.writer.commit()
        await appending.until(lambda: appending.durable == 1)
        full = True
        monkeypatch.setattr(os, "write", write)
        appending.writer.append(b"while it was full" * 10)
        appending.writer.commit()
        await appending.until(lambda: appending.failures)
        assert appending.failures == ["No space left on device"]
        assert appending.writer.failure is not None
        assert appending.durable == 1
        full = False
        await appending.until(lambda: appending.durable == 2)
        assert appending.failures == ["No space left on device", None]
        assert read(directory.path_of(1)) == [(b"before", []), (b"while it was full" * 10, [])]
        appending.writer.close()
        directory.close()

    asyncio.run(scene())


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")
def test_a_journal_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    path = tmp_path / "new" / "journal"

    def modes() -> set[int]:
        return {stat.S_IMODE(each.stat().st_mode) for each in path.iterdir()} | {stat.S_IMODE(path.stat().st_mode) & 0o677}

    try:
        directory = Directory(path)
        written = Writer(
            directory,
            1,
            scheduler_id="S",
            epoch=1,
            release="0",
            call_soon=lambda callback: None,
            on_durable=lambda count: None,
            on_failure=lambda reason: None,
        )
        written.append(b"one")
        written.close()
        write_snapshot(directory, 2, Header("S", 1, 1, True, "0"), [(b"one", [])])
        directory.close()
        assert {each.suffix for each in path.iterdir()} == {".journal", ""}
        assert modes() == {0o600}
        # One that others may read is closed to them.
        path.chmod(0o755)
        for each in path.iterdir():
            each.chmod(0o644)
        (path / "lost+found").mkdir(mode=0o600)
        Directory(path).close()
        assert modes() == {0o600}
    finally:
        os.umask(before)
    # One that is somebody else's is not used, and neither is what somebody else has put there.
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(JournalError, match=r"journal belongs to .* name another directory"):
        Directory(path)
