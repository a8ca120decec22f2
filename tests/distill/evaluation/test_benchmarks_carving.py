"""A validation part that is carved out of the train part of a benchmark."""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from distill.data.ratings import rating_source
from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, Scale, load_benchmark
from distill.evaluation.benchmarks.splits import carve_validation, derive_splits
from distill.recipe.stages import expanded
from pseudo_labels.errors import PocketiqaError
from tests.helpers.shared import shared_data


def benchmark(rows: list[BenchmarkRow], name: str = "some") -> Benchmark:
    return Benchmark(name, tuple(rows), Scale(0, 1), "", "", "published")


def rows(groups: int, versions: int = 3, split: str = "train", first: int = 0) -> list[BenchmarkRow]:
    return [
        BenchmarkRow(f"{split}{group}-{version}", "", 0.5, 0.5, f"scene{group}", split)
        for group in range(first, first + groups)
        for version in range(1 + group % versions)
    ]


def split_of(found: Benchmark) -> dict[str, str]:
    return {row.id: row.split for row in found.rows}


def test_whole_groups_are_carved_and_the_test_part_stays():
    # The first three scenes of the test part are scenes of the train part too.
    given = benchmark(rows(200) + rows(40, split="test", first=197))
    found = carve_validation(given, 0.15)
    groups = {row.group for row in found.rows if row.split == "validation"}
    assert len(groups) == round(0.15 * 197)
    assert groups & {row.group for row in found.rows if row.split != "validation"} == set()
    assert [row for row in found.rows if row.split == "test"] == [row for row in given.rows if row.split == "test"]
    assert [row.id for row in found.rows] == [row.id for row in given.rows]
    taken = Counter(row.split for row in found.rows)["validation"]
    assert found.notes == (f"{taken} images of the train part serve as validation: 0.15 of its groups, by hash",)


def test_the_carved_part_does_not_move():
    given = rows(50)
    shuffled = random.Random(0).sample(given, len(given))
    whole = split_of(carve_validation(benchmark(given), 0.2))
    assert whole == split_of(carve_validation(benchmark(shuffled), 0.2))
    # The first of sha256sum, written down once: another choice would make earlier figures worthless.
    carved = {row.group for row in carve_validation(benchmark(rows(20)), 0.2).rows if row.split == "validation"}
    assert carved == {"scene2", "scene5", "scene9", "scene12"}
    assert whole != split_of(carve_validation(benchmark(given, "other"), 0.2))


def test_it_is_no_part_of_the_derived_parts():
    """The order of the groups is another than the one that makes test and validation parts."""
    given = rows(400, versions=1)
    derived = benchmark([row for row in derive_splits("some", given) if row.split == "train"])
    places = {row.group: place for place, row in enumerate(sorted(derived.rows, key=lambda row: hashed(row.group)))}
    carved = [places[row.group] for row in carve_validation(derived, 0.2).rows if row.split == "validation"]
    assert min(carved) < len(places) / 4
    assert max(carved) > len(places) * 3 / 4


def hashed(group: str) -> str:
    return hashlib.sha256(f"some\n{group}".encode()).hexdigest()


def test_a_larger_share_holds_the_smaller_one():
    small, large = (
        {row.id for row in carve_validation(benchmark(rows(60)), fraction).rows if row.split == "validation"}
        for fraction in (0.1, 0.3)
    )
    assert small < large


def test_one_group_is_carved_and_one_left_at_least():
    for fraction in (0.01, 0.99):
        found = Counter(row.split for row in carve_validation(benchmark(rows(2, versions=1)), fraction).rows)
        assert found == {"train": 1, "validation": 1}


@pytest.mark.parametrize(
    ("given", "share", "message"),
    [
        (rows(9), 0.0, "validation=0 is no share of benchmark some: give one such as 0.15"),
        (rows(9), float("nan"), "validation=nan is no share"),
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
    found = carve_validation(given, 0.3)
    assert {row.split for row in found.rows} == {"train", "validation"}
    assert found.split_origin == "derived"


def ratings(folder: Path, name: str = "ratings.csv") -> Path:
    lines = [f"{number}.png,{1 + number % 5},g{number // 2}" for number in range(20)]
    (folder / name).write_text("\n".join(["image,mos,group", *lines]))
    return folder / name


def test_the_share_stands_beside_the_options_of_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATINGS", str(tmp_path))
    ratings(tmp_path)
    found = load_benchmark(expanded("csv:$RATINGS/ratings.csv?scale=1:5&best=low&validation=0.2"))
    assert Counter(row.split for row in found.rows) == {"train": 16, "validation": 4}
    assert found.rows[0].score == 1.0
    # A question mark in the name of a file that is there is not the beginning of options.
    odd = ratings(tmp_path, "odd?scale=1:5")
    with pytest.raises(PocketiqaError, match="lies outside the scale 0 to 1"):
        load_benchmark(f"csv:{odd}")


def test_unknown_options_are_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"biq2021: unknown option 'scale=1:5': the only one it has is validation"):
        load_benchmark(f"biq2021:{tmp_path}?scale=1:5")
    with pytest.raises(PocketiqaError, match=r"validation='much' is no share of benchmark csv"):
        load_benchmark(f"csv:{ratings(tmp_path)}?scale=1:5&validation=much")
    with pytest.raises(PocketiqaError, match="is not like scale=1:5"):
        load_benchmark(f"csv:{ratings(tmp_path)}?scales=1:5&validation=0.2")


def test_biq2021_has_a_validation_part_to_learn_nothing_from(tmp_path: Path):
    root = shared_data("biq2021")
    plain, carved = load_benchmark(f"biq2021:{root}"), load_benchmark(f"biq2021:{root}?validation=0.01")
    assert carved.select("test").rows == plain.select("test").rows
    held_out = {row.group for row in carved.select("validation").rows}
    learned = rating_source(f"biq2021:{root}?validation=0.01", None, tmp_path / "pool", images=16, seed=3)
    assert len(learned.pool) == 16
    assert held_out & {ref.group.removeprefix("biq2021: ") for ref in learned.pool} == set()
