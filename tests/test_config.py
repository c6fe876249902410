"""Settings: what holds when keys are missing, what a user hears of what means nothing here, and that every key is read."""

import copy
import logging
import re
from pathlib import Path

import dask.config
import pytest

from treadle import config, unused_settings

SOURCE = Path(config.__file__).parent


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(unused_settings, "_told", set())


@pytest.fixture
def own_config():
    """What the test does to the configuration is undone."""
    before, defaults = copy.deepcopy(dask.config.config), list(dask.config.defaults)
    yield dask.config.config
    dask.config.config.clear()
    dask.config.config.update(before)
    dask.config.defaults[:] = defaults


def all_settings():
    return [
        config.scheduler_settings(),
        config.worker_settings(),
        config.nanny_settings(),
        config.client_settings(),
        config.comm_settings(),
        config.event_loop_kind(),
    ]


def leaves(values, prefix):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_built_in_defaults_hold_whatever_becomes_of_the_configuration(own_config):
    expected = all_settings()
    dask.config.refresh()
    assert all_settings() == expected
    own_config.clear()
    assert all_settings() == expected
    dask.config.defaults.clear()
    dask.config.refresh()
    assert all_settings() == expected
    own_config["distributed"] = {"scheduler": None, "worker": {}, "nanny": "nonsense"}
    assert all_settings() == expected


@pytest.mark.parametrize("key", [key for key in leaves(config.DEFAULTS, "") if "nanny.pre-spawn" not in key])
def test_null_is_a_value_for_every_key(key):
    with dask.config.set({key: None}):
        all_settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("distributed.scheduler.bandwidth", "fast"),
        ("distributed.scheduler.allowed-failures", "some"),
        ("distributed.scheduler.worker-ttl", "soon"),
        ("distributed.scheduler.worker-saturation", 0),
        ("distributed.scheduler.default-task-durations", ["inc"]),
        ("distributed.worker.resources", {"GPU": "many"}),
        ("distributed.worker.memory.terminate", 2),
        ("distributed.worker.memory.transfer", 0),
        ("distributed.comm.timeouts.connect", "never"),
        ("distributed.client.heartbeat", object()),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_that_names_the_key(key, value):
    with dask.config.set({key: value}), pytest.raises(ValueError, match=re.escape(key)):
        all_settings()


def test_every_key_of_the_defaults_is_read_somewhere():
    """Else it is accepted and ignored."""
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    unread = {re.sub(r"(pre-spawn-environ)\..*", r"\1", key) for key in leaves(config.DEFAULTS, "")}
    assert {key for key in unread if f'"{key}"' not in text} == set()


def test_no_key_is_both_read_and_listed_as_unused():
    assert not set(leaves(config.DEFAULTS, "")) & set(leaves(unused_settings.UNUSED, ""))


def told(caplog):
    with caplog.at_level(logging.WARNING, "treadle"):
        unused_settings.tell_unused_settings()
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_a_setting_without_meaning_is_told_once_in_one_line(caplog, untold):
    assert told(caplog) == []
    with dask.config.set({"distributed.worker.memory.spill": 0.5, "distributed.worker.multiprocessing-method": "fork"}):
        (line,) = told(caplog)
        assert "distributed.worker.memory.spill: 0.5" in line and "multiprocessing-method: 'fork'" in line
        assert told(caplog) == []
    with dask.config.set({"distributed.worker.memory.spill": 0.6, "treadle.scheduler.no-such-key": 1}):
        (line,) = told(caplog)
        assert "spill: 0.6" in line and "no-such-key" in line and "fork" not in line


@pytest.mark.parametrize(
    "values",
    [
        unused_settings.UNUSED,
        {"distributed": {"worker": {"memory": {"max_spill": False}}}},
        {"distributed": {"worker": {"resources": {"GPU": 2}}, "nanny": {"environ": {"MY_VAR": 1}, "pre-spawn-environ": {"X_Y": 2}}}},
        {"distributed": {"admin": {"event-loop": "tornado"}}},
        {"distributed": {"admin": {"event-loop": "uvloop"}}},
        {"jobqueue": {"slurm": {"cores": 1}}},
    ],
)
def test_defaults_of_others_and_what_is_read_are_not_worth_a_line(caplog, untold, own_config, values):
    dask.config.update(own_config, values)
    assert told(caplog) == []


def test_defaults_that_a_package_brings_are_not_the_users(caplog, untold, own_config):
    dask.config.update_defaults({"distributed": {"worker": {"memory": {"spill": 0.77}}, "of-a-plugin": {"a": 1}}})
    assert told(caplog) == []


def test_who_asks_for_encryption_is_told_that_there_is_none(caplog, untold):
    with dask.config.set({"distributed.comm.require-encryption": True}):
        assert any("NOTHING IS ENCRYPTED" in line for line in told(caplog))


def test_an_unknown_event_loop_is_told(caplog, untold):
    with dask.config.set({"distributed.admin.event-loop": "trio"}):
        assert config.event_loop_kind() == "asyncio"
        (line,) = told(caplog)
        assert "event-loop: 'trio'" in line
