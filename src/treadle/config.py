"""The one place that reads ``dask.config``: into frozen settings that are passed down. Seconds and bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config
import yaml
from dask.utils import parse_bytes, parse_timedelta

with (Path(__file__).parent / "treadle.yaml").open() as _file:
    _defaults = yaml.safe_load(_file)
# Priority "old": neither the user's files and environment nor an installed dask.distributed are overwritten.
dask.config.update_defaults(_defaults)


def get(key: str, default: Any = None) -> Any:
    """The raw value of a config key."""
    return dask.config.get(key, default)


def seconds(value: Any) -> float:
    """``5``, ``"5s"`` or a timedelta as seconds. Raises ValueError for anything else."""
    return float(parse_timedelta(value))


def _optional_seconds(key: str) -> float | None:
    value = get(key)
    return None if value is None or value is False else seconds(value)


@dataclass(frozen=True)
class SchedulerSettings:
    """What the scheduler's core goes by."""

    allowed_failures: int = 3
    bandwidth_bytes_per_s: float = 100e6
    default_data_size_bytes: int = 1024
    idle_timeout_s: float | None = None
    no_workers_timeout_s: float | None = None
    work_stealing: bool = True
    work_stealing_interval_s: float = 1.0
    worker_saturation: float = 1.1
    prefetch_time_s: float = 0.01
    prefetch_limit: int = 500
    worker_ttl_s: float | None = 300.0
    unknown_task_duration_s: float = 0.5
    default_task_durations_s: dict[str, float] = field(default_factory=dict)
    validate: bool = False
    scatter_replicas: int = 2
    scatter_replica_limit_bytes: int = 64 * 2**20
    stuck_after_s: float | None = 60.0
    worker_grace_s: float = 10.0
    client_grace_s: float = 30.0
    recovery_grace_s: float = 10.0
    journal_compaction_bytes: int = 2**26


def scheduler_settings() -> SchedulerSettings:
    """Read now. Raises ValueError that names the key for a value that makes no sense."""
    saturation = float(get("distributed.scheduler.worker-saturation"))
    if not saturation > 0:
        raise ValueError(f"distributed.scheduler.worker-saturation must be over 0 (or inf), got {saturation}")
    return SchedulerSettings(
        allowed_failures=int(get("distributed.scheduler.allowed-failures")),
        bandwidth_bytes_per_s=float(parse_bytes(get("distributed.scheduler.bandwidth"))),
        default_data_size_bytes=int(parse_bytes(get("distributed.scheduler.default-data-size"))),
        idle_timeout_s=_optional_seconds("distributed.scheduler.idle-timeout"),
        no_workers_timeout_s=_optional_seconds("distributed.scheduler.no-workers-timeout"),
        work_stealing=bool(get("distributed.scheduler.work-stealing")),
        work_stealing_interval_s=seconds(get("distributed.scheduler.work-stealing-interval")),
        worker_saturation=saturation,
        prefetch_time_s=seconds(get("treadle.scheduler.prefetch-time")),
        prefetch_limit=int(get("treadle.scheduler.prefetch-limit")),
        worker_ttl_s=_optional_seconds("distributed.scheduler.worker-ttl"),
        unknown_task_duration_s=seconds(get("distributed.scheduler.unknown-task-duration")),
        default_task_durations_s={
            name: seconds(value) for name, value in (get("distributed.scheduler.default-task-durations") or {}).items()
        },
        validate=bool(get("distributed.scheduler.validate")),
        worker_grace_s=seconds(get("treadle.scheduler.worker-grace")),
        client_grace_s=seconds(get("treadle.scheduler.client-grace")),
        recovery_grace_s=seconds(get("treadle.scheduler.recovery-grace")),
        scatter_replicas=int(get("treadle.scheduler.scatter-replicas")),
        scatter_replica_limit_bytes=int(parse_bytes(get("treadle.scheduler.scatter-replica-limit"))),
        stuck_after_s=_optional_seconds("treadle.scheduler.stuck-after"),
        journal_compaction_bytes=int(parse_bytes(get("treadle.scheduler.journal-compaction"))),
    )


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker goes by."""

    connections_outgoing: int = 50
    connections_incoming: int = 10
    transfer_message_bytes: int = 50_000_000
    heartbeat_s: float = 1.0
    validate: bool = False
    resources: dict[str, float] = field(default_factory=dict)
    max_error_length: int = 10_000
    reconnect_grace_s: float = 60.0


def worker_settings() -> WorkerSettings:
    return WorkerSettings(
        connections_outgoing=int(get("distributed.worker.connections.outgoing")),
        connections_incoming=int(get("distributed.worker.connections.incoming")),
        transfer_message_bytes=int(parse_bytes(get("distributed.worker.transfer.message-bytes-limit"))),
        heartbeat_s=seconds(get("distributed.worker.heartbeat", "1s")),
        validate=bool(get("distributed.worker.validate")),
        resources={name: float(amount) for name, amount in (get("distributed.worker.resources") or {}).items()},
        max_error_length=int(get("distributed.admin.max-error-length")),
        reconnect_grace_s=seconds(get("treadle.worker.reconnect-grace")),
    )


@dataclass(frozen=True)
class NannySettings:
    """What a nanny goes by."""

    #: None: a worker process that was stopped is waited for.
    stopped_timeout_s: float | None = 300.0
    reconnect_grace_s: float = 60.0
    #: Share of its memory limit above which the worker process is killed; None: never.
    terminate_fraction: float | None = 0.95
    memory_interval_s: float = 0.1


def nanny_settings() -> NannySettings:
    """Raises ValueError that names the key for a value that makes no sense."""
    own = _optional_seconds("treadle.nanny.stopped-timeout")
    terminate = get("distributed.worker.memory.terminate")
    if terminate is False or terminate is None:
        terminate = None
    elif not 0 < (terminate := float(terminate)) <= 1:
        raise ValueError(f"distributed.worker.memory.terminate must be a fraction of the memory limit, or false, got {terminate:g}")
    return NannySettings(
        stopped_timeout_s=_optional_seconds("distributed.scheduler.worker-ttl") if own is None else own,
        reconnect_grace_s=seconds(get("treadle.worker.reconnect-grace")),
        terminate_fraction=terminate,
        memory_interval_s=max(seconds(get("distributed.worker.memory.monitor-interval")), 0.01),
    )


@dataclass(frozen=True)
class CommSettings:
    """What connections go by."""

    connect_timeout_s: float = 30.0
    default_scheme: str = "tcp"


def comm_settings() -> CommSettings:
    return CommSettings(
        connect_timeout_s=seconds(get("distributed.comm.timeouts.connect")),
        default_scheme=str(get("distributed.comm.default-scheme")),
    )


@dataclass(frozen=True)
class SecretSettings:
    """Where the cluster's secret is looked for when nobody hands it over."""

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
