"""The file of a comparison: what it may say, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.comparison.config import Comparison, Row, load_comparison
from pseudo_labels.errors import PocketiqaError, RenamedWarning

MEASURED = {"name": "a", "models": ["x.onnx"]}
PUBLISHED = {"name": "b", "published": {"srcc": 0.9, "images": "all", "source": "a paper"}}


def written(tmp_path: Path, **changes: Any) -> str:
    tree = {"name": "small", "out": "out", "benchmark": {"ratings": "csv:r.csv"}, "rows": [MEASURED, PUBLISHED]}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return str(path)


def test_settings_are_laid_over_the_file(tmp_path: Path):
    read = load_comparison(written(tmp_path), ["timed_images=20"], out=tmp_path / "there")
    assert (read.timed_images, read.out, read.benchmark.split) == (20, tmp_path / "there", "test")


def test_the_comparison_that_comes_along_is_valid():
    assert {row.name for row in load_comparison("biq2021_results", []).rows} >= {"pocket-m", "OpenCV BRISQUE"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [PUBLISHED]}, "no row has 'models'"),
        ({"rows": [MEASURED, MEASURED]}, "give each its own"),
        ({"rows": [MEASURED, {"name": "A!", "models": ["y.onnx"]}]}, "would have one folder, 'a': call one of them"),
        ({"rows": [{"name": name, "models": ["x"]} for name in "?!"]}, "would have one folder, 'row'"),
        ({"rows": [{"name": "a"}]}, "give either 'models' or 'published'"),
        ({"rows": [{**MEASURED, **PUBLISHED}]}, "give either 'models' or 'published'"),
        ({"rows": [MEASURED, {**PUBLISHED, "time": True}]}, "leave options, time and make out"),
        ({"plotted": ["b"]}, "'b' is no row that is measured here: choose a"),
        ({"gains": [{"row": "a", "over": "c"}]}, "'c' is no row that is measured here"),
        ({"timed_images": 2}, "timed_images"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=message):
        load_comparison(written(tmp_path, **changes), [])


def test_a_recipe_is_no_comparison():
    with pytest.raises(PocketiqaError, match="holds no comparison"):
        load_comparison("quickstart", [])


def test_folders_of_rows_have_plain_names():
    assert Row(name="pocket-m, labels alone (3)", models=("x",)).slug == "pocket-m-labels-alone-3"
    assert Row(name="***", models=("x",)).slug == "row"


def test_the_old_word_for_ratings_is_read(tmp_path: Path):
    tree = {"name": "n", "out": "o", "benchmark": {"opinions": "csv:r.csv"}, "rows": [MEASURED]}
    with pytest.warns(RenamedWarning, match="'opinions' is called 'ratings' now"):
        assert Comparison.model_validate(tree).benchmark.ratings == "csv:r.csv"
    # A setting under the old name replaces the value that the file has under the new one.
    with pytest.warns(RenamedWarning, match="'opinions' is called 'ratings' now"):
        comparison = load_comparison(written(tmp_path), ["benchmark.opinions=csv:other.csv"])
    assert comparison.benchmark.ratings == "csv:other.csv"
