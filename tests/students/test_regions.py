"""Regions of an image by a student's maps: the formula, coordinates of the picture, forms of masks, bad regions."""

import io
import math
import time

import numpy as np
import pytest
from PIL import Image

from pseudo_labels import limits
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import decode
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import encode, runs_of
from students.regions import RegionResult, cells_across, cells_of, score_regions
from students.runtime import Scorer, score
from tests.helpers.encoders import encode as encode_image
from tests.helpers.encoders import exif_turn, stored_for

rng = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    return np.kron(
        rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)
    )[:height, :width]


def by_pixels(scorer: Scorer, rgb: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Quality and importance by counting small pieces: a grid so fine that pixels and cells are made of whole ones."""
    result, stride = scorer.score(rgb), scorer.map_stride
    tall, wide = scorer.contract.preprocess.size(*rgb.shape[:2])
    (height, width), q, w = rgb.shape[:2], result.quality_map.astype(float), result.weight_map.astype(float)
    rows, columns = ((np.arange(side) + 0.5) / side for side in (math.lcm(tall, height), math.lcm(wide, width)))
    cells = np.ix_((rows * tall // stride).astype(int), (columns * wide // stride).astype(int))
    inside = mask[np.ix_((rows * height).astype(int), (columns * width).astype(int))]
    # Each cell counts by its weight once, however much of it lies within the picture.
    number = np.arange(q.size).reshape(q.shape)[cells]
    whole = np.bincount(number.ravel(), minlength=q.size)
    part = np.bincount(number[inside], minlength=q.size) / whole
    weights = w.ravel() * part
    return float((q.ravel() * weights).sum() / weights.sum()), float(weights.sum() / w.sum())


@pytest.mark.parametrize("size", [(96, 64), (160, 240), (90, 120)])
def test_quality_and_importance_are_the_weighted_means_of_the_maps(scorer: Scorer, size: tuple[int, int]) -> None:
    rgb = picture(*size)
    masks = [np.zeros(size, bool) for _ in range(3)]
    masks[0][10:50, 20:40] = True
    masks[1][-7:, -9:] = True  # in the last cells, which reach beyond the picture
    masks[2][::3, ::2] = True
    for mask, region in zip(masks, scorer.score(rgb, regions=masks).regions, strict=True):
        quality, importance = by_pixels(scorer, rgb, mask)
        assert region.quality == pytest.approx(quality, abs=1e-9)
        assert region.importance == pytest.approx(importance, abs=1e-9)
        assert region.area == mask.mean()


@pytest.mark.parametrize("size", [(64, 64), (129, 257), (700, 900), (64, 3000)])
def test_the_whole_picture_has_its_score_and_parts_of_it_add_up(scorer: Scorer, size: tuple[int, int]) -> None:
    rgb, (height, width) = picture(*size), size
    labels = rng.integers(0, 3, size)
    plain = scorer.score(rgb)
    result = scorer.score(rgb, regions=[np.ones(size, bool), *(labels == one for one in range(3))])
    whole, *parts = result.regions
    assert (whole.quality, whole.importance) == (pytest.approx(plain.score, abs=1e-6), pytest.approx(1))
    assert (whole.box, whole.area) == ((0, 0, width, height), 1)
    assert sum(part.importance for part in parts) == pytest.approx(1)
    assert sum(part.importance * part.quality for part in parts) == pytest.approx(plain.score, abs=1e-6)
    # Regions change nothing else.
    assert result.score == plain.score
    assert np.array_equal(result.quality_map, plain.quality_map)


def test_regions_are_in_pixels_of_the_upright_picture(scorer: Scorer) -> None:
    rgb = picture(200, 320)
    box = (230, 20, 60, 90)
    turned = encode_image(stored_for(rgb, 6), "PNG", exif=exif_turn(6))
    upright = encode_image(rgb, "PNG")
    expected = scorer.score(rgb, regions=[box]).regions
    for image in (turned, upright, Image.open(io.BytesIO(turned))):
        assert scorer.score(image, regions=[box]).regions == expected
    assert expected[0].box == box


def test_pictures_that_are_decoded_reduced_have_their_regions_too(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb, box = rng.integers(0, 256, (1200, 1500, 3), dtype=np.uint8), (900, 20, 500, 290)
    data = encode_image(rgb, "PNG")
    whole = scorer.score(rgb, regions=[box])
    monkeypatch.setattr(limits, "REDUCE_ABOVE", 10_000)
    assert decode(data, resizer=scorer.contract.preprocess).shape < rgb.shape  # as it is without regions
    reduced = scorer.score(data, regions=[box])
    assert (reduced.score, reduced.regions) == (whole.score, whole.regions)
    assert reduced.regions[0].box == box


def test_all_forms_of_a_region_are_one(scorer: Scorer) -> None:
    rgb = picture(90, 120)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:80] = True
    counts = encode(mask)
    polygon = [30, 20, 80, 20, 80, 60, 30, 60]
    forms = [
        mask, mask.astype(np.uint8) * 255, np.asfortranarray(mask), (30, 20, 50, 40), [30.0, 20, 50, 40],
        np.array([30, 20, 50, 40]), counts, counts.encode(), {"size": [90, 120], "counts": counts},
        {"size": [90, 120], "counts": runs_of(counts).tolist()}, polygon, [polygon],
    ]  # fmt: skip
    results = scorer.score(rgb, regions=forms).regions
    assert len(results) == len(forms)
    assert set(results) == {results[0]}
    assert results[0].box == (30, 20, 50, 40)
    assert scorer.score(rgb, regions=np.stack([mask, mask])).regions == results[:2]
    assert scorer.score(rgb, regions=np.array([[30, 20, 50, 40]])).regions == results[:1]
    assert scorer.score(rgb, regions=(form for form in forms[:1])).regions == results[:1]
    assert score(rgb, regions=[mask]).regions[0].box == (30, 20, 50, 40)


@pytest.mark.parametrize(
    ("region", "status", "words"),
    [
        (np.zeros((90, 120), bool), Status.EMPTY, "no pixel"),
        (encode(np.zeros((90, 120), bool)), Status.EMPTY, "no pixel"),
        (np.ones((120, 90), bool), Status.CORRUPT, "the mask is 90x120, but the image 120x90"),
        ({"size": [120, 90], "counts": "0"}, Status.CORRUPT, "the mask is 90x120, but the image 120x90"),
        (encode(np.ones((9, 9), bool)), Status.CORRUPT, "cover 81 pixels, but 120x90 are 10800"),
        ("no mask", Status.CORRUPT, "letters that COCO's code does not have"),
        ((200, 0, 10, 10), Status.EMPTY, "outside the image"),
        ((-20, -20, 10, 10), Status.EMPTY, "outside the image"),
        ((5, 5, 0, 10), Status.CORRUPT, "is no box"),
        ((5, 5, math.nan, 10), Status.CORRUPT, "is no box"),
        ([1, 2, 3], Status.CORRUPT, "polygon"),
    ],
)
def test_a_bad_region_is_a_result_with_its_reason(scorer: Scorer, region: object, status: Status, words: str) -> None:
    rgb, good = picture(90, 120), (0, 0, 50, 50)
    first, bad, last = scorer.score(rgb, regions=[good, region, good]).regions  # type: ignore[list-item]
    assert (bad.status, math.isnan(bad.quality), math.isnan(bad.importance)) == (status, True, True)
    assert words in bad.reason
    assert first == last
    assert (first.status, first.reason) == (Status.OK, "")


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        (np.ones((90, 120), bool), r"one array of shape \(90, 120\).*give \[mask\]"),
        ("text", r"regions is str.*give \[region\]"),
        ({"size": [90, 120], "counts": "0"}, r"regions is dict.*give \[region\]"),
        (7, "regions is int"),
        ((30, 20, 50, 40), "a region is int, but a mask"),
        ([np.ones((90, 120))], "a mask is float64, but bool or integers are needed: give mask > threshold"),
        ([np.ones((9, 12, 3), bool)], r"ndarray of shape \(9, 12, 3\)"),
        ([None], "a region is NoneType"),
    ],
)
def test_what_is_no_list_of_regions_is_the_program_s_fault(scorer: Scorer, regions: object, words: str) -> None:
    with pytest.raises(PocketiqaError, match=words):
        scorer.score(picture(90, 120), regions=regions)  # type: ignore[arg-type]


def test_single_pixels_and_overlapping_regions_have_values(scorer: Scorer) -> None:
    result = scorer.score(picture(300, 400), regions=[(399, 299, 1, 1), (0, 0, 400, 300), (0, 0, 400, 300)])
    pixel, *same = result.regions
    row, column = result.quality_map.shape
    assert pixel.quality == pytest.approx(float(result.quality_map[row - 1, column - 1]))
    assert pixel.area == 1 / 120_000
    assert 0 < pixel.importance < 0.01
    assert same[0] == same[1]


def test_thousands_of_small_regions_of_a_large_picture_are_quick() -> None:
    cells = cells_of((3000, 4000), (14, 18), (216, 288), 16)
    maps = rng.random((14, 18)), rng.random((14, 18)) + 0.1
    regions = [(x % 100 * 40, x // 100 * 300, 40, 30) for x in range(1000)]
    began = time.process_time()
    results = score_regions(*maps, cells, regions)
    # A mask of the whole picture takes 50 ms to decode alone.
    assert time.process_time() - began < 5
    assert {result.status for result in results} == {Status.OK}


def test_maps_of_another_stride_divide_the_picture() -> None:
    """The published student of DP-IQA has one cell for the whole picture."""
    assert cells_across((1, 1), (384, 512), 32) is None
    assert cells_across((12, 18), (192, 288), 16) == (12, 18)
    assert cells_across((13, 18), (193, 288), 16) == (193 / 16, 18)
    (region,) = score_regions(
        np.full((1, 1), 0.3), np.ones((1, 1)), cells_of((30, 40), (1, 1), (384, 512), 32), [(0, 0, 20, 30)]
    )
    assert (region.quality, region.importance) == (pytest.approx(0.3), pytest.approx(0.5))


def test_weights_that_are_no_numbers_are_a_reason() -> None:
    cells = cells_of((64, 64), (4, 4), (64, 64), 16)
    (region,) = score_regions(np.ones((4, 4)), np.zeros((4, 4)), cells, [(0, 0, 9, 9)])
    assert region == RegionResult(
        region.quality, region.importance, (0, 0, 9, 9), 81 / 4096, Status.FAILED, region.reason
    )
    assert "no finite weights" in region.reason
