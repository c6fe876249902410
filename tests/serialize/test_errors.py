"""Exceptions arrive with type, text, traceback and causes; where that cannot be, with their text."""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle.serialize.errors
from treadle.exceptions import FutureCancelledError, KilledWorker
from treadle.messages.base import TaskError
from treadle.serialize.errors import dump_error, load_error, load_traceback


class TwoArguments(Exception):
    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} is {number}")
        self.name, self.number = name, number


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def divide() -> float:
    return 1 / 0


def fail_because() -> None:
    try:
        divide()
    except ZeroDivisionError as error:
        raise ValueError("no result") from error


def test_type_text_and_traceback_arrive() -> None:
    error = load_error(dump_error(caught(divide)))
    assert type(error) is ZeroDivisionError
    assert error.args == ("division by zero",)
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames] == ["caught", "divide"]
    assert frames[-1].filename == __file__
    assert frames[-1].line == "return 1 / 0"


def test_causes_arrive_with_their_tracebacks() -> None:
    error = load_error(dump_error(caught(fail_because)))
    assert type(error) is ValueError
    assert type(error.__cause__) is ZeroDivisionError
    assert [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)] == ["fail_because", "divide"]
    text = "".join(traceback.format_exception(error))
    assert "direct cause" in text and "in divide" in text


def test_contexts_arrive_unless_suppressed() -> None:
    def context() -> None:
        try:
            divide()
        except ZeroDivisionError:
            raise KeyError("k")  # noqa: B904

    def suppressed() -> None:
        try:
            divide()
        except ZeroDivisionError:
            raise KeyError("k") from None

    assert type(load_error(dump_error(caught(context))).__context__) is ZeroDivisionError
    lone = load_error(dump_error(caught(suppressed)))
    assert lone.__context__ is None
    assert lone.__suppress_context__


def test_the_text_is_always_there() -> None:
    sent = dump_error(caught(fail_because))
    assert sent.exception_text == "ValueError('no result')"
    assert "in divide" in sent.traceback_text
    assert sent.traceback_text.endswith("ValueError: no result\n")


def test_notes_and_attributes_arrive() -> None:
    original = TwoArguments("x", 3)
    original.add_note("look here")
    error = load_error(dump_error(original))
    assert type(error) is TwoArguments
    assert (error.name, error.number, str(error)) == ("x", 3, "x is 3")
    assert error.__notes__ == ["look here"]


@pytest.mark.parametrize(
    "original",
    [KilledWorker("x", "tcp://a:1", 3), FutureCancelledError("x", "user", "m"), KeyError("k"), OSError(2, "no", "f"), SystemExit(3)],
)
def test_known_exceptions_come_back_equal(original: BaseException) -> None:
    error = load_error(dump_error(original))
    assert type(error) is type(original)
    assert str(error) == str(original)


def test_groups_come_back() -> None:
    error = load_error(dump_error(ExceptionGroup("several", [ValueError(1), TypeError(2)])))
    assert isinstance(error, ExceptionGroup)
    assert [repr(inner) for inner in error.exceptions] == ["ValueError(1)", "TypeError(2)"]


def test_an_exception_that_cannot_be_pickled_travels_as_text() -> None:
    def fail() -> None:
        raise Locked

    sent = dump_error(caught(fail))
    assert sent.exception == b""
    error = load_error(sent)
    assert type(error) is Exception
    assert "Locked" in str(error)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


def test_a_cause_that_cannot_be_pickled_becomes_text_alone() -> None:
    def fail() -> None:
        raise ValueError("outer") from Locked()

    error = load_error(dump_error(caught(fail)))
    assert type(error) is ValueError
    assert type(error.__cause__) is Exception
    assert "Locked" in str(error.__cause__)


def test_an_exception_whose_class_is_missing_here_becomes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_on_the_worker")
    exec("class Special(Exception):\n    pass\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sent = dump_error(module.Special("text"))
    monkeypatch.delitem(sys.modules, module.__name__)
    error = load_error(sent)
    assert type(error) is Exception
    assert str(error) == "Special('text')"
    assert "only_on_the_worker" in error.__notes__[0]


def test_classes_of_main_travel_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    exec("class Mine(Exception):\n    pass\n", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    sent = dump_error(main.Mine("text"))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    error = load_error(sent)
    assert (type(error).__name__, str(error)) == ("Mine", "text")


def test_an_exception_with_a_broken_repr_has_a_text() -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __repr__

    assert "Broken" in dump_error(Broken()).exception_text


def test_endless_recursion_keeps_its_beginning_and_end() -> None:
    def forever() -> None:
        forever()

    error = load_error(dump_error(caught(forever)))
    assert type(error) is RecursionError
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[0].name == "caught"
    assert frames[-1].name == "forever"
    assert len(frames) == 100


def test_long_texts_are_cut_with_a_note() -> None:
    sent = dump_error(ValueError("x" * 5000), max_length=100)
    assert sent.exception_text.startswith("ValueError('xxx")
    assert sent.exception_text.endswith("characters left out]")
    assert len(sent.exception_text) < 150
    assert sent.traceback_text.startswith("[")
    assert str(load_error(sent)) == "x" * 5000


def test_a_huge_exception_travels_as_text() -> None:
    assert dump_error(ValueError(b"x" * 20_000_000)).exception == b""


def test_own_frames_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inner: dict[str, Callable[[], float]] = {"divide": divide}
    exec(compile("def run():\n    return divide()\n", str(tmp_path / "worker" / "execution.py"), "exec"), inner)
    try:
        inner["run"]()
    except ZeroDivisionError as raised:
        original = raised
    assert original.__traceback__ is not None
    original.__traceback__ = original.__traceback__.tb_next  # this test's own frame
    monkeypatch.setattr(treadle.serialize.errors, "_OWN", (str(tmp_path / "worker"),))
    sent = dump_error(original)
    assert [frame.name for frame in traceback.extract_tb(load_traceback(sent))] == ["divide"]
    assert "execution.py" not in sent.traceback_text


def test_without_traceback_there_is_none() -> None:
    sent = dump_error(ValueError("never raised"))
    assert load_traceback(sent) is None
    assert load_traceback(TaskError(b"", b"", "text", "")) is None


def test_loading_twice_gives_two_exceptions() -> None:
    sent = dump_error(caught(divide))
    assert load_error(sent) is not load_error(sent)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_an_exception_that_arrives_broken_becomes_its_text(exception: bytes, frames: bytes) -> None:
    error = load_error(TaskError(exception and b"\x80\x05" + exception, frames and b"\x80\x05" + frames, "the text", ""))
    assert isinstance(error, BaseException)


def test_the_chain_is_bounded() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 100):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    sent = dump_error(error)
    assert len(pickle.loads(sent.exception)) == 20
    assert str(load_error(sent)) == "99"
