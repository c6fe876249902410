"""The only module that reads ``dask.config``: into frozen settings objects, in seconds and bytes, that are passed down.

A key that is missing, or null where null has no meaning, has the default of ``treadle.yaml``. Every value that dask.distributed
allows for a key is accepted. An invalid value raises ValueError, which names the key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any, Final, TypeVar

import dask.config
import yaml
from dask.utils import parse_bytes, parse_timedelta

from treadle.utils.shown import shown

T = TypeVar("T")

with (Path(__file__).parent / "treadle.yaml").open() as _file:
    #: The built-in defaults, for keys that are missing in the configuration; never changed.
    DEFAULTS: Final[dict[str, Any]] = yaml.safe_load(_file)
# ``update_defaults`` overwrites neither the user's files and environment nor the defaults of an installed dask.distributed.
dask.config.update_defaults(DEFAULTS)


def get(key: str, default: Any = None) -> Any:
    """The value of a config key; if it is missing, the built-in default, or ``default`` for a key without one."""
    return dask.config.get(key, dask.config.get(key, default, config=DEFAULTS))


def _read(key: str, convert: Callable[[Any], T], kind: str) -> T:
    """``convert`` applied to a key's value, or to its built-in default if the value is null. Raises ValueError that names the key."""
    value = get(key)
    if value is None:
        value = dask.config.get(key, config=DEFAULTS)
    try:
        return convert(value)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{key} must be {kind}, got {value!r}") from error


def seconds(value: Any) -> float:
    """``5``, ``"5s"`` or a timedelta as seconds. Raises ValueError for anything else."""
    try:
        time_s = float(parse_timedelta(value))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):
        time_s = nan
    if isinstance(value, bool) or time_s != time_s:
        raise ValueError(f'a time is a number of seconds, a string such as "100 ms", or a timedelta; got {shown(value)}')
    return time_s


def _seconds(key: str) -> float:
    return _read(key, seconds, "a time such as '5s'")


def _optional_seconds(key: str) -> float | None:
    value = get(key)
    return None if value is None or value is False else _seconds(key)


def _bytes(key: str) -> int:
    return _read(key, lambda value: int(parse_bytes(value)), "a number of bytes such as '64 MiB'")


def _count(key: str) -> int:
    return _read(key, int, "a whole number")


def _number(key: str) -> float:
    return _read(key, float, "a number")


def _mapping(key: str, convert: Callable[[Any], T], kind: str) -> dict[str, T]:
    return _read(key, lambda value: {str(name): convert(each) for name, each in value.items()}, kind)


def _weight(value: Any) -> float:
    weight = float(value)
    if not 0 < weight < inf:
        raise ValueError("not over 0, or not finite")
    return weight


def redefined_keys_are_errors() -> bool:
    """Whether giving a task a key that already stands for another task is an error, not a warning. Raises ValueError."""
    value = get("treadle.client.redefined-keys", "warn")
    if value not in ("warn", "error"):
        raise ValueError(f"treadle.client.redefined-keys must be warn or error, got {value!r}")
    return bool(value == "error")


@dataclass(frozen=True)
class SchedulerSettings:
    """The settings of the scheduler's core."""

    allowed_failures: int = 3
    bandwidth_bytes_per_s: float = 100e6
    idle_timeout_s: float | None = None
    no_workers_timeout_s: float | None = None
    work_stealing: bool = True
    worker_saturation: float = 1.1
    prefetch_time_s: float = 0.01
    prefetch_limit: int = 500
    worker_ttl_s: float | None = 300.0
    unknown_task_duration_s: float = 0.5
    default_task_durations_s: dict[str, float] = field(default_factory=dict)
    client_weights: dict[str, float] = field(default_factory=dict)
    validate: bool = False
    scatter_replicas: int = 2
    scatter_replica_limit_bytes: int = 64 * 2**20
    stuck_after_s: float | None = 60.0
    worker_grace_s: float = 10.0
    client_grace_s: float = 30.0
    recovery_grace_s: float = 10.0
    journal_compaction_bytes: int = 2**26


