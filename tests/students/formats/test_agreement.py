import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from students.contract import Calibration
from students.formats.agreement import (
    MAX_FLOAT_DIFFERENCE,
    Agreement,
    EightBitLimits,
    check_eight_bits,
    check_float,
    inputs_of_several_sizes,
    measure_agreement,
    measure_rated,
    measure_rounding,
)
from students.formats.photographs import Photographs
from students.preprocess import Preprocess
from tests.helpers.tiny_students import photographs

INPUTS = [np.full((1, 64, 64 + index, 3), 20 * index, np.uint8) for index in range(12)]


def brightness(batch: np.ndarray, shift: float = 0.0) -> list[np.ndarray]:
    """A form of a student whose score is the brightness."""
    score = batch.mean((1, 2, 3), dtype=np.float32) / 255 + np.float32(shift)
    cells = np.repeat(score, 4).reshape(-1, 2, 2)
    return [score, cells, cells]


def test_equal_forms_agree_and_a_shift_is_bias_mean_and_largest_at_once():
    same = measure_agreement(brightness, brightness, INPUTS)
    assert (same.srcc, same.mean, same.bias, same.largest, same.map_cell) == pytest.approx((1, 0, 0, 0, 0))
    assert same.images == 12
    assert same.sizes[:2] == ((64, 64), (64, 65))
    darker = measure_agreement(brightness, lambda batch: brightness(batch, -0.02), INPUTS)
    assert darker.srcc == pytest.approx(1)
    assert darker.bias == pytest.approx(-0.02, abs=1e-6)
    assert darker.mean == pytest.approx(0.02, abs=1e-6)
    assert darker.largest == pytest.approx(0.02, abs=1e-6)
    check_eight_bits(same, None, EightBitLimits(), "")
    check_float(same, "it")
    with pytest.raises(PocketiqaError, match=r"mean difference 0\.0200, at most 0\.005 is allowed; try harder"):
        check_eight_bits(darker, None, EightBitLimits(), "try harder")
    with pytest.raises(PocketiqaError, match=r"OpenVINO differs from ONNX Runtime by 0\.02"):
        check_float(darker, "OpenVINO")


def test_differences_are_those_of_calibrated_scores():
    steep = Calibration(((0.0, 0.0), (0.5, 0.1), (1.0, 1.0)))
    half = measure_agreement(brightness, lambda batch: brightness(batch, 0.01), INPUTS, steep)
    assert half.largest == pytest.approx(0.018, abs=1e-6)  # 0.01 at a slope of 1.8
    assert half.map_cell == pytest.approx(half.largest, abs=1e-6)


def test_a_form_that_reverses_the_order_is_refused():
    reverse = measure_agreement(brightness, lambda batch: [1 - part for part in brightness(batch)], INPUTS)
    assert reverse.srcc == pytest.approx(-1)
    with pytest.raises(PocketiqaError, match=r"SRCC to the float scores -1\.0000, at least 0\.998 is needed"):
        check_eight_bits(reverse, None, EightBitLimits(), "")


@pytest.mark.parametrize("wrong", [np.array([np.nan], np.float32), np.zeros(2, np.float32)])
def test_shapes_and_numbers_of_another_kind_are_refused(wrong: np.ndarray):
    def broken(batch: np.ndarray) -> list[np.ndarray]:
        return [wrong, *brightness(batch)[1:]]

    with pytest.raises(PocketiqaError, match="on 64x64 pixels: it cannot be used"):
        measure_agreement(brightness, broken, INPUTS)


def test_too_few_images_are_refused():
    with pytest.raises(PocketiqaError, match="9 images to compare both forms on: at least 10"):
        measure_agreement(brightness, brightness, INPUTS[:9])
    with pytest.raises(PocketiqaError, match="mine has 9 rated images"):
        measure_rated(brightness, brightness, [(image, 0.5) for image in INPUTS[:9]], name="mine")


