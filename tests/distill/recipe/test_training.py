"""Settings of training: which values fit together, and what a resumed run must repeat."""

import pytest
from pydantic import ValidationError

from distill.recipe.training import (
    FitConfig,
    LossSettings,
    OptimizerSettings,
    ScoreLossSettings,
    SplitSettings,
    StudentSettings,
    TrainConfig,
    ViewSettings,
)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (ScoreLossSettings, {"score": 0, "plcc": 0}, "every loss has weight 0"),
        (SplitSettings, {"validation": 0.6, "test": 0.4}, r"validation 0\.6 \+ test 0\.4 leave nothing to train on"),
        (
            TrainConfig,
            {"batch_size": 6, "accumulation_steps": 4},
            "batch_size 6 cannot be cut",
        ),
        (TrainConfig, {"steps": 20, "optimizer": {"warmup_steps": 20}}, "warmup_steps 20 must be fewer than steps 20"),
        (LossSettings, {"feature": 1.0}, "need feature_name"),
        (
            TrainConfig,
            {"losses": {"feature": 1.0, "feature_name": "x"}},
            "features show the whole image",
        ),
        (ViewSettings, {"crop_size": 64, "crop_fraction": 0.5}, r"crop_size 64 and crop_fraction 0\.5: give only one"),
        (StudentSettings, {"max_side": 63}, "max_side"),
        (OptimizerSettings, {"min_learning_rate_ratio": 1.5}, "min_learning_rate_ratio"),
    ],
)
def test_values_that_do_not_fit_together_are_named(section: type, values: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        section.model_validate(values)


def test_a_bare_no_is_a_precision():
    assert TrainConfig.model_validate({"mixed_precision": False}).mixed_precision == "no"


def test_features_are_compared_on_whole_images_or_with_a_live_teacher():
    losses = LossSettings(feature=1.0, feature_name="pooled")
    assert TrainConfig.model_validate({"losses": losses, "images": {"crop_size": None}}).losses.needs_features
    assert TrainConfig.model_validate({"losses": losses, "live": {}}).live is not None


def test_the_machine_is_no_part_of_what_determines_the_result():
    one = TrainConfig(device="cpu", threads=1, tracker="none")
    assert one.determining() == TrainConfig().determining()
    assert TrainConfig(steps=77).determining() != TrainConfig().determining()


def test_where_first_weights_lie_is_no_part_either():
    one = TrainConfig.model_validate({"student": {"init": "here.safetensors"}})
    assert one.determining() == TrainConfig.model_validate({"student": {"init": "there.safetensors"}}).determining()


def test_a_fitting_does_not_depend_on_where_its_files_lie():
    one = FitConfig(teacher="qfm_iqm", options={"weights": "a"})
    assert one.determining() == FitConfig(teacher="qfm_iqm", options={"weights": "b"}).determining()
    assert one.determining() != FitConfig(teacher="sam_iqa").determining()


@pytest.mark.parametrize(
    ("settings", "size", "crop"),
    [
        (ViewSettings(), (80, 96), (80, 96)),
        (ViewSettings(crop_fraction=0.5), (81, 3), (40, 2)),
        (ViewSettings(crop_size=90), (80, 96), (80, 90)),
        (ViewSettings(crop_fraction=0.001), (10, 10), (1, 1)),
    ],
)
def test_height_and_width_of_a_crop(settings: ViewSettings, size: tuple[int, int], crop: tuple[int, int]):
    assert settings.crop_of(*size) == crop
