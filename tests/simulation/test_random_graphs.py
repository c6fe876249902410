"""Whole clusters of the real cores, on a simulated network: what they compute, and that nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from treadle.testing.simulation.cluster import Cluster
from treadle.testing.simulation.graphs import SHAPES
from treadle.testing.simulation.scenario import Scenario, Step, scenario_of
from treadle.testing.simulation.shrinking import check, literal, shrink
from treadle.testing.simulation.speed import measure
from treadle.testing.simulation.trial import SimulationFailure, simulate

#: Seeds that have failed once, and what they found.
FAILED = {
    56: "a worker that comes back said something on the new stream before its inventory, and was thrown out",
    92: "compaction took clients that had come back for clients that were given up",
    115: "a key that a client wanted anew, in vain, was wanted for ever in the journal",
    50: "fire-and-forget work whose data was lost was waited for by every scheduler to come",
    121: "the same for a key of a client",
    155: "keys that a client had heard to be cancelled were kept for it by the next scheduler",
    166: "while the journal could not be written, rows waited for ever for refused chunks of their submission",
    219: "a client that came back while the disk was slow was given up, and never welcomed",
    10307: "a client that registered on two connections in one turn was thrown out",
    3433: "the simulation's own: what came on a stream before its end counts before the party connects again",
    234: "a client that was given up, and whose welcome got lost, was taken for known",
    10138: "a value that had two ids when a scheduler was replaced kept the one that nobody knew",
    11403: "a value that was to be dropped when that was on disk, and was asked for again meanwhile, was kept for ever",
    11015: "a copy under way was waited for when all had been forgotten",
    11488: "a copy that a worker was to keep for an earlier scheduler was waited for for ever",
    14546: "a value that was kept for whoever might ask for it was dropped when its worker came back a second time",
    15350: "a worker that had been emptied and did not hear that it was to close took no tasks, for ever",
    13884: "a value that two clients had scattered was dropped when one of them released it, and the scheduler died",
    10627: "a value that was lost before its worker heard of its new id was taken to be there",
    11259: "a copy that came just before its worker was told to drop it was taken to be there",
    17405: "a client that came back said once more where it had put a value, which had been dropped there meanwhile",
    16747: "of two values that a worker had for one key, that with the key's own name was dropped, and the other one renamed",
    28367: "a value that was scattered under a key that had been computed and cancelled was dropped by the next scheduler",
    24606: "a value that was put on a worker that had come back as a new one twice since was left there for ever",
    31550: "a client believed a key to be cancelled, refused as the journal could not be written, and the scheduler that it wanted it",
    31554: "a client that was away when a key was cancelled for all waited for it for ever, as it had two names",
    30762: "a cancellation that a client said anew took the key that it had submitted since, under an id that others had kept",
    31114: "a task that its worker had finished was assigned to it in the turn in which the news of that came",
    30646: "what a worker had said behind a registration that was refused was taken for a breach of the protocol",
    21247: "two schedulers that went on from the same journal gave the same number to two clients",
    51716: "a client that was given up and came back while the disk was slow was never welcomed once more",
    40857: "a value that was put on a worker that nobody knew by that name any more stayed there for ever",
    20778: "the same key, submitted twice at once in chunks that alternate, and cancelled, was waited for for ever",
    233880: "scattered data that was lost and to be forgotten, said in one frame, was wanted for ever in the journal",
    308556: "the second of two values that were scattered under one key was dropped before it was written down that it was the second",
    615627: "what a client submitted once more was taken for the attempt at it that was executing since before it was given up",
    620453: "a failed key that a client retried after it had been given up was pending there for ever",
    704197: "a failed key whose retry a client had said once more, and cancelled, was pending there for ever",
    405250: "an assignment of before the scheduler died went on to wait for a value under the name that it had had then",
    216537: "a key that had been computed and was scattered had names that the next scheduler did not know",
    128991: "a worker that was to keep a copy of a value that was lost meanwhile waited for it for ever",
    120271: "what depended on a key by the name that another client had given it was cancelled by a scheduler that did not know that name",
    114745: "a client that said once more what was written down in part had the same name twice",
    60251: "the failure of work that was to be forgotten, which runs again since others need it, failed these at the next scheduler",
    61954: "an execution that nobody had asked for yet, and that had failed, was waited for for ever",
    61787: "the same for one that a worker was told to give up when it came a second time",
    7018454: "a value that a client had put was taken for a key's computed one, and dropped before the client said that it had put it",
    8036933: "a client's late word of a value counted, though all had been forgotten since its worker had told of it",
    8060065: "a worker's second word of the same copy came behind the order to drop it, and the copy was taken to be there",
    7073239: "a worker that came back went on to want a copy that it was to keep, and nobody told it that the value was lost",
    7074827: "a failed key that was made once more for a client that came back, and cancelled with its input, was finished for it for ever",
    8017017: "a client's retry of a failed key that had just been cancelled with its input had it wanted for ever",
    8004444: "the judge's own: who was away when it was told that its data was lost hears that it is forgotten",
    13398: "what a client said of a key that came back in the same turn meant something else to the reader of the journal",
}
#: Others that failed for the same reasons.
_ALSO = (
    "935 1743 3778 10532 14012 22659 24501 25112 27810 20693 20847 21309 24090 "
    "24119 24708 25780 28006 28015 29919 30401 30555 30556 40374 40659 44491 48029 "
    "66168 69756 125250 234192 300359 401023 "
    "507050 621464 "
)
FAILED_ALSO = [int(seed) for seed in _ALSO.split()]

#: Seeds that failed since the numbers of schedulers are drawn.
FAILED_DRAWN = {
    20181: "a scheduler that had drawn lower numbers than the one before gave a newcomer the number of somebody who came back later",
    21245: "the same",
}

#: The smallest scenarios that were found for what failed once.
FOUND = [
    # A client that waited for the disk, and left before it was welcomed, was never given up by the next scheduler.
    Scenario(
        619,
        clients=2,
        journal=True,
        compaction_bytes=4000,
        grace_s=5.0,
        recovery_grace_s=2.0,
        script=(
            Step(0.06, "submit", 1),
            Step(0.1, "cut all", 2),
            Step(0.2, "cut all", 3),
            Step(0.25, "kill client", 4),
            Step(0.6, "kill scheduler", 5),
        ),
    ),
    # A cancellation that was sent again was answered once more, and that took the key that the client had submitted anew meanwhile.
    Scenario(
        1452,
        tasks=50,
        shape="layers",
        workers=5,
        chunks=4,
        slowness=5.0,
        journal=True,
        script=(
            Step(0.078686, "submit", 499180),
            Step(0.102893, "cancel", 446448),
            Step(0.128192, "cancel", 672914),
            Step(0.131768, "release", 374269),
            Step(0.141799, "submit", 932736),
            Step(0.142126, "cut one way", 163271),
            Step(0.156086, "cut", 571922),
            Step(0.246622, "kill scheduler", 981911),
        ),
    ),
    # A client that had been given up defined its functions anew, for a scheduler that died before it had written down either.
    Scenario(
        2664,
        tasks=1,
        clients=2,
        workers=3,
        scattered=1,
        grace_s=0.03,
        journal=True,
        script=(
            Step(0.055631, "connect again", 25685),
            Step(0.065705, "kill worker", 931525),
            Step(0.067482, "connect again", 240582),
            Step(0.072395, "submit", 275753),
            Step(0.089462, "connect again", 578284),
            Step(0.111741, "slow disk", 346309),
            Step(0.229914, "cut all", 626157),
            Step(0.265521, "tick", 99793),
            Step(0.336468, "kill scheduler", 925067),
        ),
    ),
]

share = st.sampled_from([0.0, 0.05, 0.3])
scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 10**6),
    tasks=st.integers(1, 40),
    shape=st.sampled_from(SHAPES),
    clients=st.integers(1, 3),
    workers=st.integers(1, 4),
    nthreads=st.integers(1, 3),
    acts=st.integers(1, 30),
    chunks=st.integers(1, 4),
    broken_share=share,
    flaky_share=share,
    retries=st.integers(0, 2),
    reschedule_share=share,
    restricted_share=share,
    deaths=st.integers(0, 5),
    allowed_failures=st.sampled_from([0, 1000]),
    pauses=st.integers(0, 2),
    data_losses=st.integers(0, 3),
    scattered=st.integers(0, 2),
    cancels=st.booleans(),
    leaves=st.booleans(),
    restart=st.booleans(),
    scheduler_deaths=st.integers(0, 2),
    drawn=st.booleans(),
    journal=st.booleans(),
    cuts=st.integers(0, 5),
    grace_s=st.sampled_from([0.0, 5.0]),
    recovery_grace_s=st.just(5.0),
    horizon_s=st.sampled_from([0.1, 0.3]),
    slowness=st.sampled_from([1.0, 5.0]),
    saturation=st.sampled_from([1.1, 2.0, float("inf")]),
    prefetch_time_s=st.sampled_from([0.0, 0.01, 0.1]),
)
some = settings(
    max_examples=int(os.environ.get("TREADLE_SIMULATIONS", "100")),
    derandomize="TREADLE_SIMULATIONS" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@given(scenarios)
@some
@example(Scenario(seed=0, tasks=1))
def test_what_is_wanted_is_computed_and_nothing_is_left(scenario: Scenario) -> None:
    simulate(scenario)


@pytest.mark.parametrize("block", range(20))
def test_everything_at_once(block: int) -> None:
    for seed in range(25 * block, 25 * block + 25):
        check(seed)


@pytest.mark.parametrize("seed", (*FAILED, *FAILED_ALSO))
def test_seeds_that_failed_when_the_numbers_of_schedulers_grew(seed: int) -> None:
    check(seed, drawn=False)


@pytest.mark.parametrize("seed", FAILED_DRAWN)
def test_seeds_that_failed_before(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("scenario", FOUND, ids=lambda scenario: f"seed {scenario.seed}")
def test_small_scenarios_that_failed_before(scenario: Scenario) -> None:
    simulate(scenario)


def test_what_fails_is_made_smaller_and_printed_as_a_literal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails when a client goes: of all that happens only that is left."""

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a client was lost")

    monkeypatch.setattr(Cluster, "lose_client", fail)
    seed = next(seed for seed in range(100) if any(step.what == "kill client" for step in scenario_of(seed).script or ()))
    with pytest.raises(SimulationFailure) as caught:
        simulate(scenario_of(seed))
    small = shrink(caught.value).scenario
    assert [step.what for step in small.script or ()] in (["kill client"], ["leave"])
    assert (small.tasks, small.clients, small.workers) == (1, 1, 1)
    assert eval(literal(small), {"Scenario": Scenario, "Step": Step}) == small


def _log(seed: int, hash_seed: str) -> str:
    code = (
        "from treadle.testing.simulation.scenario import scenario_of\n"
        "from treadle.testing.simulation.trial import simulate\n"
        f"print('\\n'.join(simulate(scenario_of({seed}), logging=True).world.log))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("seed", [3, 25])
def test_a_seed_gives_the_same_messages_under_every_hash_seed(seed: int) -> None:
    first, *others = [_log(seed, hash_seed) for hash_seed in ("0", "1", "31337")]
    assert len(first.splitlines()) > 20
    assert others == [first] * len(others)


def test_command_says_how_many_seeds_passed() -> None:
    done = subprocess.run([sys.executable, "-m", "treadle.testing.simulation", "--seeds", "3"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "3 of 3 seeds passed" in done.stdout


def test_command_runs_a_seed_again_and_prints_what_happens() -> None:
    command = [sys.executable, "-m", "treadle.testing.simulation", "--replay", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "RegisterWorker" in done.stdout and "1 of 1 seeds passed" in done.stdout


def test_speed_is_measured() -> None:
    speed = measure(200)
    assert speed.tasks == 200 and speed.simulated_s > 0 and speed.steps > 200
