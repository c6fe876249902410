"""From the text of a scene to what happened: which stage it needs. Pure."""

from __future__ import annotations

from treadle.testing.scenes.client import ClientStage
from treadle.testing.scenes.scheduler import SchedulerStage
from treadle.testing.scenes.script import Played, Scene, SceneError, Stage, parse, play
from treadle.testing.scenes.worker import WorkerStage


def stage_for(scene: Scene) -> Stage:
    """A new one, on which nothing has happened yet. Raises SceneError."""
    kind, _, name = scene.settings["under test"].partition(" ")
    if kind == "scheduler":
        return SchedulerStage(scene.settings)
    if kind == "worker" and name:
        return WorkerStage(name, scene.settings)
    if kind == "client" and name:
        return ClientStage(name, scene.settings)
    raise SceneError(f"under test is 'scheduler', 'worker w1' or 'client alice', not {scene.settings['under test']!r}")


def play_text(text: str) -> Played:
    """Raises SceneError."""
    scene = parse(text)
    return play(scene, stage_for(scene))
