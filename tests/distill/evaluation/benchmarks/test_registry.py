"""How a command line names a benchmark: NAME:FOLDER, csv:FILE, and options behind a question mark."""

import re
from collections import Counter
from pathlib import Path

import pytest

from distill.evaluation.benchmarks import BENCHMARKS, load_benchmark, names_benchmark
from distill.recipe.stages import expanded
from pseudo_labels.errors import PocketiqaError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("koniq10k:/data/koniq", True),
        ("csv:", True),
        ("csv://host/ratings.csv", False),
        ("koniq10k", False),
        ("/data/koniq10k", False),
        ("https://example.org/a.png", False),
    ],
)
def test_a_benchmark_is_distinguished_from_a_path_and_an_address(text: str, named: bool) -> None:
    assert names_benchmark(text) is named


@pytest.mark.parametrize("spec", ["koniq", "koniq10k", "koniq10k:", "nothing:/x"])
def test_unknown_names_list_the_known_ones(spec: str) -> None:
    with pytest.raises(PocketiqaError, match=r"form NAME:FOLDER with NAME one of agiqa3k, biq2021.*uhdiqa"):
        load_benchmark(spec)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match=re.escape(f"{Path.home()}/no-such-folder is not a folder")):
        load_benchmark("koniq10k:~/no-such-folder")
    with pytest.raises(PocketiqaError, match="is not a folder"):
        load_benchmark(f"live:{tmp_path / 'nowhere'}")
    with pytest.raises(PocketiqaError, match="no CSV file"):
        load_benchmark(f"csv:{tmp_path / 'nowhere.csv'}")


def test_every_supported_benchmark_has_a_reader() -> None:
    names = "koniq10k spaq livec kadid10k tid2013 live csiq flive uhdiqa agiqa3k biq2021 csv"
    assert set(BENCHMARKS) == set(names.split())


def ratings(folder: Path, name: str = "ratings.csv") -> Path:
    lines = [f"{number}.png,{1 + number % 5},g{number // 2}" for number in range(20)]
    (folder / name).write_text("\n".join(["image,mos,group", *lines]))
    return folder / name


def test_the_validation_fraction_combines_with_options_of_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATINGS", str(tmp_path))
    ratings(tmp_path)
    benchmark = load_benchmark(expanded("csv:$RATINGS/ratings.csv?scale=1:5&best=low&validation=0.2"))
    assert Counter(row.split for row in benchmark.rows) == {"train": 16, "validation": 4}
    assert benchmark.rows[0].score == 1.0
    # A question mark in the name of a file that is there is not the beginning of options.
    odd = ratings(tmp_path, "odd?scale=1:5")
    with pytest.raises(PocketiqaError, match="lies outside the scale 0 to 1"):
        load_benchmark(f"csv:{odd}")


def test_unknown_options_are_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"biq2021: unknown option 'scale=1:5': the only one it has is validation"):
        load_benchmark(f"biq2021:{tmp_path}?scale=1:5")
    with pytest.raises(PocketiqaError, match=r"validation='much' is no fraction of benchmark csv"):
        load_benchmark(f"csv:{ratings(tmp_path)}?scale=1:5&validation=much")
    with pytest.raises(PocketiqaError, match="is not like scale=1:5"):
        load_benchmark(f"csv:{ratings(tmp_path)}?scales=1:5&validation=0.2")
