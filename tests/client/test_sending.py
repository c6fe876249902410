"""What a client sends while other things happen: its welcome, its return, other threads that know the same keys."""

import asyncio
import threading

import pytest

from treadle.client.client import Client
from treadle.client.futures import Future
from treadle.client.session.stream import Session
from treadle.client.submitting import computing
from treadle.messages.client_scheduler import (
    ClientWelcome,
    ConfirmKeys,
    ForgetFunctions,
    KeysErred,
    KeysInMemory,
    KeysLost,
    SubmitTasks,
)
from treadle.messages.codec import decode_client_to_scheduler, encode
from treadle.serialize.errors import dump_error

LIMIT_S = 30
NUMBER = 7


class Wire:
    """What the client has sent, and what it is told."""

    closed = False
    unsent_bytes = 0

    def __init__(self):
        self.messages = []

    def send(self, body, buffers=()):
        self.messages += decode_client_to_scheduler(body)

    def of(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]


class Lone(Client):
    """A client with a stream that ends in the test."""

    def __init__(self):
        super().__init__("tcp://nowhere:1", asynchronous=True, set_as_default=False)
        self.wire = Wire()
        self._session = Session(asyncio.get_running_loop(), session=b"s", functions=self._functions, on_status=lambda status: None)
        self._session.comm = self.wire
        #: Called between the chunks of a graph.
        self.meanwhile = lambda: None

    async def _start(self, *arguments, **options):
        return self

    def _throttle(self):
        self.meanwhile()

    def hear(self, message):
        self.session._receive(encode([message]), [])
        self.session._turn()

    def say(self):
        self.session._turn()
        return self.wire


def alone(test):
    async def body():
        await asyncio.wait_for(test(Lone()), LIMIT_S)

    asyncio.run(body())


def inc(x):
    return x + 1


def chain(length):
    return {"a0": (inc, 0), **{f"a{n}": (inc, f"a{n - 1}") for n in range(1, length)}}


def ids_in(message):
    yield from message.ids
    if isinstance(message, SubmitTasks):
        yield from [function for function in message.functions if function]
        yield from message.wanted or ()
        for needs in message.dependencies or ():
            yield from needs


def test_a_graph_of_which_a_part_is_sent_after_the_welcome(monkeypatch):
    monkeypatch.setattr(computing, "CHUNK_ROWS", 2)

    async def test(client):
        before = client.submit(inc, 1, key="before")
        chunks = iter([lambda: None, lambda: client.hear(ClientWelcome(NUMBER, "scheduler"))])
        client.meanwhile = lambda: next(chunks, lambda: None)()
        graph = {**chain(7), "last": (sum, ["a6", before])}
        future = client.get(graph, "last", sync=False)
        wire = client.say()
        assert sum(len(message.ids) for message in wire.of(SubmitTasks)) == 9
        assert all(id >> 32 == NUMBER for message in wire.messages if hasattr(message, "ids") for id in ids_in(message))
        assert client.session.ledger.by_id[future.state.id] is future.state
        assert len({id for message in wire.of(SubmitTasks) for id in message.ids}) == 9
        assert all(id >> 32 == NUMBER for message in wire.of(ForgetFunctions) for id in message.ids)

    alone(test)


def test_calls_of_which_some_are_prepared_before_the_welcome():
    async def test(client):
        class Late:
            """The welcome comes while this is named."""

            def __dask_tokenize__(self):
                return "late"

            def __reduce__(self):
                client.hear(ClientWelcome(NUMBER, "scheduler"))
                return int, ()

        before = client.submit(inc, 0, key="before")
        futures = client.map(inc, [before, [before], Late()], key=["a", "b", "c"])
        wire = client.say()
        assert [key for message in wire.of(SubmitTasks) for key in message.keys] == ["before", "a", "b", "c"]
        assert all(id >> 32 == NUMBER for message in wire.of(SubmitTasks) for id in ids_in(message))
        assert [client.session.ledger.by_id[future.state.id] for future in futures] == [future.state for future in futures]

    alone(test)


