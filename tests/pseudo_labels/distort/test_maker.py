"""Sizes of shrunk references."""

from collections import Counter

import numpy as np
import pytest

from pseudo_labels.distort.maker import plan, shrink, shrunk_size


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((768, 512), 384, (384, 256)),
        ((512, 768), 384, (256, 384)),
        ((384, 100), 384, (384, 100)),
        ((300, 200), None, (300, 200)),
        ((300, 200), 1000, (300, 200)),
        ((1001, 333), 500, (500, 166)),
        ((1000, 100), 384, (640, 64)),  # the short side stops at 64
        ((5000, 64), 384, (5000, 64)),
    ],
)
def test_shrunk_size(size: tuple[int, int], max_side: int | None, expected: tuple[int, int]) -> None:
    assert shrunk_size(*size, max_side) == expected


def test_shrink_averages(photo: np.ndarray) -> None:
    """The mean colour is kept, and a tone between two stripes comes out."""
    small = shrink(photo, 96)
    assert small.shape == (80, 96, 3)
    assert np.abs(small.mean(axis=(0, 1)) - photo.mean(axis=(0, 1))).max() < 1
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(shrink(stripes, 64).astype(int) - 100)[:, 4:-4].max() <= 3
    assert shrink(photo, 192) is photo


NAMES = [f"d{number}" for number in range(25)]
IDS = [f"image{number}" for number in range(40)]


@pytest.mark.parametrize("per_image", [1, 4, 5, 25, 60])
def test_names_come_equally_often(per_image: int) -> None:
    dealt = plan(IDS, NAMES, per_image, seed=0)
    counts = Counter(name for pairs in dealt.values() for name, _ in pairs)
    assert set(counts) == set(NAMES)
    assert max(counts.values()) - min(counts.values()) <= 1
    for pairs in dealt.values():
        assert len(pairs) == per_image == len(set(pairs))
        within = Counter(name for name, _ in pairs)
        assert max(within.values()) <= -(-per_image // len(NAMES))


def test_levels_of_each_name_are_spread_over_1_to_5() -> None:
    dealt = plan(IDS, NAMES, 25, seed=3)
    for name in NAMES:
        levels = [level for pairs in dealt.values() for measured, level in pairs if measured == name]
        assert all(1 <= level <= 5 and round(level, 2) == level for level in levels)
        # 40 uses: 8 in each fifth of the range.
        fifths = Counter(min(4, int((level - 1) / 0.8 + 1e-9)) for level in levels)
        assert all(7 <= fifths[fifth] <= 9 for fifth in range(5)), fifths


def test_the_plan_follows_from_seed_and_ids_alone() -> None:
    dealt = plan(IDS, NAMES, 5, seed=1)
    assert dealt == plan(IDS, NAMES, 5, seed=1)
    assert dealt == plan(IDS[::-1], NAMES, 5, seed=1)
    assert list(plan(IDS[::-1], NAMES, 5, seed=1)) == IDS[::-1]
    assert dealt != plan(IDS, NAMES, 5, seed=2)


def test_one_name_many_times_gives_different_levels() -> None:
    (pairs,) = plan(["a"], ["only"], 200, seed=0).values()
    assert len({level for _, level in pairs}) == 200
