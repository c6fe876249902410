"""Warn once, in one line, of settings that a user has made and that treadle ignores.

No warning is given for settings that treadle reads (``treadle.yaml``), for values that are dask.distributed's own defaults
(``unused.yaml``, or the defaults of an imported package), and for keys outside of ``distributed`` and ``treadle``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import dask.config
import yaml

from treadle.config import DEFAULTS, EVENT_LOOPS, log_settings
from treadle.utils.logs import configure_logging
from treadle.utils.main_script import not_while_imported

logger = logging.getLogger("treadle")

with (Path(__file__).parent / "unused.yaml").open() as _file:
    #: Keys of dask.distributed that treadle does not read, with dask.distributed's defaults.
    UNUSED: Final[dict[str, Any]] = yaml.safe_load(_file)

#: What was told already.
_told: set[tuple[str, str]] = set()


def begin(what: str) -> None:
    """Called where a user starts something, named by ``what``: set up logging, and warn of ignored settings."""
    not_while_imported(what)
    logs = log_settings()
    configure_logging(logs.loggers, logs.file, logs.format)
    tell_unused_settings()


def tell_unused_settings() -> None:
    new = [(key, value) for key, value in unused_settings(dask.config.config) if (key, repr(value)) not in _told]
    if not new:
        return
    _told.update((key, repr(value)) for key, value in new)
    listed = ", ".join(f"{key}: {value!r}" for key, value in new)
    logger.warning("These settings of the configuration mean nothing to treadle and are ignored: %s", listed)
    for key, value in new:
        if key.startswith("distributed.comm.tls.") or key == "distributed.comm.require-encryption":
            logger.warning("%s is set to %r, but treadle has no TLS yet: NOTHING IS ENCRYPTED", key, value)
            break


#: The arguments that ask for a dashboard, of clusters, schedulers, workers and nannies.
DASHBOARD_OPTIONS: Final = ("dashboard", "dashboard_address", "dashboard_prefix", "http_prefix", "worker_dashboard_address")


def take_dashboard_options(options: dict[str, Any]) -> None:
    """Remove the arguments that ask for a dashboard, and say in one line that none is started."""
    asked = {name: options.pop(name) for name in DASHBOARD_OPTIONS if name in options}
    wanted = [f"{name}={value!r}" for name, value in asked.items() if value not in (None, False, "", "/")]
    if wanted:
        logger.warning("No dashboard is started, because treadle has none yet: %s is ignored", ", ".join(wanted))


def unused_settings(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(key, value) of the settings that somebody has made and that treadle ignores."""
    read = {_canonical(key) for key, _ in _leaves(DEFAULTS)}
    silent: dict[str, list[Any]] = {}
    for defaults in (UNUSED, *dask.config.defaults):
        for key, value in _leaves(defaults):
            silent.setdefault(_canonical(key), []).append(value)
    return [
        (key, value)
        for key, value in _leaves(config)
        if ((name := _canonical(key)) not in read and not name.startswith(_MAPS) and value not in silent.get(name, ()))
        or (name == "distributed.admin.event-loop" and value not in (None, *EVENT_LOOPS))
    ]


#: Keys that are read as a whole, whatever their maps contain.
_MAPS: Final = (
    "distributed.logging",
    "distributed.nanny.environ.",
    "distributed.nanny.pre-spawn-environ.",
    "distributed.scheduler.default-task-durations.",
    "distributed.worker.resources.",
)


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in ("distributed", "treadle"):
        if isinstance(values := config.get(part), Mapping):
            yield from _flat(values, part)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}.{name}")
        if not isinstance(value, Mapping) or not value:
            yield f"{prefix}.{name}", value


def _canonical(key: str) -> str:
    """The key with dashes. Dashes and underscores mean the same; keys from the environment have underscores."""
    return key.replace("_", "-")
