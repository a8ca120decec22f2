"""Splits by hash of the group: derived for a benchmark without any, or a validation part carved out of train."""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from distill.data.ratings import rating_source
from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, Scale, load_benchmark
from distill.evaluation.benchmarks.splits import carve_validation, derive_splits
from pseudo_labels.errors import PocketiqaError
from tests.helpers.shared import shared_data


def benchmark(rows: list[BenchmarkRow], name: str = "some") -> Benchmark:
    return Benchmark(name, tuple(rows), Scale(0, 1), citation="", licence="", split_origin="published")


def rows(groups: int, versions: int = 3, split: str = "train", first: int = 0) -> list[BenchmarkRow]:
    return [
        BenchmarkRow(f"{split}{group}-{version}", "", 0.5, 0.5, f"scene{group}", split=split)
        for group in range(first, first + groups)
        for version in range(1 + group % versions)
    ]


def split_of(benchmark: Benchmark) -> dict[str, str]:
    return {row.id: row.split for row in benchmark.rows}


def test_whole_groups_are_carved_and_the_test_part_stays():
    # The first three scenes of the test part are scenes of the train part too.
    given = benchmark(rows(200) + rows(40, split="test", first=197))
    carved = carve_validation(given, 0.15)
    groups = {row.group for row in carved.rows if row.split == "validation"}
    assert len(groups) == round(0.15 * 197)
    assert groups & {row.group for row in carved.rows if row.split != "validation"} == set()
    assert [row for row in carved.rows if row.split == "test"] == [row for row in given.rows if row.split == "test"]
    assert [row.id for row in carved.rows] == [row.id for row in given.rows]
    taken = Counter(row.split for row in carved.rows)["validation"]
    assert carved.notes == (f"{taken} images of the train part serve as validation: 0.15 of its groups, by hash",)


def test_the_carved_part_does_not_move():
    given = rows(50)
    shuffled = random.Random(0).sample(given, len(given))
    whole = split_of(carve_validation(benchmark(given), 0.2))
    assert whole == split_of(carve_validation(benchmark(shuffled), 0.2))
    # The first of sha256sum, written down once: another choice would make earlier figures worthless.
    carved = {row.group for row in carve_validation(benchmark(rows(20)), 0.2).rows if row.split == "validation"}
    assert carved == {"scene2", "scene5", "scene9", "scene12"}
    assert whole != split_of(carve_validation(benchmark(given, "other"), 0.2))


def test_it_is_drawn_independently_of_the_derived_parts():
    """The order of the groups is another than the one that makes test and validation parts."""
    given = rows(400, versions=1)
    derived = benchmark([row for row in derive_splits("some", given) if row.split == "train"])
    rank_of = {row.group: rank for rank, row in enumerate(sorted(derived.rows, key=lambda row: hashed(row.group)))}
    carved = [rank_of[row.group] for row in carve_validation(derived, 0.2).rows if row.split == "validation"]
    assert min(carved) < len(rank_of) / 4
    assert max(carved) > len(rank_of) * 3 / 4


def hashed(group: str) -> str:
    return hashlib.sha256(f"some\n{group}".encode()).hexdigest()


def test_a_larger_fraction_contains_the_smaller_one():
    small, large = (
        {row.id for row in carve_validation(benchmark(rows(60)), fraction).rows if row.split == "validation"}
        for fraction in (0.1, 0.3)
    )
    assert small < large


def test_one_group_is_carved_and_one_left_at_least():
    for fraction in (0.01, 0.99):
        counts = Counter(row.split for row in carve_validation(benchmark(rows(2, versions=1)), fraction).rows)
        assert counts == {"train": 1, "validation": 1}


@pytest.mark.parametrize(
    ("given", "fraction", "message"),
    [
        (rows(9), 0.0, "validation=0 is no fraction of benchmark some: give one such as 0.15"),
        (rows(9), float("nan"), "validation=nan is no fraction"),
        (rows(9) + rows(3, split="validation", first=9), 0.2, "has a validation part of its own"),
        (rows(1), 0.5, "has 1 groups of its own: at least 2"),
        (rows(3) + rows(3, split="test"), 0.5, "has 0 groups of its own"),
    ],
)
def test_what_cannot_be_carved_is_refused(given: list[BenchmarkRow], fraction: float, message: str):
    with pytest.raises(PocketiqaError, match=message):
        carve_validation(benchmark(given), fraction)


def test_a_benchmark_without_splits_is_all_train():
    given = replace(benchmark([replace(row, split="") for row in rows(10)]), split_origin="none")
    carved = carve_validation(given, 0.3)
    assert {row.split for row in carved.rows} == {"train", "validation"}
    assert carved.split_origin == "derived"


def test_nothing_is_learned_from_the_carved_part_of_biq2021(tmp_path: Path):
    root = shared_data("biq2021")
    plain, carved = load_benchmark(f"biq2021:{root}"), load_benchmark(f"biq2021:{root}?validation=0.01")
    assert carved.select("test").rows == plain.select("test").rows
    held_out = {row.group for row in carved.select("validation").rows}
    learned = rating_source(f"biq2021:{root}?validation=0.01", None, tmp_path / "pool", images=16, seed=3)
    assert len(learned.pool) == 16
    assert held_out & {ref.group.removeprefix("biq2021: ") for ref in learned.pool} == set()


def rows_of(groups: int) -> list[BenchmarkRow]:
    return [BenchmarkRow(f"{group}-{at}", "", 0.5, 0.5, f"g{group}") for group in range(groups) for at in range(3)]


def test_derived_splits_keep_groups_and_ignore_order() -> None:
    rows = rows_of(50)
    splits = {row.id: row.split for row in derive_splits("kadid10k", rows)}
    random.Random(1).shuffle(rows)
    assert {row.id: row.split for row in derive_splits("kadid10k", rows)} == splits
    groups = {split: {id.split("-")[0] for id in splits if splits[id] == split} for split in set(splits.values())}
    assert {split: len(members) for split, members in groups.items()} == {"train": 35, "validation": 5, "test": 10}
    assert {row.id: row.split for row in derive_splits("csiq", rows)} != splits


@pytest.mark.parametrize(
    ("groups", "splits"), [(1, {"test"}), (2, {"test", "train"}), (3, {"test", "train", "validation"})]
)
def test_few_groups_are_still_split(groups: int, splits: set[str]) -> None:
    assert {row.split for row in derive_splits("x", rows_of(groups))} == splits
