"""Sections of a recipe around training: values that fit, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from distill.recipe.stages import (
    BenchmarkSection,
    CropSection,
    DistortSection,
    DropSettings,
    FuseSection,
    LabelSection,
    LevelSection,
    PoolSection,
    ScoreSection,
    SourceSection,
    expanded,
)
from pseudo_labels import defaults
from pseudo_labels.crops import RandomCrops
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.keep import KeepRule


def test_defaults_are_those_of_the_functions():
    pool = PoolSection(sources=["x"])
    assert pool.near_duplicate_distance == defaults.NEAR_DUPLICATE_DISTANCE
    assert pool.max_bad_fraction == defaults.MAX_BAD_FRACTION
    assert LabelSection().batch_size == defaults.LABEL_BATCH_SIZE
    assert DistortSection().per_image == defaults.DISTORTED_PER_IMAGE
    assert FuseSection().rule == KeepRule()
    assert CropSection().crops == RandomCrops()
    assert BenchmarkSection(ratings="x").near_duplicate_cosine == defaults.NEAR_DUPLICATE_COSINE


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        (PoolSection, {"sources": []}, "sources"),
        (PoolSection, {"sources": ["x"], "near_duplicate_distance": 11}, "near_duplicate_distance"),
        (PoolSection, {"sources": ["x"], "max_bad_fraction": 1.1}, "max_bad_fraction"),
        (DistortSection, {"per_image": 0}, "per_image"),
        (DistortSection, {"max_side": 63}, "max_side"),
        (LabelSection, {"threads": 0}, "threads"),
        (ScoreSection, {"level": 5.1}, "level"),
        (ScoreSection, {"images": 25}, "images"),
        (BenchmarkSection, {"ratings": "x", "near_duplicate_cosine": -1}, "near_duplicate_cosine"),
        (BenchmarkSection, {"ratings": "x", "split": "tset"}, "split"),
        (SourceSection, {"ratings": "x", "without_fold": "0/5"}, "without_fold"),
        (SourceSection, {"ratings": "x", "weight": 0}, "weight"),
        (SourceSection, {"pool": "x", "drops": []}, "drops"),
        (DropSettings, {"distortions": []}, "distortions"),
        (DropSettings, {"distortions": ["all"], "least": 0}, "least"),
        (LevelSection, {"per_image": 1}, "per_image"),
    ],
)
def test_a_value_out_of_range_names_its_key(section: type, values: dict[str, object], key: str):
    with pytest.raises(ValidationError) as caught:
        section.model_validate(values)
    assert caught.value.errors()[0]["loc"][0] == key


@pytest.mark.parametrize("other", [{"labels": "y"}, {"ratings": "x"}, {"features": "y"}, {"split": "train"}])
def test_an_order_of_levels_stands_beside_no_labels(other: dict[str, str]):
    drops = [{"distortions": ["all"]}]
    assert SourceSection.model_validate({"pool": "x", "drops": drops, "weight": 2}).weight == 2
    with pytest.raises(ValidationError, match="the order of levels needs no labels: give 'pool' and 'drops'"):
        SourceSection.model_validate({"pool": "x", "drops": drops} | other)
    with pytest.raises(ValidationError, match="the order of levels needs no labels"):
        SourceSection.model_validate({"drops": drops})


def test_the_score_cannot_fall_by_at_least_more_than_at_most():
    with pytest.raises(ValidationError, match=r"most 0\.01 is below least 0\.02"):
        DropSettings(distortions=("all",), least=0.02, most=0.01)
    assert LevelSection().drops == (DropSettings(distortions=("all",)),)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pool": "p"},
        {"labels": "l"},
        {"pool": "p", "ratings": "x"},
        {"pool": "p", "labels": "l", "split": "train"},
        {"pool": "p", "labels": "l", "ratings": "x", "features": "f"},
    ],
)
def test_a_source_is_a_store_or_ratings_and_no_half_of_either(values: dict[str, object]):
    with pytest.raises(ValidationError, match="a source is either 'pool' and 'labels', or 'ratings: NAME:FOLDER'"):
        SourceSection.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"pool": "p", "labels": "l"},
        {"ratings": "x", "features": "f", "subsets": ["a"], "images": 5, "without_fold": "2/5", "split": "train"},
        {"pool": "p", "labels": "l", "ratings": "x", "subsets": ["a"]},
    ],
)
def test_forms_of_a_source(values: dict[str, object]):
    assert SourceSection.model_validate(values).weight == 1.0


def test_crops_whose_bounds_are_reversed_are_refused():
    with pytest.raises(PocketiqaError, match=r"crops from 0\.95 to 0\.9"):
        assert CropSection(smallest=0.95).crops


def test_paths_are_expanded_when_they_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("koniq10k:$DATA/koniq") == "koniq10k:/data/koniq"
    assert expanded("~/x") == f"{tmp_path}/x"
    with pytest.raises(PocketiqaError, match=r"the variable \$NOWHERE in 'a/\$NOWHERE' is not set"):
        expanded("a/$NOWHERE")
    odd = tmp_path / "$NOWHERE"
    odd.mkdir()
    assert expanded(str(odd)) == str(odd)  # what exists as it is written stays as it is
