import time

import pytest

from pseudo_labels.errors import shown


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        [["y"] * 10**5] * 1000,
        {str(number): number for number in range(10**5)},
        10**4000,
        -(7**20_000),
        [1 << 10**6],
        b"z" * 10**6,
        {"a": [{"b": [{"c": [1]}]}]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_in_bounded_length_and_time(value: object) -> None:
    started = time.process_time()
    assert 0 < len(shown(value)) < 600
    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", ["text", 12, -1.5, None, [1, "a"], {"a": 1}, True, 10**39])
def test_a_short_value_is_its_repr(value: object) -> None:
    assert shown(value) == repr(value)
