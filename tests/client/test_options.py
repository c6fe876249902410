"""What users ask of tasks, and how nonsense is refused."""

from fractions import Fraction

import pytest

from treadle.client.options import make_options, number, row_options, seconds, worker_names


def test_nothing_asked_is_nothing():
    assert make_options() is None
    assert make_options(retries=0, allow_other_workers=None, resources={}) is None or make_options(resources={}).resources is None


def test_arguments_win_over_annotations():
    options = make_options(retries=1, annotations={"retries": 5, "priority": 3, "span": ("a",), "restrictions": "w1"})
    assert (options.retries, options.priority, options.workers, options.annotations) == (1, 3, ["w1"], {"span": ["a"]})


def test_workers_are_names():
    assert worker_names("a") == ["a"]
    assert worker_names(1) == ["1"]
    assert worker_names(["a", 2]) == ["a", "2"]
    assert worker_names({"b", "a"}) == ["a", "b"]
    with pytest.raises(TypeError, match="workers"):
        worker_names({"a": 1})


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"allow_other_workers": True}, ValueError, "workers="),
        ({"allow_other_workers": "yes", "workers": "a"}, TypeError, "allow_other_workers"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": "x"}, TypeError, "retries"),
        ({"resources": 1}, TypeError, "resources"),
        ({"resources": {"GPU": "x"}}, TypeError, "GPU"),
        ({"actor": True}, NotImplementedError, "actors"),
    ],
)
def test_nonsense_is_refused_by_name(asked, error, text):
    with pytest.raises(error, match=text):
        make_options(**asked)


def test_rows():
    options = row_options({"retries": 2}, {"loose_restrictions": True, "workers": ["a"], "resources": {"GPU": 1}, "executor": "gpu"})
    assert (options.retries, options.allow_other_workers, options.resources, options.executor) == (2, True, {"GPU": 1.0}, "gpu")


ENDLESS = [float("nan"), float("inf"), -float("inf"), 10**101, 10**5000, Fraction(10**400)]


@pytest.mark.parametrize("value", ENDLESS, ids=["nan", "inf", "-inf", "long", "longer", "fraction"])
def test_numbers_are_finite(value: object) -> None:
    with pytest.raises(ValueError, match="priority must be a finite number"):
        number("priority", value)


def test_large_integers_become_floats_that_the_wire_has() -> None:
    assert number("priority", 2**70) == 2.0**70 and isinstance(number("priority", 2**70), float)


@pytest.mark.parametrize("value", [float("nan"), "nan", "-1s", -1, float("inf"), "1 parsec", "", [], object(), True], ids=repr)
def test_times_are_finite_and_not_negative(value: object) -> None:
    with pytest.raises(ValueError, match="fifo_timeout"):
        seconds("fifo_timeout", value)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1], ids=repr)
def test_amounts_of_resources(amount: float) -> None:
    with pytest.raises(ValueError, match="GPU"):
        make_options(resources={"GPU": amount})


def test_nothing_of_a_resource_is_not_asked_for() -> None:
    asked = make_options(resources={"GPU": 0, "CPU": 1})
    assert asked is not None and asked.resources == {"CPU": 1.0}
