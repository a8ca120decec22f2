"""Splits for benchmarks that publish none, or no validation part: by hash of the group.

A split by hash never changes: it depends on no seed and not on the order of the rows, and it never divides a group.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from distill.evaluation.benchmarks.records import Benchmark, BenchmarkRow
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_bytes

TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
TRAIN, VALIDATION = "train", "validation"


def derive_splits(name: str, rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Rows with a split: 20 % of the groups test, 10 % validation, the rest train.

    The fractions are of groups (at least one each for test and validation, given three groups).

    Args:
        name: name of the benchmark; part of the hash, so two benchmarks with equal group names split differently.
        rows: rows of the benchmark, with groups set.
    """
    groups = _by_hash((row.group for row in rows), name)
    # At least one, also in a small set of the user's own.
    test = max(1, round(TEST_FRACTION * len(groups)))
    validation = max(1, round(VALIDATION_FRACTION * len(groups))) if len(groups) > 2 else 0
    # The test part comes first in hash order, so it stays the same if the other fractions ever change.
    split_of = dict.fromkeys(groups, TRAIN)
    split_of |= dict.fromkeys(groups[:test], "test")
    split_of |= dict.fromkeys(groups[test : test + validation], VALIDATION)
    return [replace(row, split=split_of[row.group]) for row in rows]


def carve_validation(benchmark: Benchmark, fraction: float) -> Benchmark:
    """The same benchmark with a validation part that is taken out of its train part, whole groups at a time.

    A group that has a test image too stays with training. A larger fraction contains every group of a smaller one.

    Args:
        benchmark: benchmark without a validation part; if it has no splits at all, every row counts as train.
        fraction: fraction of the groups of the train part, above 0 and below 1; at least one group is taken and one
            left.

    Raises:
        PocketiqaError: the fraction is out of range, there is a validation part already, or there are too few groups.
    """
    name, splits = benchmark.name, {row.split for row in benchmark.rows}
    if not 0 < fraction < 1:
        raise PocketiqaError(f"validation={fraction:g} is no fraction of benchmark {name}: give one such as 0.15")
    if VALIDATION in splits:
        raise PocketiqaError(
            f"benchmark {name} has a validation part of its own, so validation={fraction:g} carves none: leave it out"
        )
    train = TRAIN if splits - {""} else ""
    elsewhere = {row.group for row in benchmark.rows if row.split != train}
    # A salt of its own: with that of ``derive_splits``, the carved groups of a derived train part would be those next
    # to its validation part in hash order, and not an independent draw.
    groups = _by_hash((row.group for row in benchmark.rows if row.group not in elsewhere), f"{name}\n{VALIDATION}")
    if len(groups) < 2:
        raise PocketiqaError(
            f"the train part of benchmark {name} has {len(groups)} groups of its own: at least 2 are needed for a "
            "validation part"
        )
    carved = set(groups[: min(max(1, round(fraction * len(groups))), len(groups) - 1)])
    rows = tuple(_with_split(row, train, carved) for row in benchmark.rows)
    taken = sum(row.split == VALIDATION for row in rows)
    note = f"{taken} images of the train part serve as validation: {fraction:g} of its groups, by hash"
    origin = benchmark.split_origin if train else "derived"
    return replace(benchmark, rows=rows, split_origin=origin, notes=(*benchmark.notes, note))


def _with_split(row: BenchmarkRow, train: str, carved: set[str]) -> BenchmarkRow:
    if row.split != train:
        return row
    return replace(row, split=VALIDATION if row.group in carved else TRAIN)


def _by_hash(groups: Iterable[str], salt: str) -> list[str]:
    """Distinct groups in the order of the hash of salt and name."""
    return sorted(set(groups), key=lambda group: sha256_bytes(f"{salt}\n{group}".encode("utf-8", "surrogatepass")))
