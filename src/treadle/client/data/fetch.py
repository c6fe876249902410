"""Waiting for keys and fetching their values from whichever worker has them, until all are here or have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from treadle.client.session.ledger import FINISHED, PENDING, KeyState
from treadle.client.session.peers import Fetched, PeerPool
from treadle.client.session.stream import Session
from treadle.comm.interface import Buffer
from treadle.context import current_client
from treadle.exceptions import CommClosedError
from treadle.messages.base import Block, TaskError
from treadle.messages.client_scheduler import Query
from treadle.serialize.values import loads, unpack_block

#: How often a value is asked for that the scheduler says is there, and how long to wait before the second time, in seconds.
_ATTEMPTS: Final = 12
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 2.0


@dataclass
class Collected:
    """Blocks as they came, to be unpickled by who wants them; and what could not be pickled."""

    blocks: list[tuple[list[KeyState], Block, list[Buffer]]] = field(default_factory=list)
    #: Pickles of those that came with the news that they are there.
    small: dict[KeyState, bytes] = field(default_factory=dict)
    failed: dict[KeyState, TaskError] = field(default_factory=dict)


async def collect(session: Session, pool: PeerPool, states: Sequence[KeyState], fail_fast: bool) -> Collected:
    """Wait until all are settled and fetch the values of those that are finished.

    ``fail_fast``: return without values as soon as one is not finished well. A value that went away is waited for again.
    Raises CommClosedError naming key and worker when a value cannot be had though the scheduler says that it is there.
    """
    collected = Collected()
    todo = list(states)
    tries: dict[KeyState, int] = {}
    while True:
        await session.settled(todo, fail_fast=fail_fast)
        ready = [state for state in todo if state.status is FINISHED]
        if fail_fast and any([state.status is not FINISHED and state.status is not PENDING for state in todo]):
            return Collected()
        again = [state for state in todo if state.status is PENDING]
        problems = await _fetch(session, pool, ready, collected, tries)
        for state, problem in problems.items():
            tries[state] = tries.get(state, 0) + 1
            if tries[state] >= _ATTEMPTS and state.status is FINISHED:
                raise CommClosedError(f"the value of {state.key!r} could not be fetched: {problem}")
            again.append(state)
        if not again:
            return collected
        if problems:
            # The scheduler hears of a lost worker by itself, and then the key is pending or elsewhere.
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** min(max([tries[state] for state in problems]), 10), _LONGEST_PAUSE_S))
        todo = again


def collect_small(session: Session, states: Sequence[KeyState], fail_fast: bool, timeout_s: float | None) -> Collected | None:
    """As ``collect``, for a thread that may block, as long as nothing has to be fetched: the loop has nothing to do for it.

    None: something has to be. Raises TimeoutError.
    """
    if any([state.status is FINISHED and state.value is None for state in states]):
        return None
    if not session.settled_here(states, fail_fast, timeout_s):
        raise TimeoutError
    collected = Collected()
    for state in states:
        if state.status is FINISHED:
            value = state.value
            if value is None:
                return None
            collected.small[state] = value
        elif fail_fast and state.status is not PENDING:
            return Collected()
        elif state.status is PENDING:
            # Lost meanwhile, and computed again.
            return None
    return collected


async def _fetch(
    session: Session, pool: PeerPool, states: Sequence[KeyState], collected: Collected, tries: dict[KeyState, int]
) -> dict[KeyState, str]:
    """One request to each worker. Returns what did not come, and why."""
    if not states:
        return {}
    there = {state: state.value for state in states if state.value is not None}
    if there:
        collected.small.update(there)
        states = [state for state in states if state not in there]
    unconfirmed = [state for state in states if state in tries]
    elsewhere = await _holders(session, unconfirmed) if unconfirmed else {}
    by_address: dict[str, list[KeyState]] = {}
    problems: dict[KeyState, str] = {}
    for state in states:
        address = session.peers.get(state.worker, "")
        others = elsewhere.get(state)
        if others:
            # Each time another one.
            address = others[tries[state] % len(others)]
        if address:
            by_address.setdefault(address, []).append(state)
        else:
            problems[state] = f"worker number {state.worker}, which had it, is gone"
    requests = list(by_address.items())
    # An id may become another one meanwhile: those asked for are the ones answered.
    asked = [{state.id: state for state in group if state.id} for _, group in requests]
    answers = await asyncio.gather(
        *[pool.get(address, list(ids)) for (address, _), ids in zip(requests, asked, strict=True)], return_exceptions=True
    )
    for (address, group), ids, answer in zip(requests, asked, answers, strict=True):
        if isinstance(answer, Fetched):
            for block, buffers in answer.blocks:
                collected.blocks.append(([ids[id] for id in block.ids], block, buffers))
            for id, error in answer.failed:
                collected.failed[ids[id]] = error
            for id in answer.missing:
                problems[ids[id]] = f"worker {address} does not have it"
        elif isinstance(answer, Exception):
            for state in group:
                problems[state] = f"worker {address} could not be asked: {answer}"
        else:
            raise answer
    return problems


async def _holders(session: Session, states: Sequence[KeyState]) -> dict[KeyState, list[str]]:
    """Addresses of all workers that have the values, as the scheduler knows it now."""
    keys = [state.key for state in states]
    answer = await session.request(lambda number: Query(number, "who_has", {"keys": keys}))
    return {state: list(addresses) for state, (_, addresses) in zip(states, answer, strict=True)}


def unpack(collected: Collected, client: Any) -> dict[KeyState, Any]:
    """The values; futures in them are the client's. Raises what unpickling raises, with the keys of the block."""
    token = current_client.set(client)
    try:
        return _unpack(collected)
    finally:
        current_client.reset(token)


def _unpack(collected: Collected) -> dict[KeyState, Any]:
    values: dict[KeyState, Any] = {}
    for state, data in collected.small.items():
        try:
            values[state] = loads(data)
        except Exception as error:
            error.add_note(f"while unpickling the result of {state.key!r} in the client")
            raise
    for states, block, buffers in collected.blocks:
        try:
            values.update(zip(states, unpack_block(block, buffers), strict=True))
        except Exception as error:
            names = ", ".join([repr(state.key) for state in states[:3]]) + (", ..." if len(states) > 3 else "")
            error.add_note(f"while unpickling the results of {names} in the client")
            raise
    return values
