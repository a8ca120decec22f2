"""Ridge and kernel ridge regression in closed form, with weights, and the choice of their strength by folds of scenes.

With centred targets y, weights w of mean 1, kernel matrix K and strength s, the dual coefficients a solve

    (K + s diag(1 / w)) a = y

and the prediction of a point is the sum of its kernel with all points, times a. For the linear kernel this is weighted
ridge regression (Saunders, Gammerman and Vovk, ICML 1998, equation 9).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Strengths that are tried; kernels are scaled so that a point has 1 with itself, in the mean."""
_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Solution:
    """A fitted regression.

    Attributes:
        dual: coefficient of each point, [N].
        strength: of the regularisation, one of ``STRENGTHS``.
        unseen: prediction of each point by a regression that was fitted without its fold, [N].
    """

    dual: Array
    strength: float
    unseen: Array


def squared_distances(first: Array, second: Array) -> Array:
    """Squared Euclidean distances of points [N, D] and [M, D], [N, M]; never below 0."""
    lengths = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    return np.maximum(lengths - 2 * first @ second.T, 0.0)


def scene_folds(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each point, [N], whole groups at a time, of about equal size.

    Args:
        groups: scene of each point.
        folds: number of folds; fewer are used where there are fewer scenes.
        seed: seed of the order of the scenes.
    """
    names, members, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.zeros(min(folds, len(names)))
    fold_of = np.zeros(len(names), np.int64)
    for scene in order:
        fold_of[scene] = np.argmin(sizes)
        sizes[fold_of[scene]] += counts[scene]
    return fold_of[members]


def solve(kernel: Array, centred: Array, weight: Array, folds: NDArray[np.int64]) -> Solution:
    """Fit a regression; its strength is the one with the least weighted squared error on the folds.

    Args:
        kernel: kernel of all points with each other, [N, N], mean of the diagonal 1.
        centred: targets less their weighted mean, [N].
        weight: weights above 0, [N].
        folds: fold of each point, [N]; with a single fold the middle strength is taken.
    """
    noise = 1 / np.maximum(weight / weight.mean(), _LEAST_WEIGHT)
    tried = STRENGTHS if len(np.unique(folds)) > 1 else STRENGTHS[len(STRENGTHS) // 2 :][:1]
    predictions = {strength: _unseen(kernel, centred, noise, folds, strength) for strength in tried}
    errors = {
        strength: float(np.average((own - centred) ** 2, weights=weight)) for strength, own in predictions.items()
    }
    best = min(tried, key=errors.__getitem__)
    return Solution(_dual(kernel, centred, noise, best), best, predictions[best])


def _unseen(kernel: Array, centred: Array, noise: Array, folds: NDArray[np.int64], strength: float) -> Array:
    predictions = np.zeros_like(centred)
    for fold in np.unique(folds):
        held, kept = folds == fold, folds != fold
        if kept.any():
            dual = _dual(kernel[np.ix_(kept, kept)], centred[kept], noise[kept], strength)
            predictions[held] = kernel[np.ix_(held, kept)] @ dual
    return predictions


def _dual(kernel: Array, centred: Array, noise: Array, strength: float) -> Array:
    system = kernel.copy()
    system[np.diag_indices_from(system)] += strength * noise
    return cho_solve(cho_factor(system, lower=True, overwrite_a=True, check_finite=False), centred, check_finite=False)
