import pytest

from pseudo_labels.errors import PocketiqaError
from students.config import StudentConfig
from students.preprocess import Preprocess

FULL = StudentConfig(
    "lcnet_035",
    levels=(4, 16),
    map_stride=16,
    head_width=24,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.2),
    pad_type="same",
    preprocess=Preprocess(256),
    last_stage="blocks.3",
)


@pytest.mark.parametrize("config", [FULL, StudentConfig("lcnet_035")])
def test_json_round_trip(config: StudentConfig) -> None:
    assert StudentConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": []}, r"levels is \[\]"),
        ({"levels": [16, 8]}, r"levels is \[16, 8\]"),
        ({"levels": [8, 8, 16]}, r"levels is \[8, 8, 16\]"),
        ({"levels": [5, 16]}, r"levels is \[5, 16\]"),
        ({"levels": 16}, "levels is 16"),
        ({"levels": [4, "x" * 100_000]}, r"levels is \[4, x{40}\]"),  # cannot be sorted, nor repeated whole
        ({"levels": [[4], None]}, r"levels is \[\[4\], None\]"),
        ({"grid": 8}, "map_stride is 8"),  # as files spell it
        ({"map_stride": 8}, "unknown field 'map_stride'; known are backbone, grid"),
        ({"head_width": 0}, "head_width is 0"),
        ({"head_width": "64"}, "head_width is '64'"),
        ({"mean": [0.5, 0.5]}, "mean is"),
        ({"mean": ["a", 0, 0]}, "mean is"),
        ({"std": [0.0, 0.2, 0.2]}, "std is"),
        ({"pad_type": "valid"}, "pad_type is 'valid'"),
        ({"depth": 3}, "unknown field 'depth'"),
        ({"last_stage": 3}, "last_stage is 3"),
    ],
)
def test_unfit_values_are_refused(change: dict, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        StudentConfig.from_dict({**FULL.as_dict(), **change})


def test_missing_field_is_refused() -> None:
    record = FULL.as_dict()
    del record["grid"]
    with pytest.raises(PocketiqaError, match="lacks 'grid'"):
        StudentConfig.from_dict(record)
