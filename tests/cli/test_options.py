"""The arguments of the commands, without starting anything."""

import click
import pytest
from click.testing import CliRunner

import treadle
from treadle.cli import scheduler, worker


@pytest.mark.parametrize(
    ("nworkers", "nthreads", "cpus", "expected"),
    [
        ("1", None, 8, (1, 8)),
        ("2", None, 8, (2, 4)),
        ("2", 3, 8, (2, 3)),
        ("-1", None, 8, (8, 1)),
        ("-2", None, 8, (7, 1)),
        ("16", None, 8, (16, 1)),
        ("auto", None, 4, (4, 1)),
        ("auto", None, 12, (4, 3)),
    ],
)
def test_number_of_workers_and_threads(nworkers, nthreads, cpus, expected):
    assert worker.how_many(nworkers, nthreads, cpus) == expected


@pytest.mark.parametrize(("nworkers", "nthreads"), [("0", None), ("-9", None), ("x", None), ("auto", 2)])
def test_a_number_of_workers_that_makes_no_sense(nworkers, nthreads):
    with pytest.raises(click.UsageError):
        worker.how_many(nworkers, nthreads, 8)


def test_resources():
    assert worker.parse_resources("GPU=2 MEM=10e9") == {"GPU": 2.0, "MEM": 10e9}
    assert worker.parse_resources("GPU=2,MEM=1") == {"GPU": 2.0, "MEM": 1.0}
    assert worker.parse_resources("") == {}
    for wrong in ["GPU", "GPU=", "=2", "GPU=many"]:
        with pytest.raises(click.UsageError, match="NAME=NUMBER"):
            worker.parse_resources(wrong)


@pytest.mark.parametrize("command", [scheduler.main, worker.main])
def test_version_help_and_unknown_options(command):
    runner = CliRunner()
    assert treadle.__version__ in runner.invoke(command, ["--version"]).output
    assert runner.invoke(command, ["--help"]).exit_code == 0
    unknown = runner.invoke(command, ["--no-such-option"])
    assert unknown.exit_code == 2 and "No such option" in unknown.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "where is the scheduler"),
        (["tcp://h:1", "--nworkers", "2", "--no-nanny"], "--no-nanny"),
        (["tcp://h:1", "--nworkers", "2", "--worker-port", "9000"], "share one port"),
        (["tcp://h:1", "--listen-address", "tcp://h:2", "--host", "h"], "--listen-address"),
        (["tcp://h:1", "--worker-port", "70000"], "70000"),
    ],
)
def test_contradicting_arguments_of_a_worker(arguments, text):
    result = CliRunner().invoke(worker.main, arguments)
    assert result.exit_code == 2 and text in result.output


@pytest.mark.parametrize(
    ("host", "named"), [("h", False), ("h:1", True), ("tcp://h:1", True), ("::1", False), ("[::1]", False), ("[::1]:1", True)]
)
def test_a_host_may_name_the_port(host, named):
    assert scheduler._names_a_port(host) is named
