"""``dask-scheduler``: the process that decides what runs where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import treadle
from treadle.cli.process import run_command, start_all, without_scheme
from treadle.comm.security import Security, ensure_secret_file
from treadle.scheduler.server import Scheduler
from treadle.utils import interpreter

DEFAULT_PORT = 8786


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--host", help="Address or name to listen on, or a whole tcp:// address; 0.0.0.0 is every interface.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Port to listen on; 0 takes a free one.  [default: {DEFAULT_PORT}]")
@click.option("--interface", help="Network interface to listen on, such as eth0.")
@click.option("--protocol", help="Protocol to speak, such as tcp.")
@click.option("--secret-file", type=click.Path(dir_okay=False), help="File with the cluster's secret; created if it does not exist.")
@click.option("--scheduler-file", type=click.Path(dir_okay=False), help="Write address and secret to this file, for workers and clients.")
@click.option(
    "--journal",
    type=click.Path(file_okay=False),
    help="Directory for what must outlive this process. Workers and clients then wait for the next scheduler.",
)
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Write the process id to this file.")
@click.option("--idle-timeout", help="Close after this time without work, such as '30 minutes'.")
@click.option("--dashboard/--no-dashboard", default=False, help="A dashboard in the browser; there is none yet.")
@click.option("--dashboard-address", help="Address of the dashboard; there is none yet.")
@click.option("--dashboard-prefix", help="Path of the dashboard; there is none yet.")
@click.version_option(treadle.__version__, prog_name="dask-scheduler")
def main(
    host: str | None,
    port: int | None,
    interface: str | None,
    protocol: str | None,
    secret_file: str | None,
    scheduler_file: str | None,
    journal: str | None,
    pid_file: str | None,
    idle_timeout: str | None,
    **dashboard_options: Any,
) -> None:
    """Start a scheduler. Workers and clients connect to the address that it prints.

    They must all know the cluster's secret. The scheduler makes one on its first start and keeps it in a file that only
    you can read; workers and clients on this machine find it there. For other machines copy that file, set TREADLE_SECRET,
    or share a --scheduler-file.
    """
    if port is None and not (host and _names_a_port(host)):
        port = DEFAULT_PORT

    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "interface": interface,
        "protocol": protocol,
        "scheduler_file": scheduler_file,
        "idle_timeout": idle_timeout,
        "journal": journal,
        **dashboard_options,
    }

    async def start() -> list[Any]:
        if secret_file is not None:
            ensure_secret_file(Path(secret_file))
            options["security"] = Security(secret_file=secret_file)
        servers = await start_all([Scheduler(**{name: value for name, value in options.items() if value is not None})])
        interpreter.settle_garbage()
        print(f"Scheduler started at {without_scheme(servers[0].address)}", flush=True)
        return servers

    run_command(start, pid_file=pid_file, what="dask-scheduler")


def _names_a_port(host: str) -> bool:
    rest = host.rpartition("://")[2]
    return rest.rpartition("]")[2].startswith(":") if rest.startswith("[") else rest.count(":") == 1


if __name__ == "__main__":
    main()
