from __future__ import annotations

import sys

from treadle import Client, LocalCluster


def test_workers_processes_answer_while_a_task_computes_in_python() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        assert client.submit(sys.getswitchinterval).result() < sys.getswitchinterval()
