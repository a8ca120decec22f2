import json
from dataclasses import replace

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import TeacherStamp
from students.contract import Calibration, StudentContract
from students.preprocess import Preprocess

CONTRACT = StudentContract(
    name="tiny",
    student={"backbone": "lcnet_035"},
    preprocess=Preprocess(320),
    scale="reference teacher",
    parameters=12,
    macs=34,
    code_version="0.1.0",
    calibration=Calibration(((0.0, 0.0), (1.0, 0.9))),
    teachers=(TeacherStamp("reference", 1, "abc", {"metrics": ["FSIM"]}).as_dict(),),
    data=({"name": "größe", "digest": "d", "licence": "CC0"},),
    metrics={"srcc": {"value": 0.9, "n": 10}},
    parity={"score": 1e-7},
)


@pytest.mark.parametrize("contract", [CONTRACT, replace(CONTRACT, calibration=None, parity=None, teachers=(), data=())])
def test_json_round_trip(contract: StudentContract) -> None:
    assert StudentContract.from_json(contract.to_json()) == contract
    assert contract.backbone == "lcnet_035"


def test_a_conversion_is_optional_and_not_written_for_a_float_file() -> None:
    assert "conversion" not in CONTRACT.as_dict()  # so that float files are as they were, and older versions read them
    converted = replace(CONTRACT, conversion={"format": "onnx-int8"})
    assert StudentContract.from_json(converted.to_json()) == converted
    with pytest.raises(PocketiqaError, match="list as conversion"):
        StudentContract.from_dict({**CONTRACT.as_dict(), "conversion": []})


def test_a_region_head_makes_the_second_format() -> None:
    regions = {"scale": "reference", "map_stride": 8, "parameters": 1, "macs": 2, "metrics": {}}
    headed = replace(CONTRACT, regions=regions)
    assert StudentContract.from_json(headed.to_json()) == headed
    assert (CONTRACT.as_dict()["format"], headed.as_dict()["format"]) == (1, 2)
    assert (
        replace(headed, student={"grid": 16}).region_stride,
        replace(CONTRACT, student={"grid": 16}).region_stride,
    ) == (8, 16)
    for record, message in (
        ({**headed.as_dict(), "format": 1}, "unknown field 'regions'"),
        ({**headed.as_dict(), "regions": {**regions, "colour": 1}}, "unknown field 'colour'"),
        ({**headed.as_dict(), "regions": {**regions, "map_stride": "8"}}, r"str as regions\.map_stride"),
    ):
        with pytest.raises(PocketiqaError, match=message):
            StudentContract.from_dict(record)


def test_each_missing_field_is_named() -> None:
    for name in CONTRACT.as_dict():
        record = CONTRACT.as_dict()
        del record[name]
        expected = "format version None" if name == "format" else f"lacks '{name}'"
        with pytest.raises(PocketiqaError, match=expected):
            StudentContract.from_dict(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format version 9, but this pocketiqa reads 1 to 6"),
        ({"format": True}, "format version True"),
        ({"format": 2}, "lacks 'regions'"),
        ({"format": 3}, "lacks .look."),
        ({"format": 4}, "lacks .pairs."),
        ({"format": 5}, "lacks .types."),
        ({"look": None}, "unknown field .look."),
        ({"colour": "RGB"}, "unknown field 'colour'"),
        ({"score_range": [0, 100]}, r"score_range \[0, 100\]"),
        ({"parameters": "many"}, "str as parameters"),
        ({"macs": True}, "bool as macs"),
        ({"teachers": {}}, "dict as teachers"),
        ({"data": ["x"]}, r"str as data\[\]"),
        ({"preprocess": {"max_side": 384}}, "lacks 'min_side'"),
        ({"calibration": {"knots": [[0, 1], [1, 0]]}}, "strictly increase"),
    ],
)
def test_unfit_records_are_refused(change: dict, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        StudentContract.from_dict({**CONTRACT.as_dict(), **change})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_text_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(PocketiqaError, match="the student contract"):
        StudentContract.from_json(text)


def test_numbers_that_json_cannot_spell_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace(CONTRACT, metrics={"srcc": float("nan")}).to_json()
    assert json.loads(CONTRACT.to_json())["score_range"] == [0.0, 1.0]


KNOTS = ((0.0, 0.1), (0.25, 0.2), (1.0, 0.8))


def test_values_between_knots_lie_on_the_line() -> None:
    raw = np.array([0.0, 0.125, 0.25, 0.625, 1.0], np.float32)
    expected = [0.1, 0.15, 0.2, 0.5, 0.8]  # by hand
    calibrated = Calibration(KNOTS)(raw)
    assert calibrated.dtype == np.float32
    np.testing.assert_allclose(calibrated, expected, atol=1e-7)


def test_ranks_are_kept_and_maps_keep_their_shape() -> None:
    raw = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    calibrated = Calibration(KNOTS)(raw)
    assert calibrated.shape == raw.shape
    assert np.array_equal(np.argsort(calibrated.ravel()), np.argsort(raw.ravel()))


def test_nan_stays_nan() -> None:
    assert np.isnan(Calibration(KNOTS)(np.array([np.nan], np.float32))).all()


def test_json_round_trip_calibration() -> None:
    assert Calibration.from_dict(Calibration(KNOTS).as_dict()) == Calibration(KNOTS)


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        ([[0, 0]], "two or more"),
        ([[0, 0], [1, 2]], "lie in"),
        ([[0, 0], [1, float("nan")]], "lie in"),
        ([[0.1, 0], [1, 1]], "covers raw scores 0.1 to 1"),
        ([[0, 0], [0.9, 1]], "covers raw scores 0.0 to 0.9"),
        ([[0, 0], [0.5, 0.6], [0.5, 0.7], [1, 1]], "strictly increase"),
        ([[0, 0], [0.5, 0.5], [1, 0.5]], "strictly increase"),
        ([[0, 1], [1, 0]], "strictly increase"),
        ([[0, 0], 1], "pairs of numbers"),
        ([["a", 0], [1, 1]], "pairs of numbers"),
        (7, "pairs of numbers"),
    ],
)
def test_unfit_knots_are_refused(knots: object, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        Calibration.from_dict({"knots": knots})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", '{"format": "' + "x" * 10**6 + '"}'])
def test_hostile_text_is_one_plain_line(text: str) -> None:
    with pytest.raises(PocketiqaError) as caught:
        StudentContract.from_json(text)
    assert len(str(caught.value)) < 300


def test_messages_quote_a_bounded_part_of_a_field() -> None:
    long = ["x" * 1000] * 1000
    for wrong in ({"calibration": {"knots": long}}, {"score_range": long}, {"x" * 10**6: 1, "y" * 10**6: 2}):
        with pytest.raises(PocketiqaError) as caught:
            StudentContract.from_dict(CONTRACT.as_dict() | wrong)
        assert len(str(caught.value)) < 900
