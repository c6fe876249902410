"""Three starts in a minute, and no more."""

from treadle.utils.starts import Starts


def test_three_in_a_minute() -> None:
    starts = Starts()
    assert [starts.another(now) for now in (0.0, 10.0, 20.0, 30.0, 59.0)] == [True, True, True, False, False]
    # Those of a minute ago do not count any more; failures that were the end never did.
    assert starts.another(61.0) and not starts.another(62.0)
