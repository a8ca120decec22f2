"""Images of one scene: exact copies by sha256, near ones by difference hash.

The hash is dHash (N. Krawetz, "Kind of Like That", 2013) with 64 bits: each bit says whether a pixel of a 9x8 gray
thumbnail is darker than its right neighbour. It survives resizing, compression and small colour changes, not mirroring.

Flat pictures (sky, night, a wall, a smooth gradient) have no such structure: their bits are all alike or only noise,
and unrelated ones would be glued together. A picture is flat, and grouped with nothing, if its thumbnail spans fewer
than ``FLAT_SPAN`` gray levels or if fewer than ``FLAT_BITS`` bits differ from the majority.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pseudo_labels.defaults import MAX_NEAR_DUPLICATE_DISTANCE as MAX_DISTANCE
from pseudo_labels.errors import PocketiqaError

HASH_BITS = 64
# Both limits tell the flat pictures from the photographs of ``tests/pseudo_labels/test_duplicates.py``.
FLAT_SPAN = 12
FLAT_BITS = 6
_PAIRS_AT_ONCE = 1 << 20  # 8 MB of compared hashes
_BITS_OF_16 = np.array([value.bit_count() for value in range(1 << 16)], dtype=np.uint8)


class Fingerprint(NamedTuple):
    """What near duplicates are recognised by: 16 hex digits, and whether the picture is too flat for these."""

    dhash: str
    is_flat: bool


def fingerprint(rgb: np.ndarray) -> Fingerprint:
    """Difference hash of a uint8 HxWx3 image."""
    # The size that imagehash would make; it takes the thumbnail as it is.
    thumbnail = Image.fromarray(rgb).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    bits = imagehash.dhash(thumbnail).hash
    ones = int(bits.sum())
    is_flat = int(np.ptp(np.asarray(thumbnail))) < FLAT_SPAN or min(ones, HASH_BITS - ones) < FLAT_BITS
    return Fingerprint(f"{int.from_bytes(np.packbits(bits).tobytes(), 'big'):016x}", is_flat)


def group_near_duplicates(fingerprints: Sequence[Fingerprint | None], near_duplicate_distance: int) -> np.ndarray:
    """Join pictures whose hashes differ in at most so many bits, and pictures that are joined through others.

    Args:
        fingerprints: one for each picture, in order; a picture with None is grouped with nothing.
        near_duplicate_distance: 0 to ``MAX_DISTANCE`` bits of 64.

    Returns:
        int64 [len(fingerprints)]: for each picture the index of the first of its group, itself if it is alone.

    Raises:
        PocketiqaError: ``near_duplicate_distance`` is out of range.
    """
    if not 0 <= near_duplicate_distance <= MAX_DISTANCE:
        raise PocketiqaError(
            f"near_duplicate_distance is {near_duplicate_distance}, but must be 0 to {MAX_DISTANCE} "
            f"(of {HASH_BITS} bits)"
        )
    first = np.arange(len(fingerprints))
    at = np.array([index for index, print_ in enumerate(fingerprints) if print_ and not print_.is_flat], dtype=np.int64)
    hashes = np.array([int(fingerprints[index].dhash, 16) for index in at], dtype=np.uint64)
    # Equal hashes are joined without comparing them, so that many copies of one picture cost nothing.
    values, which = np.unique(hashes, return_inverse=True)
    labels = np.arange(len(values))
    # Merged batch by batch: all pairs of a large pool need not fit into memory.
    for left, right in near_duplicate_pairs(values, near_duplicate_distance):
        edges = coo_array((np.ones(len(left), dtype=bool), (labels[left], labels[right])), shape=(len(values),) * 2)
        labels = connected_components(edges, directed=False)[1][labels]
    joined = labels[which]
    # np.unique gives the first position of each label, and pictures are in order: the first of its group.
    _, earliest, group = np.unique(joined, return_index=True, return_inverse=True)
    first[at] = at[earliest[group]]
    return first


def near_duplicate_pairs(values: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes within ``distance`` bits, in batches; a pair may come more than once.

    Hashes that differ in at most d bits agree in at least one of d + 1 bands, so only those that share a band are
    compared (multi-index hashing: Norouzi, Punjani and Fleet, CVPR 2012).

    Args:
        values: uint64 [n], each once.
        distance: at most ``MAX_DISTANCE``.

    Yields:
        Positions of the partners of some pairs.
    """
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        buckets = np.split(order, np.flatnonzero(np.diff(band[order])) + 1)
        yield from _batched(pair for bucket in buckets for pair in _pairs_within(values, bucket, distance))


def _pairs_within(values: np.ndarray, bucket: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of one bucket, compared all with all in blocks of rows."""
    if len(bucket) < 2:
        return
    rows = max(1, _PAIRS_AT_ONCE // len(bucket))
    for start in range(0, len(bucket), rows):
        block, rest = bucket[start : start + rows], bucket[start:]
        left, right = np.nonzero(_bits(values[block, None] ^ values[rest]) <= distance)
        # Both are counted from ``start``: no picture is paired with itself, and no pair comes twice out of one bucket.
        once = left < right
        if once.any():
            yield block[left[once]], rest[right[once]]


def _bits(values: np.ndarray) -> np.ndarray:
    """Number of set bits of each uint64."""
    if hasattr(np, "bitwise_count"):  # since numpy 2.0, several times faster
        return np.bitwise_count(values)
    return _BITS_OF_16[values.view(np.uint16)].reshape(*values.shape, 4).sum(axis=-1)


def _batched(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Few large batches out of many small ones: merging has a cost for each."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for pair in pairs:
        held.append(pair)
        count += len(pair[0])
        if count >= _PAIRS_AT_ONCE:
            yield np.concatenate([left for left, _ in held]), np.concatenate([right for _, right in held])
            held, count = [], 0
    if held:
        yield np.concatenate([left for left, _ in held]), np.concatenate([right for _, right in held])
