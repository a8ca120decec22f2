"""Splits for benchmarks that publish none: by hash of the group, so they never move and never divide a group."""

from collections.abc import Sequence
from dataclasses import replace

from distill.evaluation.benchmarks.records import BenchmarkRow
from pseudo_labels.files import sha256_bytes

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1


def derive_splits(name: str, rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Rows with a split: 20 % of the groups test, 10 % validation, the rest train.

    Groups are ordered by the hash of benchmark and group name, so the split depends on neither the order of the file
    nor a random seed. The shares are of groups (at least one each for test and validation, given three groups).

    Args:
        name: of the benchmark; part of the hash, so two benchmarks with equal group names split differently.
        rows: with groups set.
    """
    groups = sorted(
        {row.group for row in rows}, key=lambda group: sha256_bytes(f"{name}\n{group}".encode("utf-8", "surrogatepass"))
    )
    test = max(1, round(TEST_SHARE * len(groups)))
    validation = max(1, round(VALIDATION_SHARE * len(groups))) if len(groups) > 2 else 0
    split_of = dict.fromkeys(groups, "train")
    split_of |= dict.fromkeys(groups[:test], "test")
    split_of |= dict.fromkeys(groups[test : test + validation], "validation")
    return [replace(row, split=split_of[row.group]) for row in rows]
