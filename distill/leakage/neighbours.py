"""Nearest neighbours by features, and groups of similar images that should never be split.

Everything is computed in blocks, so memory grows with the number of images and never with its square.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pseudo_labels.errors import PocketiqaError

Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]

MIN_IMAGES = 2
_BLOCK_ROWS = 2048  # a block of cosines holds 16 MB
# Of a feature that is the same in all training images, what rounding leaves of its deviation.
_NO_SPREAD = 1e-6
# Of the usual deviation: a feature that hardly varies among few images would else outweigh all others.
_LEAST_DEVIATION = 0.1


class NotComparableError(PocketiqaError):
    """Too few images to compare. A caller that compares beside other work may catch this and continue without."""


def check_above(above: float) -> float:
    """``above``, after a check that it can be a threshold.

    Raises:
        PocketiqaError: it lies outside (-1, 1].
    """
    if not -1 < above <= 1:
        raise PocketiqaError(f"above is {above:g}, but it is a cosine: give one above -1 and up to 1, such as 0.7")
    return above


def standardised(trained: Vectors, tested: Vectors) -> tuple[Vectors, Vectors]:
    """Features as unit vectors that can be compared by their cosine.

    Each dimension is shifted and scaled by its mean and deviation over the trained images alone, so that the
    result for a test image does not depend on the other test images. A dimension that is constant there gets weight 0,
    and the deviation of one that varies by less than a tenth of the median is raised to that tenth.

    Args:
        trained: features of the training images [N, D].
        tested: features of the test images [M, D].

    Returns:
        float32 [N, D] and [M, D]; rows of length 1, or of zeros where an image equals the mean.

    Raises:
        NotComparableError: there are fewer than 2 training images, or no test image.
        PocketiqaError: the shapes do not fit, or values are not finite.
    """
    if trained.ndim != 2 or tested.ndim != 2 or trained.shape[1] != tested.shape[1]:
        raise PocketiqaError(
            f"features of shapes {trained.shape} and {tested.shape} cannot be compared: use the features of one model"
        )
    if len(trained) < MIN_IMAGES or not len(tested):
        raise NotComparableError(
            f"{len(trained)} trained and {len(tested)} tested images with features: at least {MIN_IMAGES} and 1 are "
            "needed to compare; check the reasons of those left out, or name more images"
        )
    if not (np.isfinite(trained).all() and np.isfinite(tested).all()):
        raise PocketiqaError("features are NaN or infinite: leave those images out first")
    mean, deviation = trained.mean(0, dtype=np.float64), trained.std(0, dtype=np.float64)
    varies = deviation > _NO_SPREAD * np.maximum(1.0, np.abs(mean))
    least = _LEAST_DEVIATION * np.median(deviation[varies]) if varies.any() else 0.0
    scale = np.where(varies, 1 / np.where(varies, np.maximum(deviation, least), 1.0), 0.0)
    return _unit((trained - mean) * scale), _unit((tested - mean) * scale)


def _unit(rows: NDArray[np.float64]) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def nearest(tested: Vectors, trained: Vectors, *, block_rows: int = _BLOCK_ROWS) -> tuple[Indices, Vectors]:
    """The trained image with the highest cosine to each tested one; the first of equal ones.

    Args:
        tested: unit vectors [M, D].
        trained: unit vectors [N, D], N at least 1.
        block_rows: number of rows of each that are compared at a time.

    Returns:
        Positions [M] in ``trained``, and cosines float32 [M] in [-1, 1].
    """
    index = np.zeros(len(tested), np.int64)
    best = np.full(len(tested), -np.inf, np.float32)
    for rows in _blocks(len(tested), block_rows):
        for columns in _blocks(len(trained), block_rows):
            cosines = tested[rows] @ trained[columns].T
            column = cosines.argmax(axis=1)
            value = cosines[np.arange(len(column)), column]
            # Strictly higher: among equal cosines the first block wins, so blocks do not change the result.
            higher = value > best[rows]
            index[rows] = np.where(higher, column + columns.start, index[rows])
            best[rows] = np.where(higher, value, best[rows])
    # Rounding can exceed 1 by an ulp, which no threshold and no plot expects.
    return index, np.clip(best, -1.0, 1.0)


def components(vectors: Vectors, above: float, *, block_rows: int = _BLOCK_ROWS) -> Indices:
    """Groups of images that a chain of cosines above a threshold joins.

    Args:
        vectors: unit vectors [N, D].
        above: threshold, itself not included.
        block_rows: number of rows that are compared at a time.

    Returns:
        Group of each image [N], numbered from 0 in the order of their first images.
    """
    groups = np.arange(len(vectors))
    for rows in _blocks(len(vectors), block_rows):
        for columns in _blocks(len(vectors), block_rows):
            if columns.start < rows.start:
                continue  # cosines are symmetric
            # Joined block by block: only the links of one block are held at a time, not those of all pairs.
            one, other = np.nonzero(vectors[rows] @ vectors[columns].T > above)
            groups = _joined(groups, one + rows.start, other + columns.start)
    # Component numbers are arbitrary; ranking them by first member makes them independent of the blocks.
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def _joined(groups: Indices, one: Indices, other: Indices) -> Indices:
    """The groups, once those of each pair of images are the same."""
    links = coo_matrix((np.ones(len(one), bool), (groups[one], groups[other])), shape=(len(groups), len(groups)))
    _, group_of = connected_components(links, directed=False)
    return group_of.astype(np.int64)[groups]


def _blocks(length: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, length)) for start in range(0, length, rows))
