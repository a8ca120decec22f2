"""Near duplicates against a naive search, and the rule for flat pictures."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.duplicates import MAX_DISTANCE, Fingerprint, fingerprint, group_near_duplicates, near_duplicate_pairs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import decode, load
from pseudo_labels.photos import bundled_photographs
from tests.helpers.encoders import encode, picture
from tests.helpers.shared import shared_data


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


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
@pytest.mark.parametrize("at_once", [1, 37, 1 << 20])
def test_pairs_are_complete_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch, at_once: int, bitwise_count: bool
) -> None:
    values = sorted({*clustered(400, seed=1, flips=5)})
    numbered = combinations(enumerate(values), 2)
    expected = {(one, other) for (one, a), (other, b) in numbered if (a ^ b).bit_count() <= 4}
    assert expected
    monkeypatch.setattr("pseudo_labels.duplicates._PAIRS_AT_ONCE", at_once)
    if not bitwise_count:
        monkeypatch.delattr(np, "bitwise_count", raising=False)  # as in numpy 1.26
    measured = set[tuple[int, ...]]()
    for left, right in near_duplicate_pairs(np.array(values, dtype=np.uint64), 4):
        measured |= {tuple(sorted(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    assert measured == expected


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


def test_hash_says_where_it_gets_brighter() -> None:
    # Nine strips, each brighter or darker than the one before it as the bits of 0xB4 say.
    levels = np.cumsum([100, *(24 if 0xB4 >> bit & 1 else -24 for bit in range(7, -1, -1))])
    strips = levels.repeat(32).astype(np.uint8)[None, :, None].repeat(256, axis=0).repeat(3, axis=2)
    assert fingerprint(strips) == Fingerprint("b4" * 8, False)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "china", "rocket", "camera", "motorcycle"])
def test_hash_survives_what_does_not_change_the_scene(name: str) -> None:
    rgb = load(bundled_photographs()[name])
    image = Image.fromarray(rgb)
    original = fingerprint(rgb).dhash
    smaller = fingerprint(np.asarray(image.resize((image.width // 2, image.height // 2)))).dhash
    jpeg = fingerprint(decode(encode(rgb, "JPEG", quality=30))).dhash
    darker = fingerprint((rgb * 0.8).astype(np.uint8)).dhash
    assert max(bits_apart(original, changed) for changed in (smaller, jpeg, darker)) <= 4


def test_flat_pictures_are_told_from_scenes() -> None:
    generator = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 96))
    flat = {
        "black": 0 * across,
        "white": 0 * across + 255,
        "noise": 128 + generator.normal(0, 8, across.shape),
        "sky": 200 + 5 * down + generator.normal(0, 2, across.shape),
        "ramp": 127 + 127 * across,
        "mirrored ramp": 127 - 127 * across,
        "vertical ramp": 127 + 127 * down,
        "vignetted wall": 40 - 6 * np.hypot(across, down),
    }
    described = {
        name: fingerprint(gray.astype(np.uint8)[..., None].repeat(3, axis=2)).is_flat for name, gray in flat.items()
    }
    assert described == dict.fromkeys(flat, True)
    assert not any(fingerprint(picture(seed)).is_flat for seed in range(50))


def test_real_scenes_are_neither_flat_nor_near() -> None:
    prints = [fingerprint(load(path)) for path in sorted(shared_data("kodak").glob("*.png"))]
    assert len(prints) == 24
    assert not any(measured.is_flat for measured in prints)
    assert group_near_duplicates(prints, 4).tolist() == list(range(24))
