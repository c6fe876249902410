"""What a client keeps until it is acknowledged, and what it tells a scheduler that never heard of it."""

import pytest

from treadle.client.rows.functions import KnownFunction
from treadle.client.session.frames import URGENT_BYTES, SentFrames, recollections
from treadle.client.session.ledger import ERROR, FINISHED, PENDING, Ledger
from treadle.messages.client_scheduler import DefineFunctions, ReattachKeys, ReleaseKeys, Sent, SubmitTasks
from treadle.messages.codec import encode

ME = 3


@pytest.fixture
def sent():
    return SentFrames()


def send(sent, *messages, buffers=()):
    body = encode([*messages, Sent(sent.sequence + 1)])
    sent.keep(body, buffers)
    return body


def test_frames_are_kept_until_they_are_acknowledged(sent):
    bodies = [send(sent, ReleaseKeys([n])) for n in range(5)]
    assert [frame.sequence for frame in sent] == [1, 2, 3, 4, 5]
    assert sent.nbytes == sum(map(len, bodies))
    sent.received(3)
    assert [frame.body for frame in sent] == bodies[3:]
    assert (sent.acknowledged, sent.sequence) == (3, 5)
    sent.received(5)
    assert len(sent) == 0 and sent.nbytes == 0 and sent.acknowledged == 5
    send(sent, ReleaseKeys([9]))
    assert [frame.sequence for frame in sent] == [6]


def test_buffers_count(sent):
    body = send(sent, ReleaseKeys([]), buffers=[bytearray(1000)])
    assert sent.nbytes == len(body) + 1000


def test_an_answer_is_asked_for_once_when_much_is_kept(sent):
    assert not sent.is_urgent()
    send(sent, ReleaseKeys([]), buffers=[bytearray(URGENT_BYTES)])
    assert sent.is_urgent()
    send(sent, ReleaseKeys([]))
    assert not sent.is_urgent()
    sent.received(1)
    assert not sent.is_urgent()
    send(sent, ReleaseKeys([]), buffers=[bytearray(URGENT_BYTES)])
    sent.received(2)
    assert sent.is_urgent()


def test_a_frame_in_place_of_those_that_were_acknowledged(sent):
    for n in range(4):
        send(sent, ReleaseKeys([n]))
    sent.received(2)
    sent.put_first(encode([ReleaseKeys([7]), Sent(sent.acknowledged)]))
    assert [frame.sequence for frame in sent] == [2, 3, 4]
    assert [message for message in sent.messages() if isinstance(message, ReleaseKeys)] == [
        ReleaseKeys([7]),
        ReleaseKeys([2]),
        ReleaseKeys([3]),
    ]
    sent.received(2)
    assert [frame.sequence for frame in sent] == [3, 4]


def ledger_with(*keys):
    ledger = Ledger()
    ledger.set_number(ME)
    ledger.claim(list(keys))
    return ledger


def known(id, name):
    function = KnownFunction(name, "token", name.encode())
    function.id = id
    return function


def test_a_new_scheduler_hears_what_the_old_one_knew():
    ledger = ledger_with("a", "b", "c", "d")
    a, b, c, d = (ledger.states[key] for key in "abcd")
    a.status, a.worker = FINISHED, 9
    b.status = ERROR
    under_way = [
        DefineFunctions([ME << 32 | 2], ["g"], [b"g"]),
        SubmitTasks(1, [d.id], ["d"], [0], [b""]),
    ]
    functions = [known(ME << 32 | 1, "f"), known(ME << 32 | 2, "g")]
    messages = recollections(ledger, ME, functions, under_way)
    assert messages == [DefineFunctions([ME << 32 | 1], ["f"], [b"f"]), ReattachKeys([a.id, c.id], ["a", "c"])]
    assert (a.status, a.worker, b.status) == (PENDING, 0, ERROR)


def test_other_clients_names_of_keys_are_replaced():
    ledger = ledger_with("a")
    state = ledger.states["a"]
    ledger._alias(state.id, 8 << 32 | 5)
    (message,) = recollections(ledger, ME, [], [])
    assert message.ids == [state.id] and state.id >> 32 == ME
    assert ledger.by_id == {state.id: state}


def test_nothing_is_said_when_all_is_on_its_way():
    ledger = ledger_with("a")
    submission = SubmitTasks(1, [ledger.states["a"].id], ["a"], [0], [b""])
    assert recollections(ledger, ME, [], [submission]) == []
