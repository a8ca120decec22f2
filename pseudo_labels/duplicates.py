"""Images of one scene: exact copies by sha256, near ones by difference hash (``fingerprints``)."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pseudo_labels.defaults import MAX_NEAR_DUPLICATE_DISTANCE as MAX_DISTANCE
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fingerprints import HASH_BITS, Fingerprint, count_bits

_PAIRS_AT_ONCE = 1 << 20  # 16 MB of positions
# With how many others each hash is compared, at random and for each key, before longer keys are taken: then ten more
# orders cost less than those comparisons.
_COMPARED_WITH = 32
_MOST_AGREEING = 3  # bands of a key: 15 and 35 keys at four bits in place of 5, for up to 2^32 hashes


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
    hashes = np.array([int(print_.dhash, 16) if print_ else 0 for print_ in fingerprints], dtype=np.uint64)
    telling = np.array([print_ is not None and not print_.is_flat for print_ in fingerprints], dtype=bool)
    return group_hashes(hashes, telling, near_duplicate_distance)


def group_hashes(hashes: np.ndarray, telling: np.ndarray, near_duplicate_distance: int) -> np.ndarray:
    """The same of difference hashes as numbers.

    Args:
        hashes: uint64 [n].
        telling: bool [n], false for pictures that are grouped with nothing: bad ones and flat ones.
        near_duplicate_distance: 0 to ``MAX_DISTANCE`` bits of 64.

    Returns:
        int64 [n], as ``group_near_duplicates``.

    Raises:
        PocketiqaError: ``near_duplicate_distance`` is out of range.
    """
    if not 0 <= near_duplicate_distance <= MAX_DISTANCE:
        raise PocketiqaError(
            f"near_duplicate_distance is {near_duplicate_distance}, but must be 0 to {MAX_DISTANCE} "
            f"(of {HASH_BITS} bits)"
        )
    first, at = np.arange(len(hashes)), np.flatnonzero(telling)
    # Equal hashes are joined without comparing them, so that many copies of one picture cost nothing.
    values, which = np.unique(hashes[at], return_inverse=True)
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
    compared (multi-index hashing: Norouzi, Punjani and Fleet, CVPR 2012). They agree in at least k of d + k bands as
    well, and bits of k bands are a longer key (Manku, Jain and Das Sarma, WWW 2007): with many hashes, else each would
    be compared with a fixed fraction of all.

    Args:
        values: uint64 [n], each once.
        distance: at most ``MAX_DISTANCE``.

    Yields:
        Positions of the partners of some pairs.
    """
    yield from _batched(pair for mask in lookup_keys(len(values), distance) for pair in _pairs(values, mask, distance))


def lookup_keys(count: int, distance: int) -> list[np.uint64]:
    """Bits of 64 for each look-up: two hashes within ``distance`` agree in all bits of at least one of them.

    Args:
        count: number of hashes; the more, the longer and the more keys.
        distance: at most ``MAX_DISTANCE``.
    """
    agreeing, wanted = 1, math.log2(max(1, count) / _COMPARED_WITH)
    while agreeing < _MOST_AGREEING and HASH_BITS * agreeing / (distance + agreeing) < wanted:
        agreeing += 1
    edges = np.linspace(0, HASH_BITS, distance + agreeing + 1).astype(int).tolist()
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, agreeing)]


def _pairs(values: np.ndarray, mask: np.uint64, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that agree in the bits of ``mask``: in their order each is compared with the next, then the one after."""
    keys = values & mask
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    at, step = np.arange(len(keys)), 0
    while len(at):
        step += 1
        at = at[: np.searchsorted(at, len(keys) - step)]
        # Those whose bucket has ended have no partner farther on, either.
        at = at[keys[at] == keys[at + step]]
        for start in range(0, len(at), _PAIRS_AT_ONCE):
            left = order[at[start : start + _PAIRS_AT_ONCE]]
            right = order[at[start : start + _PAIRS_AT_ONCE] + step]
            near = count_bits(values[left] ^ values[right]) <= distance
            if near.any():
                yield left[near], right[near]


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
