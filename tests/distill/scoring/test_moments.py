from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from distill.scoring.moments import LOOSE_BITS, MIDDLE_BITS, STRICT_BITS, Seen, burst_of, moments_of
from pseudo_labels.errors import PocketiqaError

BASE = 0x0F1E2D3C4B5A6978


def off(bits: int) -> int:
    """A hash that differs from ``BASE`` in so many bits."""
    return BASE ^ ((1 << bits) - 1)


def seen(name: str = "a", taken: float | None = None, dhash: int | None = None, angle: float | None = None) -> Seen:
    direction = None if angle is None else np.array([np.cos(angle), np.sin(angle)], np.float32)
    return Seen(Path("/photographs") / name, taken, dhash, direction)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IMG_20190811_115937_BURST001_COVER.jpg", "IMG_20190811_115937_BURST012.jpg"),
        ("00000IMG_00000_BURST20190811115937530_COVER.jpg", "00003IMG_00003_BURST20190811115937530.jpg"),
        ("DSC_0001_BURST20190811115937530.JPG", "DSC_0007_BURST20190811115937530.JPG"),
        ("PXL_20210101_010101010.BURST-01.COVER.jpg", "PXL_20210101_010101010.BURST-02.jpg"),
        ("20190811_115937_001.jpg", "20190811_115937_002.jpg"),
        ("20190811_115937(0).jpg", "20190811_115937(1).jpg"),
        ("20190811_115937_Burst01.jpg", "20190811_115937_burst02.jpg"),
    ],
)
def test_names_of_bursts(one: str, other: str):
    first, second = (burst_of(Path("/a") / name) for name in (one, other))
    assert first is not None
    assert first == second
    assert burst_of(Path("/b") / other) != first  # in another folder


@pytest.mark.parametrize(
    "name", ["IMG_0001.jpg", "20190811_115937.jpg", "sunburst.jpg", "sunburst_1.jpg", "burst.jpg", "a_12.jpg"]
)
def test_names_that_say_nothing(name: str):
    assert burst_of(Path(name)) is None


def test_a_burst_is_one_moment_whatever_it_shows():
    photographs = [seen("x_BURST1.jpg", 0.0, off(0)), seen("y.jpg", 0.0, off(64)), seen("x_BURST2.jpg", 900.0, off(32))]
    assert moments_of(photographs) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("photograph", "joined"),
    [
        (seen("b", 105.0, off(LOOSE_BITS)), True),
        (seen("b", 105.0, off(LOOSE_BITS + 1)), False),
        (seen("b", 105.0, off(40), angle=0.1), True),
        (seen("b", 105.0, None, angle=1.0), False),
        (seen("b", 110.5, off(0), angle=0.0), False),
        (seen("b", None, off(STRICT_BITS)), True),
        (seen("b", None, off(STRICT_BITS + 1)), False),
        (seen("b", None, off(MIDDLE_BITS), angle=0.1), True),
        (seen("b", None, off(MIDDLE_BITS), angle=1.0), False),
        (seen("b", None, off(MIDDLE_BITS + 1), angle=0.1), False),
        (seen("b", None, None), False),
    ],
)
def test_time_and_looks_decide(photograph: Seen, joined: bool):
    first = seen("a", 100.0, BASE, angle=0.0)
    for pair in ([first, photograph], [photograph, first]):
        assert moments_of(pair, seconds=10.0, alike=0.9) == ([[0, 1]] if joined else [[0], [1]])


def test_chains_are_one_group_in_the_order_of_the_first():
    # Each ten seconds after another one; the first and the last are further apart.
    photographs = [seen("z", 500.0, off(60)), *(seen(str(number), 10.0 * number, BASE) for number in (2, 0, 1))]
    assert moments_of(photographs, seconds=10.0) == [[0], [1, 2, 3]]
    assert moments_of(photographs, seconds=9.9) == [[0], [1], [2], [3]]
    assert moments_of([]) == []


def test_many_photographs_are_grouped_as_one_by_one():
    rng = np.random.default_rng(0)
    photographs = [
        seen(str(number), float(rng.integers(0, 4000)), off(int(rng.integers(0, 30))), float(rng.uniform(0, 7)))
        for number in range(600)
    ]
    leaders = list(range(600))
    for (one, a), (other, b) in combinations(enumerate(photographs), 2):
        assert a.taken is not None and b.taken is not None  # noqa: PT018 - for the type checker
        assert a.dhash is not None and b.dhash is not None  # noqa: PT018
        assert a.direction is not None and b.direction is not None  # noqa: PT018
        alike = (a.dhash ^ b.dhash).bit_count() <= LOOSE_BITS or float(a.direction @ b.direction) >= 0.99
        if abs(a.taken - b.taken) <= 5 and alike and leaders[one] != leaders[other]:
            low, high = sorted((leaders[one], leaders[other]))
            leaders = [low if leader == high else leader for leader in leaders]
    groups = moments_of(photographs, seconds=5.0, alike=0.99)
    assert 300 < len(groups) < 600
    assert sorted(map(tuple, groups)) == sorted(
        tuple(number for number in range(600) if leaders[number] == leader) for leader in set(leaders)
    )


@pytest.mark.parametrize("seconds", [-1.0, 1e9, float("nan")])
def test_a_time_that_means_nothing_is_refused(seconds: float):
    with pytest.raises(PocketiqaError, match="a time from 0 to 86400 seconds"):
        moments_of([seen()], seconds=seconds)
