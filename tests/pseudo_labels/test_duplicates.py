"""Near duplicates against a naive search."""

from itertools import combinations

import numpy as np
import pytest

from pseudo_labels import duplicates
from pseudo_labels.duplicates import MAX_DISTANCE, group_near_duplicates, near_duplicate_pairs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fingerprints import Fingerprint, fingerprint
from pseudo_labels.images import load
from tests.helpers.shared import shared_data


def clustered(count: int, seed: int, flips: int) -> list[int]:
    """Hashes of which many lie a few bits from another."""
    generator = np.random.default_rng(seed)
    values = [int.from_bytes(generator.bytes(8), "big") for _ in range(count // 3)]
    while len(values) < count:
        value = values[generator.integers(len(values))]
        for bit in generator.integers(0, 64, generator.integers(0, flips + 1)):
            value ^= 1 << int(bit)
        values.append(value)
    return values


def naive_groups(values: list[int], distance: int) -> list[int]:
    leader = list(range(len(values)))
    changed = True
    while changed:
        changed = False
        for one, other in combinations(range(len(values)), 2):
            if (values[one] ^ values[other]).bit_count() <= distance and leader[one] != leader[other]:
                leader[one] = leader[other] = min(leader[one], leader[other])
                changed = True
    return leader


@pytest.mark.parametrize("distance", [0, 1, 4, 7, MAX_DISTANCE])
def test_groups_equal_a_naive_search(distance: int) -> None:
    values = clustered(150, seed=distance, flips=distance + 2)
    expected = naive_groups(values, distance)
    assert 1 < len(set(expected)) < 150
    groups = group_near_duplicates([Fingerprint(f"{value:016x}", False) for value in values], distance)
    assert groups.tolist() == expected


@pytest.mark.parametrize("bitwise_count", [True, False])
@pytest.mark.parametrize(("at_once", "compared_with", "keys"), [(1, 32, 5), (37, 2**-8, 15), (1 << 20, 2**-16, 35)])
def test_pairs_are_complete_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch, at_once: int, compared_with: float, keys: int, bitwise_count: bool
) -> None:
    values = sorted({*clustered(400, seed=1, flips=5)})
    numbered = combinations(enumerate(values), 2)
    expected = {(one, other) for (one, a), (other, b) in numbered if (a ^ b).bit_count() <= 4}
    assert expected
    monkeypatch.setattr("pseudo_labels.duplicates._PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr("pseudo_labels.duplicates._COMPARED_WITH", compared_with)
    assert len(duplicates.lookup_keys(len(values), 4)) == keys
    if not bitwise_count:
        monkeypatch.delattr(np, "bitwise_count", raising=False)  # as in numpy 1.26
    measured = set[tuple[int, ...]]()
    for left, right in near_duplicate_pairs(np.array(values, dtype=np.uint64), 4):
        measured |= {tuple(sorted(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    assert measured == expected


def test_comparisons_grow_with_the_hashes_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    count_bits = duplicates.count_bits
    monkeypatch.setattr(duplicates, "count_bits", lambda values: compared.append(len(values)) or count_bits(values))
    values = np.unique(np.random.default_rng(0).integers(0, 1 << 63, 300_000).astype(np.uint64))
    assert list(near_duplicate_pairs(values, 4)) == []
    assert sum(compared) < 10 * len(values)


def test_absent_and_flat_pictures_stay_alone() -> None:
    same = Fingerprint("0f1e2d3c4b5a6978", False)
    flat = same._replace(is_flat=True)
    assert group_near_duplicates([None, same, flat, None, same, flat], 10).tolist() == [0, 1, 2, 3, 1, 5]
    assert group_near_duplicates([], 4).tolist() == []
    assert group_near_duplicates([None, flat], 4).tolist() == [0, 1]


@pytest.mark.parametrize("distance", [-1, MAX_DISTANCE + 1])
def test_distance_out_of_range_is_named(distance: int) -> None:
    with pytest.raises(PocketiqaError, match=f"{distance}, but must be 0 to {MAX_DISTANCE}"):
        group_near_duplicates([], distance)


def test_real_scenes_are_neither_flat_nor_near() -> None:
    prints = [fingerprint(load(path)) for path in sorted(shared_data("kodak").glob("*.png"))]
    assert len(prints) == 24
    assert not any(measured.is_flat for measured in prints)
    assert group_near_duplicates(prints, 4).tolist() == list(range(24))
