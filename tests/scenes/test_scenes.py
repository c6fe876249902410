"""Every scene goes as it is written; and what the runner does about one that does not."""

from pathlib import Path

import pytest

from treadle.testing.scenes.__main__ import main
from treadle.testing.scenes.playing import play_text
from treadle.testing.scenes.script import SceneError, parse

FILES = sorted(Path(__file__).parent.rglob("*.scene"))
HEAD = "A title\n\nWhy.\n\nunder test: scheduler\nworkers: w1\nclients: alice\n\n"
WORKER = HEAD.replace("scheduler", "worker w1").replace("workers: w1", "workers: w1, w2")
CLIENT = HEAD.replace("scheduler", "client alice")
STEP = "alice -> scheduler: SubmitTasks a\n"
ANSWER = "    scheduler -> w1: ComputeTasks a attempt 1\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(Path(__file__).parent).with_suffix("").as_posix())
def test_a_scene_goes_as_it_is_written(path):
    played = play_text(path.read_text())
    assert played.passed, played.diff()


def test_titles_are_unique():
    titles = [parse(path.read_text()).title for path in FILES]
    assert len(set(titles)) == len(titles) >= 50


def test_what_did_not_happen_fails():
    played = play_text(HEAD + STEP + ANSWER + "    scheduler -> alice: KeysInMemory a at w1\n")
    assert not played.passed
    assert "-    scheduler -> alice: KeysInMemory a at w1" in played.diff().splitlines()


def test_what_was_not_expected_fails():
    played = play_text(HEAD + STEP)
    assert not played.passed
    assert f"+{ANSWER.rstrip()}" in played.diff().splitlines()


def test_what_a_worker_or_a_client_does_has_to_be_expected():
    assert not play_text(WORKER + "scheduler -> w1: ComputeTasks t attempt 1\n").passed
    assert play_text(WORKER + "scheduler -> w1: ComputeTasks t attempt 1\n    w1 executes t attempt 1\n    now t is ready\n").passed
    submitted = CLIENT + "alice submits a\n    alice -> scheduler: SubmitTasks a\n"
    assert not play_text(submitted).passed
    assert play_text(submitted + "    alice -> scheduler: Sent frame 1\n    now a is pending\n").passed


@pytest.mark.parametrize("claim", ["a is in memory at w1", "a is processing on w2", "a is forgotten", "nothing is left"])
def test_a_claim_that_is_wrong_fails(claim):
    assert not play_text(f"{HEAD}{STEP}{ANSWER}    now {claim}\n").passed
    assert play_text(f"{HEAD}{STEP}{ANSWER}    now a is processing on w1\n").passed


def test_lines_to_different_parties_may_stand_in_any_order():
    twice = HEAD.replace("workers: w1", "workers: w1, w2") + STEP.replace("a\n", "a, b\n")
    lines = [f"    scheduler -> w{number}: ComputeTasks {key} attempt 1\n" for number, key in ((1, "a"), (2, "b"))]
    assert play_text(twice + "".join(lines)).passed
    assert play_text(twice + "".join(reversed(lines))).passed


def test_that_nothing_happens_may_be_said():
    quiet = "alice -> scheduler: FireAndForget a\n    nothing\n"
    assert play_text(HEAD + STEP + ANSWER + quiet).passed
    assert not play_text(HEAD + STEP + "    nothing\n").passed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A title\n\nWhy.\n",
        "A title\n\nunder test: scheduler\n",
        HEAD.replace("scheduler", "nanny"),
        HEAD + ANSWER,
        HEAD + "alice -> scheduler: SubmitTask a\n",
        HEAD + "alice sleeps\n",
        HEAD + STEP + "w1 -> scheduler: TasksFinished a attempt 2\n",
        HEAD + "w1 -> scheduler: TasksFinished a\n",
        HEAD + "bob -> scheduler: ReleaseKeys a\n",
        HEAD + STEP + "    now a sleeps\n",
        HEAD + STEP + "all of it is on disk\n",
        WORKER + "t returns\n",
        WORKER + "scheduler -> w1: ComputeTasks t\n",
        WORKER + "scheduler -> w1: ComputeTasks t attempt 1 (needs a)\n",
        WORKER + "w2 -> w1: sends a\n",
        CLIENT + "alice releases a\n",
        CLIENT + "scheduler -> alice: KeysPending a\n",
        CLIENT + "alice submits a\nscheduler -> alice: KeysInMemory a at w9\n",
    ],
)
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(SceneError):
        play_text(text)


def test_a_file_is_rewritten_as_it_went(tmp_path, capsys):
    path = tmp_path / "one.scene"
    path.write_text(f"{HEAD}{STEP}    # why\n    scheduler -> w1: ComputeTasks b attempt 7\n    now a is released\n")
    assert main([str(path)]) == 1
    assert "ComputeTasks b attempt 7" in capsys.readouterr().out
    assert main(["--update", str(tmp_path)]) == 0
    assert path.read_text() == f"{HEAD}{STEP}    # why\n{ANSWER}    now a is processing on w1\n"
    assert main([str(path)]) == 0


def test_a_scene_is_shown_as_it_went(tmp_path, capsys):
    path = tmp_path / "one.scene"
    path.write_text(HEAD + STEP)
    assert main(["--show", str(path)]) == 1
    assert HEAD + STEP + ANSWER in capsys.readouterr().out
    assert path.read_text() == HEAD + STEP


def test_what_makes_no_sense_is_told_by_file(tmp_path, capsys):
    path = tmp_path / "one.scene"
    path.write_text(HEAD + "alice sleeps\n")
    assert main([str(path)]) == 1
    assert "one.scene" in capsys.readouterr().out
