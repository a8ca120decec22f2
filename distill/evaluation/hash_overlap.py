"""Which test images were also trained on: equal files (sha256) and almost equal pictures (difference hash).

Other photographs of the same scene have different hashes; only known groups, or features of a model (``leakage``), can
detect those.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.evaluation.benchmarks.records import Benchmark
from pseudo_labels.defaults import NEAR_DUPLICATE_DISTANCE
from pseudo_labels.duplicates import near_duplicate_pairs
from pseudo_labels.files import sha256_bytes
from pseudo_labels.fingerprints import FLAT_BITS, HASH_BITS, fingerprint
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, decode, read_bytes
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool

# Matches that the result shows with names; it has the ids of all.
_EXAMPLES = 24


@dataclass(frozen=True)
class Print:
    """The hashes by which an image is recognised.

    Attributes:
        id: id of the image in its set.
        sha256: checksum of the file, hexadecimal; empty if unknown.
        dhash: difference hash, 16 hexadecimal digits; empty if unknown, or if the picture is so flat that the hash
            does not identify it.
        name: path or address for people.
    """

    id: str
    sha256: str
    dhash: str
    name: str


@dataclass(frozen=True)
class Match:
    """A test image and the training image it equals or resembles most."""

    tested: Print
    trained: Print
    distance: int

    @property
    def kind(self) -> str:
        """``same file`` or ``near``."""
        return "same file" if self.tested.sha256 and self.tested.sha256 == self.trained.sha256 else "near"

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        names = {"tested": self.tested.id, "trained": self.trained.id, "trained_name": self.trained.name}
        return {**names, "kind": self.kind, "bits": self.distance}


@dataclass(frozen=True)
class Overlap:
    """The test images that are in the training data too.

    Attributes:
        trained: number of training images.
        tested: number of test images.
        near_duplicate_distance: largest number of differing bits, of 64, at which two pictures are near duplicates.
        matches: one for each matched test image, same files first.
    """

    trained: int
    tested: int
    near_duplicate_distance: int
    matches: tuple[Match, ...] = field(default=())

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the matched test images."""
        return frozenset(match.tested.id for match in self.matches)

    def as_dict(self) -> dict[str, Any]:
        """JSON form: counts, and some of the matches."""
        same = sum(match.kind == "same file" for match in self.matches)
        return {
            "trained": self.trained,
            "tested": self.tested,
            "near_distance": self.near_duplicate_distance,
            "same_file": same,
            "near": len(self.matches) - same,
            "ids": sorted(self.ids),
            "examples": [match.as_dict() for match in self.matches[:_EXAMPLES]],
        }


def pool_prints(pool: Pool, ids: Iterable[str] | None = None) -> list[Print]:
    """Prints of the images of a pool that are ``ok`` (all, or those of ``ids``); nothing is decoded again."""
    refs = pool.ok() if ids is None else [pool.by_id(id) for id in ids]
    return [Print(ref.id, ref.sha256, _identifying(ref.dhash), ref.uri) for ref in refs]


def _identifying(dhash: str) -> str:
    """``dhash``, or an empty string where it is nearly all ones or zeros, as that of a flat picture is."""
    # The second half of the test for flat pictures (``duplicates``); the first needs the pixels, which a pool does not
    # keep.
    ones = int(dhash or "0", 16).bit_count()
    return dhash if min(ones, HASH_BITS - ones) >= FLAT_BITS else ""


def benchmark_prints(
    benchmark: Benchmark,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> list[Print]:
    """Prints of the images of a benchmark; a file that cannot be used is left out."""
    prints = []
    for done, row in enumerate(benchmark.rows, start=1):
        try:
            data = read_bytes(row.path)
            picture = fingerprint(decode(data, limits))
            prints.append(Print(row.id, sha256_bytes(data), "" if picture.is_flat else picture.dhash, row.id))
        except ImageError:
            pass  # it has no score either, and the coverage names it
        if progress:
            progress(done, len(benchmark.rows))
    return prints


def find_overlap(
    trained: Sequence[Print], tested: Sequence[Print], *, near_duplicate_distance: int = NEAR_DUPLICATE_DISTANCE
) -> Overlap:
    """Look for every test image among the training images.

    Args:
        trained: images that a model was trained on.
        tested: images that it is evaluated on.
        near_duplicate_distance: bits of 64, 0 to ``duplicates.MAX_DISTANCE``.
    """
    best: dict[str, Match] = {}
    by_content = {image.sha256: image for image in trained if image.sha256}
    for image in tested:
        if image.sha256 in by_content:
            best[image.id] = Match(image, by_content[image.sha256], 0)
    for match in _near_duplicates(trained, tested, near_duplicate_distance):
        # An equal file is certain and never replaced; among near duplicates the closest counts.
        known = best.get(match.tested.id)
        if known is None or (known.kind != "same file" and match.distance < known.distance):
            best[match.tested.id] = match
    order = sorted(best.values(), key=lambda match: (match.kind != "same file", match.distance, match.tested.id))
    return Overlap(len(trained), len(tested), near_duplicate_distance, tuple(order))


def _near_duplicates(trained: Sequence[Print], tested: Sequence[Print], distance: int) -> Iterable[Match]:
    # Pictures with equal hashes are interchangeable here, so only distinct values are compared. ``reversed`` lets the
    # first training image with a value win.
    trained_of = {int(image.dhash, 16): image for image in reversed(trained) if image.dhash}
    tested_of: dict[int, list[Print]] = {}
    for image in tested:
        if image.dhash:
            tested_of.setdefault(int(image.dhash, 16), []).append(image)
    values = sorted(set(trained_of) | set(tested_of))
    for left, right in near_duplicate_pairs(np.array(values, np.uint64), distance):
        for first, second in zip(left.tolist(), right.tolist(), strict=True):
            yield from _matches(values[first], values[second], trained_of, tested_of)
            yield from _matches(values[second], values[first], trained_of, tested_of)
    # ``near_duplicate_pairs`` compares different values only; equal hashes match at distance 0.
    for value in set(trained_of) & set(tested_of):
        yield from _matches(value, value, trained_of, tested_of)


def _matches(
    trained_value: int, tested_value: int, trained_of: dict[int, Print], tested_of: dict[int, list[Print]]
) -> Iterable[Match]:
    if trained_value in trained_of and tested_value in tested_of:
        bits = (trained_value ^ tested_value).bit_count()
        for image in tested_of[tested_value]:
            yield Match(image, trained_of[trained_value], bits)
