"""The scheduler file is whole, private, and removed only by its owner."""

import asyncio
import stat

import pytest

from treadle.utils.scheduler_file import (
    SchedulerFile,
    read_scheduler_file,
    remove_scheduler_file,
    wait_for_scheduler_file,
    write_scheduler_file,
)


def test_what_was_written_is_read_and_only_by_the_owner(tmp_path):
    path = tmp_path / "scheduler.json"
    content = SchedulerFile("tcp://127.0.0.1:8786", "scheduler-1", "aa" * 32)
    write_scheduler_file(path, content)
    write_scheduler_file(path, content)
    assert read_scheduler_file(path) == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["scheduler.json"]
    assert content.secret not in repr(content)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": 1}', '{"address": "a", "secret": 2}', "\x00"])
def test_what_is_no_scheduler_file_is_a_value_error_that_names_it(tmp_path, text):
    path = tmp_path / "scheduler.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"scheduler\.json is not a scheduler file"):
        read_scheduler_file(path)


def test_it_is_removed_only_by_its_scheduler(tmp_path):
    path = tmp_path / "scheduler.json"
    write_scheduler_file(path, SchedulerFile("tcp://127.0.0.1:1", "two"))
    remove_scheduler_file(path, "one")
    assert path.exists()
    remove_scheduler_file(path, "two")
    assert not path.exists()
    remove_scheduler_file(path, "two")


def test_waiting_ends_when_it_is_there_or_with_a_timeout(tmp_path):
    path = tmp_path / "scheduler.json"
    content = SchedulerFile("tcp://127.0.0.1:1", "one")

    async def scene():
        waiting = asyncio.ensure_future(wait_for_scheduler_file(path, 30))
        await asyncio.sleep(0)
        write_scheduler_file(path, content)
        assert await waiting == content
        with pytest.raises(TimeoutError, match="missing"):
            await wait_for_scheduler_file(tmp_path / "missing", 0)

    asyncio.run(scene())