def test_a_loss_by_ratings_of_people_is_refused():
    rated = [(image, float(index)) for index, image in enumerate(INPUTS)]

    def swaps(batch: np.ndarray) -> list[np.ndarray]:
        """The two brightest exchanged."""
        return brightness(batch, {220: -0.2, 200: 0.05}.get(int(batch[0, 0, 0, 0]), 0.0))

    result = measure_rated(brightness, swaps, rated, name="mine, train part")
    assert (result.srcc_float, result.images) == (pytest.approx(1), 12)
    assert result.srcc < 0.99
    assert result.mean == pytest.approx(0.25 / 12, abs=1e-6)
    assert result.bias == pytest.approx(-0.15 / 12, abs=1e-6)
    fine = measure_agreement(brightness, brightness, INPUTS)
    with pytest.raises(PocketiqaError, match=r"SRCC with the ratings of mine, train part 0\.9\d+ in place of 1\.0000"):
        check_eight_bits(fine, result, EightBitLimits(), "")
    with pytest.raises(PocketiqaError, match=r"mean difference 0\.0208 on mine, train part, at most 0\.005"):
        check_eight_bits(fine, result, EightBitLimits(rated_loss=0.1), "")
    check_eight_bits(fine, result, EightBitLimits(rated_loss=0.1, mean=0.03), "")


def test_inputs_are_photographs_in_three_sizes_whole_and_damaged():
    preprocess = Preprocess(128)
    inputs = inputs_of_several_sizes(photographs()[:2], preprocess)
    assert len(inputs) == 2 * 5 * 3
    np.testing.assert_array_equal(inputs[0][0], preprocess.resize(photographs()[0]))
    assert [max(batch.shape[1:3]) for batch in inputs[:3]] == [128, 102, 70]
    assert min(min(batch.shape[1:3]) for batch in inputs) >= preprocess.min_side
    again = inputs_of_several_sizes(photographs()[:2], preprocess)
    assert all(np.array_equal(first, second) for first, second in zip(inputs, again, strict=True))
    assert MAX_FLOAT_DIFFERENCE == 1e-4


def test_half_precision_may_differ_by_more():
    same = measure_agreement(brightness, brightness, INPUTS)
    check_float(replace(same, largest=0.0029), "ncnn", half=True)
    with pytest.raises(PocketiqaError, match=r"ncnn differs .* by 0\.0031 .* the limit is 0\.003; leave --half out"):
        check_float(replace(same, largest=0.0031), "ncnn", half=True)
    for half in (False, True):
        with pytest.raises(PocketiqaError, match="differs from ONNX Runtime by nan"):
            check_float(replace(same, largest=float("nan")), "ncnn", half=half)


def test_an_agreement_is_read_back_as_it_was_written():
    same = measure_agreement(brightness, brightness, INPUTS)
    assert Agreement.from_dict(json.loads(json.dumps(same.as_dict()))) == same


def test_rounding_of_sides_is_measured_on_whole_photographs(tmp_path: Path):
    """With a form whose score is the width: 200 and 120 pixels become 192 and 128."""
    for side in (200, 120):
        Image.new("RGB", (side, 100)).save(tmp_path / f"{side}.png")

    def width(batch: np.ndarray) -> list[np.ndarray]:
        return [np.array([batch.shape[2] / 1000], np.float32)]

    photographs = Photographs("two", [tmp_path / "200.png", tmp_path / "120.png"])
    own = Preprocess(max_side=256)
    measured = measure_rounding(width, photographs, own, replace(own, multiple=32))
    assert measured == pytest.approx({"images": 2, "mean": 0.008, "bias": 0.0, "largest": 0.008}, abs=1e-6)
    # As a calibration that is steep there shows them.
    steep = Calibration(((0.0, 0.0), (0.15, 0.1), (0.25, 0.9), (1.0, 1.0)))
    assert measure_rounding(width, photographs, own, replace(own, multiple=32), steep)["largest"] > 0.03
