"""Set up logging as the configuration asks for it, and in worker processes as in the process that starts them.

``logging`` (or ``distributed.logging``) in dask's configuration is a map of levels by logger, or the map that
``logging.config.dictConfig`` takes; ``logging-file-config`` is a file for ``logging.config.fileConfig``. Settings for
dask.distributed's loggers hold for those of treadle, too.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_THEIRS: Final = "distributed"
_OURS: Final = "treadle"


@dataclass(frozen=True)
class LogState:
    """The logging of a process, for another process that is to log the same."""

    #: The level of each logger that has one of its own; the root logger's name is empty.
    levels: dict[str, int]
    #: The format of the root logger's handler; None if it has no handler.
    format: str | None
    date_format: str | None = None


def log_state(default_format: str) -> LogState:
    """The logging of this process."""
    root = logging.getLogger()
    levels = {"": root.level}
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    if not root.handlers:
        return LogState(levels, None)
    formatter = root.handlers[0].formatter
    # The format of another style or class of formatter would mean something else in the other process.
    if type(formatter) is not logging.Formatter or type(formatter._style) is not logging.PercentStyle:
        return LogState(levels, default_format)
    return LogState(levels, formatter._fmt, formatter.datefmt)


def follow_log_state(state: LogState) -> None:
    """Log to stderr what the process of ``state`` logs."""
    if state.format is not None:
        logging.basicConfig(level=state.levels[""], format=state.format, datefmt=state.date_format)
    for name, level in state.levels.items():
        logging.getLogger(name).setLevel(level)


_configured: Any = None


def configure_logging(loggers: Any, file: Any, log_format: str) -> None:
    """Set up logging as the configuration asks; again only when the configuration has changed. Raises ValueError for an invalid one."""
    global _configured
    if (loggers is None and file is None) or _configured == (wanted := repr((loggers, file, log_format))):
        return
    if loggers is not None and file is not None:
        raise ValueError("the configuration has both logging and logging-file-config: leave one of them out")
    try:
        if file is not None:
            logging.config.fileConfig(file, disable_existing_loggers=False)
        elif not isinstance(loggers, Mapping):
            raise TypeError(f"a map is wanted, got {loggers!r}")
        elif "version" in loggers:
            logging.config.dictConfig(_for_ours({"disable_existing_loggers": False, **loggers}))
        else:
            _set_levels(loggers, log_format)
    except (TypeError, ValueError, KeyError, OSError) as error:
        where = "logging" if file is None else "logging-file-config"
        raise ValueError(f"{where} in the configuration makes no sense: {error}") from error
    _configured = wanted


def _set_levels(levels: Mapping[str, Any], log_format: str) -> None:
    """Each of these loggers gets a level and logs to stderr."""
    checked = {name: _level(level) for name, level in _with_ours(levels).items()}
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(log_format))
    for name, level in checked.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not any(type(one) is logging.StreamHandler for one in logger.handlers):
            logger.addHandler(handler)
        logger.propagate = False


def _level(level: Any) -> int:
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if type(number) is not int:
        raise ValueError(f"{level!r} is no level")
    return number


def _for_ours(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "loggers": _with_ours(config["loggers"])} if config.get("loggers") else config


def _with_ours(loggers: Mapping[str, Any]) -> dict[str, Any]:
    """Add for ``treadle.worker`` what the map says of ``distributed.worker``, unless it says something of ``treadle.worker`` itself."""
    found = dict(loggers)
    for name, value in loggers.items():
        if name == _THEIRS or name.startswith(_THEIRS + "."):
            found.setdefault(_OURS + name.removeprefix(_THEIRS), value)
    return found
