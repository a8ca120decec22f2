import time

import pytest

from students.formats.timing import processor_flags, processor_times


def spin(milliseconds: float) -> None:
    end = time.process_time() + milliseconds / 1e3
    while time.process_time() < end:
        pass


def test_processor_time_is_compared_with_the_first_and_waiting_is_none():
    works = {"first": lambda: spin(4), "double": lambda: spin(8), "waits": lambda: time.sleep(0.01)}
    times = processor_times(works, rounds=3, repeats=1, warmups=0)
    assert list(times) == list(works)
    assert times["first"].ratio == 1
    assert times["first"].median_ms == pytest.approx(4, rel=0.3)
    assert times["double"].ratio == pytest.approx(2, rel=0.3)
    assert times["waits"].ratio < 0.5


def test_each_has_its_turn_in_each_round_after_the_warm_up():
    seen: list[str] = []
    processor_times({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2, repeats=2, warmups=1)
    assert "".join(seen) == "ab" + "aabb" * 2


def test_flags_are_words_of_the_system():
    with open("/proc/cpuinfo") as file:
        text = file.read()
    assert all(flag in text.split() for flag in processor_flags())
