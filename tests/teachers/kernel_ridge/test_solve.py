import numpy as np
import pytest

from teachers.kernel_ridge.solve import STRENGTHS, scene_folds, solve, squared_distances


def points(count: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 5))


def test_the_dual_is_weighted_ridge_regression():
    x, weight = points(), np.random.default_rng(1).uniform(0.5, 2, 60)
    weight /= weight.mean()
    y = x @ np.arange(5.0) + np.random.default_rng(2).normal(size=60)
    solution = solve(x @ x.T, y, weight, np.arange(60) % 4)
    # The normal equations of the primal problem: (X' W X + s I) b = X' W y.
    primal = np.linalg.solve(x.T * weight @ x + solution.strength * np.eye(5), x.T * weight @ y)
    assert x.T @ solution.dual == pytest.approx(primal, rel=1e-6)


def test_a_point_of_weight_three_counts_like_three_points():
    x, y = points(20), np.random.default_rng(3).normal(size=20)
    thrice = np.r_[np.arange(20), 0, 0]
    weight = np.ones(20)
    weight[0] = 3
    folds = np.zeros(20, np.int64)
    once = solve(x @ x.T, y, weight / 1, folds)
    more = solve(x[thrice] @ x[thrice].T, y[thrice], np.ones(22), folds[[0] * 22])
    # Weights are brought to mean 1, which changes the strength by their mean; none is tuned with a single fold.
    assert once.strength == more.strength
    ratio = weight.mean()
    primal = [
        np.linalg.solve(x.T * own @ x + once.strength * np.eye(5), x.T * own @ y) for own in (weight / ratio, weight)
    ]
    assert x.T @ once.dual == pytest.approx(primal[0], rel=1e-6)
    assert x[thrice].T @ more.dual == pytest.approx(primal[1], rel=1e-6)


def test_predictions_of_held_out_points_do_not_depend_on_their_targets():
    x, y = points(), np.random.default_rng(4).normal(size=60)
    folds = np.arange(60) % 3
    other = y.copy()
    other[7] += 1e-7  # so small that the strength that is chosen stays
    first, second = (solve(x @ x.T, own, np.ones(60), folds) for own in (y, other))
    assert first.strength == second.strength
    assert first.unseen[folds == folds[7]].tolist() == second.unseen[folds == folds[7]].tolist()
    assert first.unseen.tolist() != second.unseen.tolist()


def test_noise_asks_for_more_strength_than_a_clean_line():
    x = points(200)
    clean, noise = x @ np.ones(5), np.random.default_rng(5).normal(size=200)
    folds = np.arange(200) % 5
    kernel = x @ x.T / (x**2).sum(1).mean()
    assert solve(kernel, clean, np.ones(200), folds).strength == STRENGTHS[0]
    assert solve(kernel, noise, np.ones(200), folds).strength == STRENGTHS[-1]


def test_folds_hold_whole_scenes_of_about_equal_size():
    groups = [f"scene{number // 3}" for number in range(90)]
    folds = scene_folds(groups, 5, seed=1)
    assert all(len({fold for fold, own in zip(folds, groups, strict=True) if own == name}) == 1 for name in groups)
    assert np.bincount(folds).tolist() == [18] * 5
    assert folds.tolist() == scene_folds(groups, 5, seed=1).tolist() != scene_folds(groups, 5, seed=2).tolist()
    assert set(scene_folds(["a", "a", "b"], 5, seed=0)) == {0, 1}


def test_squared_distances_are_those_of_the_points():
    x, y = points(6), points(4, seed=9)
    expected = [[((a - b) ** 2).sum() for b in y] for a in x]
    assert squared_distances(x, y) == pytest.approx(np.array(expected))
    assert squared_distances(x, x).min() == 0
