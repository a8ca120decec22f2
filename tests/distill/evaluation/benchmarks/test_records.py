"""Scales and rows: which end is best, the rows of one split, and label files that cannot be right."""

import pytest

from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, Scale
from distill.evaluation.benchmarks.records import check_rows
from pseudo_labels.errors import PocketiqaError


def row(id: str, split: str = "", group: str = "g") -> BenchmarkRow:
    return BenchmarkRow(id, f"/images/{id}", mos_native=3.0, score=0.5, group=group, split=split)


def benchmark(*rows: BenchmarkRow) -> Benchmark:
    return Benchmark(
        "some", rows, Scale(1, 5), citation="a paper", licence="free", split_origin="published", notes=("a note",)
    )


def test_a_scale_maps_its_best_end_to_one() -> None:
    assert Scale(0, 100, "low").score(25, "here") == 0.75
    assert Scale(1, 5).score(1, "here") == 0.0
    with pytest.raises(PocketiqaError, match="here: rating 6 lies outside"):
        Scale(1, 5).score(6, "here")


def test_a_scale_is_described_with_its_best_end() -> None:
    assert Scale(1, 5).describe() == "1 to 5, highest is best"
    assert Scale(0, 100, "low").describe() == "0 to 100, lowest is best"


def test_one_split_is_selected_in_the_order_of_the_file() -> None:
    given = benchmark(row("c", "test"), row("a", "train"), row("b", "test"))
    assert [one.id for one in given.select("test").rows] == ["c", "b"]
    assert given.select(None) is given
    assert given.select("test").notes == ("a note",)
    with pytest.raises(PocketiqaError, match="benchmark some has no split 'validation': known splits: test, train"):
        given.select("validation")


def test_the_usual_split_is_everything_only_where_there_are_no_splits() -> None:
    assert [one.id for one in benchmark(row("a"), row("b")).usual("test").rows] == ["a", "b"]
    with pytest.raises(PocketiqaError, match="no split 'test': known splits: train"):
        benchmark(row("a", "train"), row("b")).usual("test")


def test_facts_count_the_rows() -> None:
    facts = benchmark(row("a", "test", "g1"), row("b", "train", "g2"), row("c", "train", "g2")).as_dict()
    assert (facts["images"], facts["groups"]) == (3, 2)
    assert facts["splits"] == {"train": 2, "validation": 0, "test": 1}
    assert (facts["scale"], facts["notes"]) == ("1 to 5, highest is best", ["a note"])


def test_rows_must_be_some_and_distinct() -> None:
    assert check_rows("some", [row("a"), row("b")]) == (row("a"), row("b"))
    with pytest.raises(PocketiqaError, match="benchmark some: the label file lists no images"):
        check_rows("some", [])
    with pytest.raises(PocketiqaError, match="benchmark some: 'a' is listed twice"):
        check_rows("some", [row("a"), row("b"), row("a")])
