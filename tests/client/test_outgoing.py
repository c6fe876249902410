"""What is merged on its way out, and what keeps its place."""

from treadle.client.session.outgoing import Outgoing
from treadle.messages.client_scheduler import DefineFunctions, FireAndForget, ReleaseKeys, SubmitTasks


def call(out, id, agreed=("",)):
    message = out.joinable(agreed)
    if message is None:
        message = SubmitTasks(1, [], [], [], [])
        out.open(message, agreed)
    message.ids.append(id)
    out.grow(7)


def test_calls_that_agree_are_one_message():
    out = Outgoing()
    call(out, 1)
    call(out, 2)
    call(out, 3)
    call(out, 4, agreed=("priority",))
    ((messages, buffers),) = out.take()
    assert [message.ids for message in messages] == [[1, 2, 3], [4]]
    assert buffers == []
    assert len(out) == 0
    assert out.nbytes == 0


def test_a_definition_goes_before_the_open_submission():
    out = Outgoing()
    call(out, 1)
    out.define(DefineFunctions([9], ["f"], [b"body"]))
    call(out, 2)
    ((messages, _),) = out.take()
    assert [type(message) for message in messages] == [DefineFunctions, SubmitTasks]
    assert messages[1].ids == [1, 2]


def test_nothing_passes_a_release():
    out = Outgoing()
    call(out, 1)
    out.release([5])
    out.release([6])
    call(out, 2)
    out.add(FireAndForget([2]))
    ((messages, _),) = out.take()
    assert [type(message) for message in messages] == [SubmitTasks, ReleaseKeys, SubmitTasks, FireAndForget]
    assert messages[1].ids == [5, 6]


def test_frames_are_cut_and_keep_their_buffers():
    out = Outgoing()
    big = bytes(20 * 2**20)
    out.add(FireAndForget([1]), [big])
    out.add(FireAndForget([2]), [b"x"])
    frames = out.take()
    assert [len(messages) for messages, _ in frames] == [1, 1]
    assert frames[0][1] == [big]
    assert frames[1][1] == [b"x"]


def test_provisional_ids_are_raised():
    out = Outgoing()
    out.add(SubmitTasks(1, [1, 2], ["a", "b"], [1, 0], [b"", b""], dependencies=[[], [1]], wanted=[2]))
    out.release([3])
    out.rebase(100)
    ((messages, _),) = out.take()
    submit, release = messages
    assert (submit.ids, submit.functions, submit.dependencies, submit.wanted) == ([101, 102], [101, 0], [[], [101]], [102])
    assert release.ids == [103]
