"""The pool of a benchmark's images: made once, with the scenes that the benchmark states."""

from pathlib import Path

import pytest

from distill.data.rating_pool import benchmark_pool, rated_rows
from distill.evaluation.benchmarks import load_benchmark
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.records import Status
from tests.helpers.pools import write_photographs


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """Four rated photographs, of which one is a copy and one no picture, in two stated scenes."""
    paths = write_photographs(tmp_path / "photographs", images=3)
    copy, broken = tmp_path / "photographs" / "copy.png", tmp_path / "photographs" / "broken.png"
    copy.write_bytes(paths[0].read_bytes())
    broken.write_bytes(b"no picture")
    files = [*paths, copy, broken]
    lines = [f"{path},{number / 5},{'one' if number < 2 else 'two'}" for number, path in enumerate(files)]
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos,group", *lines]))
    return f"csv:{tmp_path / 'rated.csv'}"


def test_bad_images_are_rows_and_copies_are_rated_twice(spec: str, tmp_path: Path):
    benchmark = load_benchmark(spec)
    pool = benchmark_pool(benchmark, tmp_path / "pool", {"split": None})
    assert [ref.status for ref in pool] == [Status.OK] * 3 + [Status.DUPLICATE, Status.NOT_AN_IMAGE]
    rows = rated_rows(benchmark, pool)
    assert sorted(len(own) for own in rows.values()) == [1, 1, 2]
    assert {row.score for own in rows.values() for row in own} == {0.0, 0.2, 0.4, 0.6}


def test_stated_scenes_stay_together(spec: str, tmp_path: Path):
    pool = benchmark_pool(load_benchmark(spec), tmp_path / "pool", {})
    first, second, third, copy, _ = list(pool)
    assert first.group == second.group
    # The copy joins the scene of its picture with its own stated scene.
    assert copy.group == first.group
    assert third.group == copy.group


def test_the_pool_is_made_once_and_refused_for_other_rows(spec: str, tmp_path: Path):
    benchmark = load_benchmark(spec)
    first = benchmark_pool(benchmark, tmp_path / "pool", {"split": "a"})
    steps: list[tuple[int, int]] = []
    again = benchmark_pool(benchmark, tmp_path / "pool", {"split": "a"}, progress=lambda *at: steps.append(at))
    assert (again.digest, steps) == (first.digest, [])
    with pytest.raises(OutputConflictError, match="split"):
        benchmark_pool(benchmark, tmp_path / "pool", {"split": "b"})


def test_nothing_to_learn_from_is_an_error(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "rated.csv").write_text(f"image,mos\n{tmp_path / 'broken.png'},0.5\n")
    with pytest.raises(PocketiqaError, match=r"1 of 1|broken\.png|no image"):
        benchmark_pool(load_benchmark(f"csv:{tmp_path / 'rated.csv'}"), tmp_path / "pool", {})