def test_rows_that_are_given_their_ids_before_and_after_the_welcome(monkeypatch):
    """A thread may be between its rows when the loop's thread hears the welcome."""

    async def test(client):
        add_row = client._add_row
        heard = iter([lambda: None, lambda: client.hear(ClientWelcome(NUMBER, "scheduler"))])

        def add_row_later(*arguments):
            next(heard, lambda: None)()
            return add_row(*arguments)

        monkeypatch.setattr(client, "_add_row", add_row_later)
        before = client.submit(inc, 0, key="before")
        futures = client.map(inc, [before] * 3, key=["a", "b", "c"])
        _, message = client.say().of(SubmitTasks)
        assert message.keys == ["a", "b", "c"]
        assert {id >> 32 for id in ids_in(message)} == {NUMBER}
        assert message.ids == [future.state.id for future in futures]

    alone(test)


def test_a_graph_under_way_when_the_client_gets_another_number(monkeypatch):
    monkeypatch.setattr(computing, "CHUNK_ROWS", 2)

    async def test(client):
        client.hear(ClientWelcome(NUMBER, "scheduler"))
        client.meanwhile = lambda: client.hear(ClientWelcome(NUMBER + 1, "another scheduler"))
        future = client.get(chain(4), "a3", sync=False)
        assert future.status == "cancelled"
        wire = client.say()
        # Nothing is said under the old number once the new one is known.
        assert [message.ids for message in wire.of(SubmitTasks)] == []
        assert client.submit(inc, 1, key="b").state.id >> 32 == NUMBER + 1
        (message,) = client.say().of(SubmitTasks)
        assert message.keys == ["b"]

    alone(test)


def test_a_key_that_another_thread_submits_while_a_graph_is_prepared(monkeypatch):
    monkeypatch.setattr(computing, "CHUNK_ROWS", 2)

    async def test(client):
        client.hear(ClientWelcome(NUMBER, "scheduler"))
        others = []
        client.meanwhile = lambda: others or others.append(client.submit(inc, 1, key="a3"))
        future = client.get(chain(4), "a3", sync=False)
        ((other,), wire) = (others, client.say())
        assert future.state is other.state
        row = [id for message in wire.of(SubmitTasks) for id, key in zip(message.ids, message.keys, strict=True) if key == "a3"]
        assert len(row) == 2
        wanted = [id for message in wire.of(SubmitTasks) for id in (message.ids if message.wanted is None else message.wanted)]
        # One of the two ids is one that the client will release.
        assert [id for id in wanted if id in row] == [future.state.id]

    alone(test)


def test_a_future_of_a_lost_value_says_why():
    async def test(client):
        client.hear(ClientWelcome(NUMBER, "scheduler"))
        future = Future("x", client)
        client.hear(KeysInMemory(1, "int", [future.state.id]))
        client.hear(KeysLost([future.state.id]))
        client.hear(KeysErred([future.state.id], dump_error(RuntimeError("the last copy is gone")), "x"))
        assert (future.status, future.done()) == ("lost", True)
        with pytest.raises(RuntimeError, match="the last copy is gone"):
            await future

    alone(test)


class Slow:
    """Its pickling lasts until the client is back."""

    def __init__(self, reached, go_on):
        self.reached, self.go_on = reached, go_on

    def __reduce__(self):
        self.reached.set()
        assert self.go_on.wait(LIMIT_S)
        return int, ()

    def __dask_tokenize__(self):
        return "slow"


@pytest.mark.parametrize("how", ["map", "submit", "get"])
def test_a_client_comes_back_while_a_thread_pickles_arguments(how):
    async def test(client):
        client.hear(ClientWelcome(NUMBER, "scheduler"))
        pending = client.submit(inc, 1, key="pending")
        client.say()
        reached, go_on = threading.Event(), threading.Event()
        value = Slow(reached, go_on)
        work = {
            "map": lambda: client.map(inc, [value], key=["slow"]),
            "submit": lambda: client.submit(inc, value, key="slow"),
            "get": lambda: client.get({"slow": (inc, value)}, "slow", sync=False),
        }[how]
        thread = threading.Thread(target=work)
        thread.start()
        try:
            await asyncio.to_thread(reached.wait, LIMIT_S)
            client.session.connected = False
            client.hear(ClientWelcome(NUMBER, "scheduler", True, 1))
            assert [message.ids for message in client.wire.of(ConfirmKeys)] == [[pending.state.id]]
        finally:
            go_on.set()
            await asyncio.to_thread(thread.join, LIMIT_S)
        assert [message.keys for message in client.say().of(SubmitTasks)] == [["pending"], ["slow"]]

    alone(test)
