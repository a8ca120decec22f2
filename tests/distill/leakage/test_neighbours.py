"""Nearest neighbours and groups in blocks, against computing everything at once."""

import numpy as np
import pytest

from distill.leakage.neighbours import check_above, components, nearest, standardised
from pseudo_labels.errors import PocketiqaError


def features(rows: int, seed: int, scenes: int = 0) -> np.ndarray:
    """Random features; of ``scenes`` clusters if given."""
    generator = np.random.default_rng(seed)
    if not scenes:
        return generator.normal(3.0, 2.0, (rows, 12)).astype(np.float32)
    centres = np.random.default_rng(99).normal(0, 1, (scenes, 12))
    return (centres[generator.integers(0, scenes, rows)] + generator.normal(0, 0.3, (rows, 12))).astype(np.float32)


def test_standardised_is_z_scores_of_the_trained_at_length_one() -> None:
    trained, tested = features(50, 0), features(20, 1)
    first, second = standardised(trained, tested)
    expected = (tested.astype(np.float64) - trained.mean(0)) / trained.std(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(second, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


def test_other_tested_images_change_nothing_and_constant_features_count_for_nothing() -> None:
    trained, tested = features(50, 0), features(20, 1)
    whole, part = standardised(trained, tested)[1], standardised(trained, tested[:3])[1]
    np.testing.assert_array_equal(whole[:3], part)
    widened = [np.hstack([rows, np.full((len(rows), 1), 7.3, np.float32)]) for rows in (trained, tested)]
    widened[1][0, -1] = 100.0
    np.testing.assert_allclose(standardised(*widened)[1][:, :-1], whole, atol=1e-6)


def test_a_feature_that_hardly_varies_does_not_outweigh_the_others() -> None:
    trained, tested = features(50, 0), features(20, 1)
    trained[:, 3] = 3 + 1e-4 * trained[:, 4]
    deviation = np.maximum(trained.std(0), 0.1 * np.median(trained.std(0)))
    expected = (tested.astype(np.float64) - trained.mean(0)) / deviation
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(standardised(trained, tested)[1], expected, atol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
def test_nearest_agrees_with_all_cosines_at_once(block_rows: int) -> None:
    first, second = standardised(features(90, 0, scenes=9), features(40, 1, scenes=9))
    cosines = second.astype(np.float64) @ first.astype(np.float64).T
    index, cosine = nearest(second, first, block_rows=block_rows)
    np.testing.assert_array_equal(index, cosines.argmax(1))
    np.testing.assert_allclose(cosine, cosines.max(1), atol=1e-6)


def test_the_first_of_equal_neighbours_is_taken_across_blocks() -> None:
    unit = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 1]]
    assert nearest(unit[[1]], unit, block_rows=2)[0].tolist() == [1]


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("above", [0.3, 0.7, 0.95, 1.0])
def test_components_agree_with_a_walk_over_all_pairs(above: float, block_rows: int) -> None:
    vectors, _ = standardised(features(80, 2, scenes=12), features(1, 3))
    linked = vectors @ vectors.T > above
    expected = np.full(len(vectors), -1)
    for start in range(len(vectors)):
        waiting = [start] if expected[start] < 0 else []
        number = expected.max() + 1
        while waiting:
            at = waiting.pop()
            expected[at] = number
            waiting += [other for other in np.flatnonzero(linked[at]).tolist() if expected[other] < 0]
    np.testing.assert_array_equal(components(vectors, above, block_rows=block_rows), expected)


def test_a_chain_is_one_group() -> None:
    angles = np.radians([0, 30, 60, 90, 200])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert components(vectors, 0.8).tolist() == [0, 0, 0, 0, 1]
    assert components(vectors, 0.9).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("above", [-1.0, -2.0, 1.01, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(above: float) -> None:
    with pytest.raises(PocketiqaError, match=rf"above is {above:g}, but it is a cosine"):
        check_above(above)


def test_thresholds_up_to_one_are_taken() -> None:
    assert [check_above(above) for above in (-0.99, 0.7, 1.0)] == [-0.99, 0.7, 1.0]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(PocketiqaError, match=r"1 trained and 4 tested images .* at least 2 and 1"):
        standardised(features(1, 0), features(4, 1))
    with pytest.raises(PocketiqaError, match=r"2 trained and 0 tested"):
        standardised(features(2, 0), features(0, 1))
    with pytest.raises(PocketiqaError, match=r"shapes \(3, 12\) and \(4, 2\)"):
        standardised(features(3, 0), features(4, 1)[:, :2])
    with pytest.raises(PocketiqaError, match="NaN"):
        standardised(features(3, 0), np.full((2, 12), np.nan, np.float32))
