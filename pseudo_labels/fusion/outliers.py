"""How far an image is from the others, by a stored feature: far away a teacher guesses."""

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError

FloatArray = NDArray[np.float64]

SAMPLE_ROWS = 2048
MIN_ROWS = 50
_NEIGHBOURS = 10
_DIMENSIONS = 32
_BLOCK = 512
_TO_SIGMA = 1.4826  # from the median distance to the median, to the deviation of a normal distribution


def pooled(features: NDArray[np.float16]) -> FloatArray:
    """One vector an image: the mean over all axes behind the channels; [N, C, ...] to [N, C]."""
    return features.astype(np.float64).mean(axis=tuple(range(2, features.ndim))).reshape(len(features), -1)


class OutlierMeasure:
    """Distance of an image to its 10th nearest neighbour in a sample of the pool, in robust deviations of its log.

    Channels are standardised by the sample and turned into its 32 first principal components. Neighbours, not the
    distance to a centre, because pools have several kinds of images (Ramaswamy et al. 2000).

    Args:
        sample: [S, C], pooled features of images from all over the pool.
        name: of the feature, for errors.

    Raises:
        PocketiqaError: the sample is too small, or its images do not differ.
    """

    def __init__(self, sample: FloatArray, name: str):
        if len(sample) < MIN_ROWS:
            raise PocketiqaError(
                f"feature {name!r} is there for {len(sample)} images: at least {MIN_ROWS} are needed to tell outliers"
            )
        self._mean, scale = sample.mean(axis=0), sample.std(axis=0)
        # A channel that hardly varies would be blown up to the size of the others.
        self._scale = np.where(scale > 1e-6 * scale.max(initial=0.0), scale, np.inf)
        _, _, turned = np.linalg.svd((sample - self._mean) / self._scale, full_matrices=False)
        self._axes = turned[:_DIMENSIONS].T
        self._sample = self._project(sample)
        distances = np.log(self._distances(self._sample, np.arange(len(sample))))
        self._median = float(np.median(distances))
        self._deviation = _TO_SIGMA * float(np.median(np.abs(distances - self._median)))
        if not self._deviation > 0:
            raise PocketiqaError(f"feature {name!r} is the same for most images: it cannot tell outliers")

    def __call__(self, features: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        """Deviations from the usual, [N]; above 0 is farther than the median image.

        Args:
            features: [N, C], pooled.
            own: [N], place in the sample of each image that is in it, else -1: no image is its own neighbour.
        """
        distances = self._distances(self._project(features), own)
        # Four decimals: the last bits of a sum differ between machines.
        return np.round((np.log(distances) - self._median) / self._deviation, 4)

    def _project(self, features: FloatArray) -> FloatArray:
        return ((features - self._mean) / self._scale) @ self._axes

    def _distances(self, points: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        found = [
            self._block(points[start : start + _BLOCK], own[start : start + _BLOCK])
            for start in range(0, len(points), _BLOCK)
        ]
        return np.concatenate([np.empty(0), *found])

    def _block(self, points: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        squares = (points**2).sum(axis=1)[:, None] + (self._sample**2).sum(axis=1) - 2 * points @ self._sample.T
        inside = np.flatnonzero(own >= 0)
        squares[inside, own[inside]] = np.inf
        nearest = np.partition(squares, _NEIGHBOURS - 1, axis=1)[:, _NEIGHBOURS - 1]
        return np.sqrt(np.maximum(nearest, 1e-12))
