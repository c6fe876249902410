"""What the configuration says of logging, and what a worker process is told of it."""

import logging

import pytest

from treadle.utils import logs

FORMAT = "%(levelname)s %(message)s"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Every logger that a test touches gets its state back."""
    monkeypatch.setattr(logs, "_configured", None)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    for name in ("treadle", "treadle.worker", "distributed.worker", "mylib"):
        logger = logging.getLogger(name)
        for attribute in ("level", "propagate", "disabled"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
        monkeypatch.setattr(logger, "handlers", [])
    yield
    logging.Logger.manager._clear_cache()


def test_levels_by_logger_hold_for_our_names_too():
    logs.configure_logging({"mylib": "info", "distributed.worker": 10}, None, FORMAT)
    assert logging.getLogger("mylib").level == logging.INFO
    assert logging.getLogger("treadle.worker").level == logging.DEBUG
    assert logging.getLogger("mylib").handlers[0].formatter._fmt == FORMAT
    logs.configure_logging({"mylib": "info", "distributed.worker": 10}, None, FORMAT)
    assert len(logging.getLogger("mylib").handlers) == 1


def test_a_map_for_dict_config(tmp_path):
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "log")}}
    loggers = {"distributed": {"level": "DEBUG", "handlers": ["file"]}}
    logs.configure_logging({"version": 1, "handlers": handlers, "loggers": loggers}, None, FORMAT)
    logging.getLogger("treadle.worker").debug("hello")
    logging.getLogger("treadle").handlers[0].close()
    assert (tmp_path / "log").read_text() == "hello\n"
    assert not logging.getLogger("mylib").disabled


def test_a_file_for_file_config(tmp_path):
    file = tmp_path / "logging.ini"
    file.write_text(
        "[loggers]\nkeys=root,mylib\n[handlers]\nkeys=\n[formatters]\nkeys=\n"
        "[logger_root]\nhandlers=\n[logger_mylib]\nlevel=ERROR\nqualname=mylib\nhandlers=\n"
    )
    logs.configure_logging(None, str(file), FORMAT)
    assert logging.getLogger("mylib").level == logging.ERROR


@pytest.mark.parametrize(
    ("loggers", "file", "text"),
    [
        ({"mylib": "loud"}, None, "'loud' is no level"),
        ("info", None, "a map is wanted"),
        ({"version": 1, "loggers": {"mylib": {"level": "loud"}}}, None, "logging in the configuration"),
        (None, "/no/such/file", "logging-file-config"),
        ({}, "file", "both"),
    ],
)
def test_what_makes_no_sense_is_named(loggers, file, text):
    with pytest.raises(ValueError, match=text):
        logs.configure_logging(loggers, file, FORMAT)


def test_another_process_follows():
    root = logging.getLogger()
    root.handlers.clear()
    logging.getLogger("mylib").setLevel(5)
    state = logs.log_state(FORMAT)
    assert state.format is None and state.levels["mylib"] == 5
    logging.basicConfig(level=logging.INFO, format="HERE %(message)s")
    state = logs.log_state(FORMAT)
    assert (state.format, state.levels[""]) == ("HERE %(message)s", logging.INFO)
    root.handlers.clear()
    root.setLevel(logging.ERROR)
    logging.getLogger("mylib").setLevel(0)
    logs.follow_log_state(state)
    assert root.level == logging.INFO and logging.getLogger("mylib").level == 5
    assert root.handlers[0].formatter._fmt == "HERE %(message)s"


def test_a_formatter_that_is_not_plain_stays_where_it_is():
    root = logging.getLogger()
    root.handlers[:] = [logging.StreamHandler()]
    root.handlers[0].setFormatter(logging.Formatter("{message}", style="{"))
    assert logs.log_state(FORMAT).format == FORMAT