def scheduler_settings() -> SchedulerSettings:
    """Read the settings now. Raises ValueError, which names the key, for an invalid value."""
    saturation = _number("distributed.scheduler.worker-saturation")
    if not saturation > 0:
        raise ValueError(f"distributed.scheduler.worker-saturation must be over 0 (or inf), got {saturation}")
    return SchedulerSettings(
        allowed_failures=_count("distributed.scheduler.allowed-failures"),
        bandwidth_bytes_per_s=float(_bytes("distributed.scheduler.bandwidth")),
        idle_timeout_s=_optional_seconds("distributed.scheduler.idle-timeout"),
        no_workers_timeout_s=_optional_seconds("distributed.scheduler.no-workers-timeout"),
        work_stealing=_read("distributed.scheduler.work-stealing", bool, "true or false"),
        worker_saturation=saturation,
        prefetch_time_s=_seconds("treadle.scheduler.prefetch-time"),
        prefetch_limit=_count("treadle.scheduler.prefetch-limit"),
        worker_ttl_s=_optional_seconds("distributed.scheduler.worker-ttl"),
        unknown_task_duration_s=_seconds("distributed.scheduler.unknown-task-duration"),
        default_task_durations_s=_mapping("distributed.scheduler.default-task-durations", seconds, "a map of times by function name"),
        client_weights=_mapping("treadle.scheduler.client-weights", _weight, "a map of numbers over 0 by the name of a client"),
        validate=_read("distributed.scheduler.validate", bool, "true or false"),
        worker_grace_s=_seconds("treadle.scheduler.worker-grace"),
        client_grace_s=_seconds("treadle.scheduler.client-grace"),
        recovery_grace_s=_seconds("treadle.scheduler.recovery-grace"),
        scatter_replicas=_count("treadle.scheduler.scatter-replicas"),
        scatter_replica_limit_bytes=_bytes("treadle.scheduler.scatter-replica-limit"),
        stuck_after_s=_optional_seconds("treadle.scheduler.stuck-after"),
        journal_compaction_bytes=_bytes("treadle.scheduler.journal-compaction"),
    )


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of a worker."""

    connections_outgoing: int = 50
    connections_incoming: int = 10
    transfer_message_bytes: int = 50_000_000
    #: The share of its memory limit that values on their way from peers may take; None: no limit.
    transfer_fraction: float | None = 0.1
    heartbeat_s: float = 1.0
    validate: bool = False
    resources: dict[str, float] = field(default_factory=dict)
    max_error_length: int = 10_000
    reconnect_grace_s: float = 60.0


def worker_settings() -> WorkerSettings:
    """Raises ValueError that names the key for a value that makes no sense."""
    transfer = None
    if get("distributed.worker.memory.transfer") is not False:
        transfer = _number("distributed.worker.memory.transfer")
        if not 0 < transfer <= 1:
            raise ValueError(f"distributed.worker.memory.transfer must be a fraction of the memory limit, or false, got {transfer:g}")
    return WorkerSettings(
        # dask.distributed allows 0; with no transfers at all, nothing could be computed.
        connections_outgoing=max(1, _count("distributed.worker.connections.outgoing")),
        connections_incoming=max(1, _count("distributed.worker.connections.incoming")),
        transfer_message_bytes=_bytes("distributed.worker.transfer.message-bytes-limit"),
        transfer_fraction=transfer,
        heartbeat_s=_seconds("distributed.worker.heartbeat"),
        validate=_read("distributed.worker.validate", bool, "true or false"),
        resources=_mapping("distributed.worker.resources", float, "a map of amounts by resource"),
        max_error_length=_count("distributed.admin.max-error-length"),
        reconnect_grace_s=_seconds("treadle.worker.reconnect-grace"),
    )


@dataclass(frozen=True)
class NannySettings:
    """The settings of a nanny."""

    #: How long a worker process may be stopped (SIGSTOP) before it is replaced; None: for ever.
    stopped_timeout_s: float | None = 30.0
    reconnect_grace_s: float = 60.0
    #: The share of its memory limit above which the worker process is killed; None: never.
    terminate_fraction: float | None = 0.95
    memory_interval_s: float = 0.1
    #: Environment variables of the worker process: defaults for those that this process does not have, and those that override.
    pre_spawn_environ: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, Any] = field(default_factory=dict)


def nanny_settings() -> NannySettings:
    """Raises ValueError that names the key for a value that makes no sense."""
    terminate = None
    if get("distributed.worker.memory.terminate") is not False:
        terminate = _number("distributed.worker.memory.terminate")
        if not 0 < terminate <= 1:
            raise ValueError(f"distributed.worker.memory.terminate must be a fraction of the memory limit, or false, got {terminate:g}")
    return NannySettings(
        stopped_timeout_s=_optional_seconds("treadle.nanny.stopped-timeout"),
        reconnect_grace_s=_seconds("treadle.worker.reconnect-grace"),
        terminate_fraction=terminate,
        memory_interval_s=max(_seconds("distributed.worker.memory.monitor-interval"), 0.01),
        pre_spawn_environ=_mapping("distributed.nanny.pre-spawn-environ", _same, "a map of environment variables"),
        environ=_mapping("distributed.nanny.environ", _same, "a map of environment variables"),
    )


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class ClientSettings:
    """The settings of a client."""

    heartbeat_s: float = 5.0
    reconnect_grace_s: float = 30.0
    large_graph_bytes: int = 10_000_000


def client_settings() -> ClientSettings:
    return ClientSettings(
        heartbeat_s=_seconds("distributed.client.heartbeat"),
        reconnect_grace_s=_seconds("treadle.client.reconnect-grace"),
        large_graph_bytes=_bytes("distributed.admin.large-graph-warning-threshold"),
    )


@dataclass(frozen=True)
class CommSettings:
    """The settings of connections."""

    connect_timeout_s: float = 30.0


def comm_settings() -> CommSettings:
    return CommSettings(connect_timeout_s=_seconds("distributed.comm.timeouts.connect"))


#: The values that ``distributed.admin.event-loop`` may have.
EVENT_LOOPS: Final = ("asyncio", "tornado", "uvloop")


def event_loop_kind() -> str:
    """The event loop of processes that only run a server: ``"asyncio"`` or ``"uvloop"``. ``"tornado"`` means asyncio, as its loop does."""
    return "uvloop" if get("distributed.admin.event-loop") == "uvloop" else "asyncio"


@dataclass(frozen=True)
class LogSettings:
    """The arguments of ``treadle.utils.logs.configure_logging``."""

    loggers: Any
    file: Any
    format: str


def log_settings() -> LogSettings:
    loggers = get("logging")
    return LogSettings(
        loggers=get("distributed.logging") if loggers is None else loggers,
        file=get("logging-file-config", get("distributed.logging-file-config")),
        format=_read("distributed.admin.log-format", str, "a text"),
    )


@dataclass(frozen=True)
class SecretSettings:
    """Where the cluster's secret is looked for if it is not passed as an argument."""

    environment: str | None
    config: str | None
    file: Path


def secret_settings() -> SecretSettings:
    path = get("treadle.security.secret-file")
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return SecretSettings(
        environment=os.environ.get("TREADLE_SECRET") or None,
        config=get("treadle.security.secret"),
        file=Path(path).expanduser() if path else base / "treadle" / "secret",
    )
