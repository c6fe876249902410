"""The options of ``Worker(...)``: known options that are not available yet are refused, others are unknown."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Mapping
from typing import Any, Final

from treadle import config
from treadle.comm.addressing import normalize_address, unparse_address, unparse_host_port
from treadle.unused_settings import take_dashboard_options
from treadle.utils.private import make_scratch_directory

#: Options of dask.distributed's workers that are not available here, and their values that ask for nothing.
_NOT_THERE: Final[dict[str, tuple[Any, ...]]] = {
    "services": (None, {}),
    "startup_information": (None, {}),
    "preload": (None, (), []),
    "preload_argv": (None, (), []),
    "extensions": (None, {}),
    "metrics": (None, {}),
    "plugins": (None, (), []),
    "low_level_profiler": (None, False),
    "profile_cycle_interval": (None,),
    "lifetime": (None,),
    "lifetime_stagger": (None, 0),
    "lifetime_restart": (None, False),
    "transition_counter_max": (None, False),
    "scheduler_sni": (None,),
    "reconnect": (None,),
}


def check_options(options: dict[str, Any]) -> None:
    """Raises NotImplementedError for an option that is not available yet, TypeError for an unknown one. Dashboard options are ignored."""
    take_dashboard_options(options)
    for name, value in options.items():
        if name not in _NOT_THERE:
            raise TypeError(f"Worker has no option {name!r}")
        if not any(value is nothing or (type(value) is type(nothing) and value == nothing) for nothing in _NOT_THERE[name]):
            raise NotImplementedError(f"Worker({name}={value!r}): {name} is not available yet in treadle; leave it out")


def scheduler_address(ip: Any, port: Any) -> str | None:
    """The address that the first two arguments name, or the config key scheduler-address; None when neither does."""
    if ip is None:
        ip = config.get("scheduler-address")
        if ip is None:
            return None
    address = getattr(ip, "scheduler_address", ip)
    if not isinstance(address, str):
        raise TypeError(f"the scheduler's address is a string such as 'tcp://127.0.0.1:8786', got {ip!r}")
    if port is not None:
        return unparse_address("tcp", unparse_host_port(address, int(port)))
    return normalize_address(address)


def ports(port: Any) -> Iterator[int]:
    """The ports that ``port`` allows: a number, a range, or ``"8000:8010"`` (both ends included). Raises ValueError."""
    if port is None:
        yield 0
    elif isinstance(port, str) and ":" in port:
        first, _, last = port.partition(":")
        if int(first) > int(last):
            raise ValueError(f"the range of ports {port!r} is empty")
        yield from range(int(first), int(last) + 1)
    elif isinstance(port, (int, str)):
        yield int(port)
    else:
        numbers = [int(number) for number in port]
        if not numbers:
            raise ValueError("the range of ports is empty")
        yield from numbers


def named_executors(executor: Any, offload: concurrent.futures.Executor) -> dict[str, concurrent.futures.Executor]:
    """The executors besides the thread pool, by name. An executor named ``"default"`` replaces the thread pool."""
    named: dict[str, concurrent.futures.Executor] = {"offload": offload}
    if executor is None:
        return named
    if executor == "offload":
        named["default"] = offload
    elif isinstance(executor, concurrent.futures.Executor):
        named["default"] = executor
    elif isinstance(executor, Mapping):
        for name, value in executor.items():
            if not isinstance(value, concurrent.futures.Executor):
                raise TypeError(f"executor {name!r} must be a concurrent.futures.Executor, got {value!r}")
            named[name] = value
    else:
        raise TypeError(f"executor must be a concurrent.futures.Executor, a dict of these by name, or 'offload'; got {executor!r}")
    return named


def check_resources(resources: Mapping[str, Any]) -> dict[str, float]:
    """The resources as floats. Raises ValueError for an amount that is no finite number of at least 0."""
    found: dict[str, float] = {}
    for name, amount in resources.items():
        try:
            found[str(name)] = float(amount)
        except (TypeError, ValueError) as error:
            raise ValueError(f"resource {name!r} must be a number, got {amount!r}") from error
        if not 0 <= found[str(name)] <= 1e100:
            raise ValueError(f"resource {name!r} must be a finite amount of at least 0, got {amount!r}")
    return found


def scratch_directory(local_directory: Any) -> str:
    """Where the worker creates its directory: ``local_directory``, else the config key temporary-directory, else the system's default."""
    return str(make_scratch_directory(local_directory or config.get("temporary-directory")))
