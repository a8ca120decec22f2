"""Old names of recipe keys: read with a note, and kept in what is written to disk."""

import json
from pathlib import Path

import pytest
import yaml

from distill.recipe.recipe import load_recipe
from distill.recipe.settings import Settings
from distill.recipe.stages import BenchmarkSection, FuseSection, PoolSection, ScoreSection, SourceSection
from distill.recipe.training import (
    ImageSettings,
    LossSettings,
    OptimizerSettings,
    StudentSettings,
    TrainConfig,
    ViewSettings,
)
from pseudo_labels.errors import PocketiqaError, RenamedWarning
from pseudo_labels.files import digest_of

# Class, an old key with a value, the new key.
RENAMED = [
    (PoolSection, {"sources": ["x"], "near_distance": 2}, "near_duplicate_distance"),
    (PoolSection, {"sources": ["x"], "max_bad_share": 0.25}, "max_bad_fraction"),
    (FuseSection, {"opinions": "csv:x.csv"}, "ratings"),
    (BenchmarkSection, {"opinions": "csv:x.csv"}, "ratings"),
    (BenchmarkSection, {"ratings": "csv:x.csv", "near": 0.5}, "near_duplicate_cosine"),
    (ScoreSection, {"damages": ["jpeg"]}, "distortions"),
    (SourceSection, {"opinions": "csv:x.csv"}, "ratings"),
    (OptimizerSettings, {"rates": {"backbone.": 0.5}}, "learning_rate_multipliers"),
    (OptimizerSettings, {"final_share": 0.1}, "min_learning_rate_ratio"),
    (StudentSettings, {"grid": 8}, "map_stride"),
    (ViewSettings, {"crop_share": 0.5}, "crop_fraction"),
]


@pytest.mark.parametrize(("section", "values", "new"), RENAMED)
def test_an_old_key_is_read_noted_and_stays_on_disk(section: type[Settings], values: dict[str, object], new: str):
    old = list(values)[-1]
    with pytest.warns(RenamedWarning, match=f"^'{old}' is called '{new}' now"):
        read = section.model_validate(values)
    assert getattr(read, new) == values[old]
    assert read.stored()[old] == read.model_dump(mode="json")[new]
    assert new not in read.stored()
    today = {new if name == old else name: value for name, value in values.items()}
    assert section.model_validate(today) == read


def test_a_newer_key_is_written_down_where_it_is_set():
    assert not any(name.startswith("region") for name in LossSettings().stored())
    assert LossSettings(region_quality=0.5).stored()["region_quality"] == 0.5
    assert LossSettings(region_quality=0.5).model_dump()["region_ranking"] == 0.0


def test_both_names_at_once_are_refused():
    with pytest.raises(ValueError, match="opinions"):
        SourceSection.model_validate({"opinions": "csv:x.csv", "ratings": "csv:y.csv"})


def test_a_setting_that_did_nothing_is_passed_over_with_a_note():
    with pytest.warns(RenamedWarning, match=r"'max_side' is passed over: .*student\.max_side"):
        read = ImageSettings.model_validate({"max_side": 512, "crop_size": 400})
    assert read == ImageSettings(crop_size=400)


def test_what_a_run_of_the_first_version_wrote_down_is_written_down_today():
    # Computed by the code before the keys were renamed: such a run is resumed, not refused as changed.
    assert digest_of(TrainConfig().determining()) == FIRST_VERSION
    assert digest_of(TrainConfig(images=ImageSettings(crop_size=160)).determining()) == FIRST_VERSION_CROP_160


def test_old_keys_of_a_file_and_of_the_command_line_are_read(tmp_path: Path):
    tree = {
        "name": "x",
        "out": "o",
        "sources": [{"opinions": "csv:x.csv"}],
        "distill": {"optimizer": {"learning_rate_multipliers": {"backbone.": 0.5}}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.warns(RenamedWarning) as notes:
        recipe = load_recipe(str(tmp_path / "recipe.yaml"), ["distill.optimizer.rates={}", "distill.student.grid=8"])
    assert {str(note.message).split()[0] for note in notes} == {"'opinions'", "'rates'", "'grid'"}
    assert recipe.distill is not None
    assert recipe.distill.optimizer.learning_rate_multipliers == {}
    assert recipe.distill.student.map_stride == 8
    assert recipe.sources[0].ratings == "csv:x.csv"
    assert json.loads(json.dumps(recipe.stored()))["sources"][0]["opinions"] == "csv:x.csv"


def test_a_key_that_never_was_is_an_error(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "x", "out": "o", "merges": {}}))
    with pytest.raises(PocketiqaError, match="unknown key 'merges'"):
        load_recipe(str(tmp_path / "recipe.yaml"))


FIRST_VERSION = "d758eb2f8e42056c20758ea543e6e73f7cd2fa345f6d60e3b3c3927a39bc1ec4"
FIRST_VERSION_CROP_160 = "7b2262b6719e6b2ccf746954cdfa2ff0f36ef6da101c0fc14d01b8ff5541311e"
