"""``dask-worker``: one or more worker processes on this machine, each with a nanny that replaces it when it dies."""

from __future__ import annotations

from typing import Any

import click
from dask.system import CPU_COUNT

import treadle
from treadle.cli.process import run_command, start_all, without_scheme
from treadle.comm.security import Security
from treadle.config import get
from treadle.unused_settings import take_dashboard_options
from treadle.utils import interpreter
from treadle.utils.worker_resources import nprocesses_nthreads


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("scheduler", required=False)
@click.option("--nthreads", type=click.IntRange(1), help="Threads of each worker.  [default: the CPUs divided among the workers]")
@click.option("--nworkers", default="1", help="Workers to start. -1: one for each CPU; -2: one less; auto: a number that suits the CPUs.")
@click.option("--name", help="Name of the worker; several workers get -0, -1, ... appended.")
@click.option("--memory-limit", default="auto", help="Memory of each worker: auto, a fraction, '4GB', or 0 for no limit.")
@click.option("--nanny/--no-nanny", default=True, help="Run each worker in a separate process that is replaced when it dies.")
@click.option("--host", help="Address or name that the worker listens on.")
@click.option("--worker-port", type=click.IntRange(0, 65535), default=0, help="Port that the worker listens on; 0 takes a free one.")
@click.option("--interface", help="Network interface to listen on, such as eth0.")
@click.option("--protocol", help="Protocol to speak, such as tcp.")
@click.option("--listen-address", help="Whole address to listen on, such as tcp://0.0.0.0:9000.")
@click.option("--contact-address", help="Address at which others reach the worker, if it differs.")
@click.option("--local-directory", type=click.Path(file_okay=False), help="Directory for the worker's files.")
@click.option("--resources", default="", help="Resources that tasks may ask for, such as 'GPU=2 MEM=10e9'.")
@click.option("--scheduler-file", type=click.Path(dir_okay=False), help="File to which the scheduler has written its address.")
@click.option("--secret-file", type=click.Path(dir_okay=False), help="File with the cluster's secret.")
@click.option("--death-timeout", help="Give up when no scheduler is found for this long, such as '60s'.")
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Write the process id to this file.")
@click.option("--dashboard/--no-dashboard", default=False, help="A dashboard in the browser; there is none yet.")
@click.option("--dashboard-address", help="Address of the dashboard; there is none yet.")
@click.option("--dashboard-prefix", help="Path of the dashboard; there is none yet.")
@click.version_option(treadle.__version__, prog_name="dask-worker")
def main(
    scheduler: str | None,
    nthreads: int | None,
    nworkers: str,
    name: str | None,
    nanny: bool,
    worker_port: int,
    listen_address: str | None,
    resources: str,
    scheduler_file: str | None,
    secret_file: str | None,
    pid_file: str | None,
    **options: Any,
) -> None:
    """Start workers for the SCHEDULER at that address, or the one of --scheduler-file.

    They must know the cluster's secret: from the scheduler file, from --secret-file, from TREADLE_SECRET,
    or from the file that dask-scheduler made on this machine.
    """
    scheduler = scheduler or (None if scheduler_file else get("scheduler-address"))
    if scheduler is None and scheduler_file is None:
        raise click.UsageError("where is the scheduler? Give its address, or --scheduler-file, or set DASK_SCHEDULER_ADDRESS")
    count, threads = how_many(nworkers, nthreads)
    if count > 1 and not nanny:
        raise click.UsageError("--no-nanny runs the worker in this process, where only one can run; leave out --nworkers or --no-nanny")
    if count > 1 and (worker_port or options["contact_address"]):
        raise click.UsageError("several workers cannot share one port or contact address; leave out --nworkers")
    if listen_address and (options["host"] or worker_port or options["interface"] or options["protocol"]):
        raise click.UsageError("--listen-address stands for --host, --worker-port, --interface and --protocol; give one or the others")
    options = {key: value for key, value in options.items() if value is not None}
    if listen_address:
        options["host"] = listen_address
    elif worker_port:
        options["worker_port" if nanny else "port"] = worker_port
    options.update(nthreads=threads, resources=parse_resources(resources) or None, scheduler_file=scheduler_file)
    if secret_file is not None:
        options["security"] = Security(secret_file=secret_file)
    server_class = _server_class(nanny)

    if not nanny:
        interpreter.answer_quickly()

    async def start() -> list[Any]:
        take_dashboard_options(options)  # one warning for all workers
        names = [name if count == 1 or name is None else f"{name}-{number}" for number in range(count)]
        servers = await start_all([server_class(scheduler, name=each, **options) for each in names])
        for server in servers:
            print(f"Worker started at {without_scheme(server.worker_address)}", flush=True)
        return servers

    run_command(start, pid_file=pid_file, what="dask-worker")


def _server_class(nanny: bool) -> Any:
    if nanny:
        from treadle.nanny.server import Nanny

        return Nanny
    from treadle.worker.server import Worker

    return Worker


def how_many(nworkers: str, nthreads: int | None, cpus: int = CPU_COUNT) -> tuple[int, int]:
    """(workers, threads of each). Raises UsageError."""
    if nworkers == "auto":
        if nthreads is not None:
            raise click.UsageError("--nworkers auto chooses the number of threads, too; leave out --nthreads")
        return nprocesses_nthreads(cpus)
    try:
        count = int(nworkers)
    except ValueError:
        raise click.UsageError(f"--nworkers must be a number or auto, not {nworkers!r}") from None
    if count < 0:
        count += cpus + 1
    if count < 1:
        raise click.UsageError(f"--nworkers {nworkers} means no worker at all on a machine with {cpus} CPUs; give a larger number, or auto")
    return count, nthreads if nthreads is not None else max(1, cpus // count)


def parse_resources(text: str) -> dict[str, float]:
    """``{"GPU": 2.0, "MEM": 1e10}`` of ``"GPU=2 MEM=10e9"`` or ``"GPU=2,MEM=10e9"``. Raises UsageError."""
    resources = {}
    for part in text.replace(",", " ").split():
        resource, equals, amount = part.partition("=")
        try:
            if not (resource and equals):
                raise ValueError
            resources[resource] = float(amount)
        except ValueError:
            raise click.UsageError(f"--resources: {part!r} is not of the form NAME=NUMBER") from None
    return resources


if __name__ == "__main__":
    main()
