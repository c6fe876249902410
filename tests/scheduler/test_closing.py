"""A worker that was emptied is told to close until it has; one that never does goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.messages.scheduler_local import Retire
from treadle.scheduler import orders
from treadle.scheduler.orders import Orders
from treadle.testing.scheduler_scene import SchedulerScene


class DeafWorker:
    """In place of the streams: the worker hears the order only when it was told often enough."""

    def __init__(self, scene: SchedulerScene, hears: int) -> None:
        self.scene = scene
        self.hears = hears
        self.told = 0

    def close_worker(self, number: int, reason: str, restart: bool = False) -> None:
        self.told += 1
        if self.told == self.hears:
            self.scene.leave("w1")


@pytest.mark.parametrize("hears", [1, 3, 1000])
def test_retiring(monkeypatch: pytest.MonkeyPatch, hears: int) -> None:
    monkeypatch.setattr(orders, "ASK_AGAIN_S", 0.02)
    monkeypatch.setattr(orders, "CLOSE_S", 0.5 if hears > 3 else 60.0)
    scene = SchedulerScene()
    scene.workers("w1", "w2", nthreads=1)
    scene.client("c")
    deaf = DeafWorker(scene, hears)
    told: list[Any] = []

    def tell(message: Any) -> None:
        told.append(message)
        scene._tell(message)

    mover = Orders(scene.core, deaf, tell)  # type: ignore[arg-type]
    retired = asyncio.run(mover.retire(names=["w1"]))
    if hears <= 3:
        assert len(retired) == 1 and deaf.told == hears
    else:
        number = scene.worker_state("w1").number
        assert retired == {} and told[-1] == Retire([number], retiring=False)
        scene.submit("a b")
        assert {scene.where("a"), scene.where("b")} == {"w1", "w2"}
