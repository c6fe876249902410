"""Scripts that ask for a dashboard run: one line says that none is started."""

import asyncio
import logging

import pytest

from treadle import Client, LocalCluster, Nanny, Scheduler, SpecCluster, Worker


@pytest.fixture
def told(caplog):
    """The lines that were said of a dashboard."""
    caplog.set_level(logging.WARNING, "treadle")
    return lambda: [record.getMessage() for record in caplog.records if "dashboard" in record.getMessage()]


@pytest.mark.parametrize(
    "options",
    [
        {"dashboard_address": ":0"},
        {"dashboard_address": "127.0.0.1:8787", "worker_dashboard_address": ":0"},
        {"dashboard": True},
        {"scheduler_kwargs": {"dashboard": True, "dashboard_address": ":0"}},
    ],
)
def test_a_local_cluster_says_it_once(told, options):
    with Client(n_workers=2, threads_per_worker=1, processes=False, **options) as client:
        assert client.submit(len, "four").result() == 4
        assert client.dashboard_link is None and client.cluster.dashboard_link is None
        assert getattr(client, "dashboard_link", "missing") is None
    (line,) = told()
    assert "No dashboard is started" in line and "dashboard" in line.partition(":")[2]


@pytest.mark.parametrize("options", [{}, {"dashboard_address": None}, {"dashboard": False, "worker_dashboard_address": None}])
def test_who_asks_for_none_hears_nothing(told, options):
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **options):
        pass
    assert told() == []


def test_worker_processes_do_not_say_it_again(told, capfd):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", worker_dashboard_address=":0"):
        pass
    assert len(told()) == 1
    assert "dashboard" not in capfd.readouterr().err


def test_servers_and_specifications_take_it(told):
    async def scene():
        async with Scheduler(port=0, dashboard_address=":0", dashboard=True, http_prefix="/a") as scheduler:
            assert len(told()) == 1
            async with Worker(scheduler.address, dashboard_address=":0", dashboard=True):
                pass
        spec = {"cls": Scheduler, "options": {"port": 0, "dashboard_address": ":0"}}
        async with SpecCluster({}, spec, asynchronous=True, dashboard_address=":0") as cluster:
            assert cluster.dashboard_link is None

    asyncio.run(scene())
    Nanny("tcp://127.0.0.1:1", dashboard_address=":0")
    assert len(told()) == 5
    with pytest.raises(TypeError, match="no_such_option"):
        SpecCluster({}, no_such_option=1)
