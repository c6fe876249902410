"""What happens in a simulation of progress and balance: who comes and goes, and what is asked for, when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

#: How the user names tasks; see ``key_of``.
Naming: TypeAlias = Literal["hash", "counter", "part", "uuid", "tuple"]
NAMINGS: Final[tuple[Naming, ...]] = ("hash", "counter", "part", "uuid", "tuple")
#: What each task of a submission needs of an earlier one: nothing, the value at its own place, all values, or two neighbours.
Needs: TypeAlias = Literal["nothing", "own", "all", "neighbours"]


@dataclass(frozen=True)
class Join:
    at: float
    name: str
    nthreads: int = 1
    resources: dict[str, float] = field(default_factory=dict)
    host: str = ""


@dataclass(frozen=True)
class Leave:
    """The worker retires."""

    at: float
    name: str


@dataclass(frozen=True)
class Die:
    at: float
    name: str


@dataclass(frozen=True)
class Pause:
    at: float
    name: str
    for_s: float


@dataclass(frozen=True)
class Submit:
    """``count`` calls of one function. ``of``: the place among all ``Submit`` and ``Scatter`` steps of what they need."""

    at: float
    client: str
    function: int
    count: int
    naming: Naming = "hash"
    priority: float = 0
    workers: tuple[str, ...] | None = None
    allow_other_workers: bool = False
    resources: dict[str, float] | None = None
    needs: Needs = "nothing"
    of: int = -1
    #: They are submitted from inside this task, (place of its step, number), by the client of the worker that runs it.
    inside: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scatter:
    """``count`` values are put on these workers, one after the other."""

    at: float
    client: str
    count: int
    onto: tuple[str, ...]


Step: TypeAlias = Join | Leave | Die | Pause | Submit | Scatter


@dataclass(frozen=True)
class BalanceScenario:
    seed: int
    steps: tuple[Step, ...]
    #: Seconds that each function takes.
    durations: tuple[float, ...] = (1.0,)
    saturation: float = 1.1
    scatter_replicas: int = 2
    no_workers_timeout_s: float | None = 20.0
    #: Shares of clients by name; 1.0 for others.
    weights: dict[str, float] = field(default_factory=dict)


def key_of(chance: random.Random, naming: Naming, function: int, step: int, number: int) -> object:
    """A key as people make them up."""
    if naming == "hash":
        return f"f{function}-{chance.getrandbits(128):032x}"
    if naming == "counter":
        return f"load{step}_{number}"
    if naming == "part":
        return f"run{number}-part{step}-{number}"
    if naming == "uuid":
        digits = f"{chance.getrandbits(128):032x}"
        return f"sim-{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    return (f"x{function}-{step:032x}", number)


def balance_scenario_of(seed: int) -> BalanceScenario:
    """A scenario with everything in it, more or less of it by chance."""
    chance = random.Random(f"balance {seed}")
    count = chance.choice((1, 2, 3, 5, 10, 30, 60, 200))
    durations = tuple(chance.choice((0.0001, 0.005, 0.05, 0.5, 2.0, 5.0)) for _ in range(chance.randint(1, 4)))
    steps: list[Step] = []
    names = [f"w{number}" for number in range(count)]
    late = chance.choice((0.0, 0.2, 0.7))
    having = chance.choice((0.0, 0.1, 0.5, 1.0))
    threads: dict[str, int] = {}
    for at, name in enumerate(names):
        # The first one is there from the start, and has what can be asked for.
        when = chance.uniform(0.0, 15.0) if at and chance.random() < late else 0.0
        resources = {"GPU": chance.choice((1.0, 2.0))} if at == 0 or chance.random() < having else {}
        threads[name] = chance.choice((1, 1, 2, 4))
        steps.append(Join(when, name, threads[name], resources, f"host{at % chance.choice((2, 5))}"))
    total = sum(threads.values())
    leaving = chance.sample(names[1:], min(len(names) - 1, chance.choice((0, 0, 1, 3))))
    steps.extend(Leave(chance.uniform(2.0, 20.0), name) for name in leaving)
    staying = [name for name in names[1:] if name not in leaving]
    steps.extend(Die(chance.uniform(2.0, 20.0), name) for name in chance.sample(staying, min(len(staying), chance.choice((0, 0, 0, 1, 2)))))
    if chance.random() < 0.2:
        steps.extend(Pause(chance.uniform(1.0, 20.0), name, chance.uniform(1.0, 10.0)) for name in chance.sample(names, min(2, count)))
    clients = [f"c{number}" for number in range(chance.choice((1, 1, 2, 3)))]
    weights = {name: chance.choice((0.5, 3.0)) for name in clients if chance.random() < 0.2}
    # Only where nobody has wishes can it be judged how clients share.
    is_simple = chance.random() < 0.3
    has_scattered = chance.random() < 0.4
    asked: list[Submit | Scatter] = []
    if has_scattered:
        asked.append(Scatter(1.0, chance.choice(clients), chance.choice((1, 20, 300)), tuple(chance.sample(names[:1], 1))))
    for _ in range(chance.choice((1, 2, 4, 8))):
        function = chance.randrange(len(durations))
        # About so many seconds of work for all of them together, and not too many tasks to look at.
        most = int(min(500, chance.choice((3.0, 12.0)) * total / max(durations[function], 0.01)))
        number = max(1, min(most, chance.choice((1, 10, 100, 500))))
        before = [at for at, step in enumerate(asked) if step.at < 8.0]
        of = chance.choice(before) if before and not is_simple and chance.random() < 0.5 else -1
        needs: Needs = chance.choice(("own", "own", "neighbours", "all")) if of >= 0 else "nothing"
        if needs == "all" and asked[of].count > 30:
            number = 1
        wish = 1.0 if is_simple else chance.random()
        if wish < 0.35:
            # Perhaps there is one worker only that may run them.
            number = min(number, 40)
        asked.append(
            Submit(
                asked[of].at + 0.5 if of >= 0 else round(chance.uniform(0.5, 10.0), 3),
                asked[of].client if of >= 0 else chance.choice(clients),
                function,
                number,
                chance.choice(NAMINGS),
                0 if is_simple else chance.choice((0, 0, 0, 1, -1)),
                tuple(chance.sample([*names, "host0", "nobody"], min(count, chance.choice((1, 2, 4))))) if wish < 0.15 else None,
                chance.random() < 0.3,
                {"GPU": chance.choice((1.0, 1.0, 0.5, 2.0, 100.0))} if 0.1 < wish < 0.35 else None,
                needs,
                of,
            )
        )
    return BalanceScenario(
        seed,
        tuple([*steps, *asked]),
        durations,
        saturation=chance.choice((1.1, 1.1, 1.1, 2.0, float("inf"))),
        no_workers_timeout_s=chance.choice((None, 20.0)),
        weights=weights,
    )
