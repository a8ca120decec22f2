import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status, TeacherStamp
from pseudo_labels.store import LabelStore
from teachers.base import TeacherOutput, check_output, check_teacher, shapes
from teachers.composite.multi_view import MOST_CROPS, MultiView, Views, read_views, view_images
from teachers.label import label
from teachers.reference import build_reference
from teachers.sam_iqa import build_sam_iqa
from tests.helpers.own_teacher import Contrast, percent
from tests.helpers.pools import photograph, synthetic_pool

OWN = "tests.helpers.own_teacher:build"
SIZES = [(40, 61), (200, 133), (7, 9), (250, 251), (1, 1), (2, 5)]


class Red:
    """Scores the mean of the red channel, and takes that of green as its own spread where it gives one.

    Args:
        give: how an item is handed over.
        spread: whether there is an own spread; not a number where green is below a tenth.
        worst: score of an image without any red.
    """

    needs_reference = False
    feature_names = ("corner",)

    def __init__(self, give: Callable[[Tensor], Any] = lambda pixels: pixels, spread: bool = True, worst: float = 0.0):
        self.stamp = TeacherStamp("red", 3, "none", {"spread": spread})
        self.calls: list[int] = []
        self._give, self._spread, self._worst = give, spread, worst

    def to(self, device: torch.device) -> "Red":
        self.device = device
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Any:
        return self._give(torch.from_numpy(image))

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        self.calls.append(len(batch))
        assert len({shapes(item) for item in batch}) == 1
        assert all(type(item) is type(self._give(torch.zeros(1))) for item in batch)
        images = torch.stack([item if isinstance(item, Tensor) else item[0] for item in batch]) / 255
        red, green = (images[..., channel].mean((1, 2)) for channel in (0, 1))
        green[green < 0.1] = math.nan
        return TeacherOutput(
            torch.where(red > 0, red, self._worst), green if self._spread else None, {"corner": images[:, 0, 0]}
        )


def spread_of(output: TeacherOutput) -> Tensor:
    """The spread, which is there."""
    assert output.score_std is not None
    return output.score_std


def ramp(height: int, width: int) -> np.ndarray:
    """Each pixel holds its row and its column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)


def corners(image: np.ndarray, views: Views) -> list[tuple[int, int]]:
    """Top and left of each crop of a ramp, as its pixels say; proves that the crops are cut out of it unaltered."""
    values = []
    for crop in view_images(image, views)[1:]:
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        np.testing.assert_array_equal(crop, image[top : top + crop.shape[0], left : left + crop.shape[1]])
        values.append((top, left))
    return values


@pytest.mark.parametrize("crops", [0, 1, 2, 3, 4, 5, 6, 9, 20, MOST_CROPS])
@pytest.mark.parametrize("fraction", [0.03, 0.5, 0.8, 0.999])
def test_crops_lie_inside_and_symmetric_about_the_centre(crops: int, fraction: float):
    for height, width in SIZES:
        image, views = ramp(height, width), Views(crops, fraction)
        cut = view_images(image, views)
        np.testing.assert_array_equal(cut[0], image)
        assert len(cut) == views.count == crops + 1
        sides = (max(1, round(fraction * height)), max(1, round(fraction * width)))
        assert {crop.shape[:2] for crop in cut[1:]} <= {sides}
        measured = np.array(corners(image, views), int).reshape(-1, 2)
        turned = np.array([height - sides[0], width - sides[1]]) - measured
        # A crop cannot lie in the middle of an odd room: a pixel of rounding.
        distance = np.abs(measured[:, None] - turned[None]).max(2, initial=0)
        assert (distance.min(1, initial=1000) <= 1).all()
        if crops > 1:  # the outermost touch all borders
            assert measured.min(0).tolist() == [0, 0]
            assert measured.max(0).tolist() == [height - sides[0], width - sides[1]]


def test_one_crop_is_central_and_four_and_five_take_the_corners():
    image = ramp(100, 50)
    at_corners = [(0, 0), (0, 10), (20, 0), (20, 10)]
    assert corners(image, Views(1)) == [(10, 5)]
    assert corners(image, Views(4)) == at_corners
    assert corners(image, Views(5)) == [*at_corners, (10, 5)]


@pytest.mark.parametrize("crops", [2, 3, 6, 7, 8, 9, 12, 16, 40, MOST_CROPS])
def test_any_number_of_crops_is_spread_more_evenly_than_by_chance(crops: int):
    def nearest(positions: np.ndarray) -> float:
        return (np.linalg.norm(positions[:, None] - positions[None], axis=2) + 1000 * np.eye(crops)).min()

    rng = np.random.default_rng(0)
    by_chance = [nearest(rng.uniform(0, 100, (crops, 2))) for _ in range(200)]
    # Of all numbers to 64, the worst is 3 with 2.3 times.
    assert nearest(np.array(corners(ramp(200, 200), Views(crops, 0.5)))) > 2 * np.mean(by_chance)


@pytest.mark.parametrize("crops", [0, 1, 4, 6])
def test_flips_add_each_view_mirrored(crops: int):
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    plain, flipped = view_images(image, Views(crops)), view_images(image, Views(crops, flips=True))
    assert len(flipped) == Views(crops, flips=True).count == 2 * len(plain)
    for view, expected in zip(flipped, plain + [np.fliplr(view) for view in plain], strict=True):
        np.testing.assert_array_equal(view, expected)
        assert (view.flags.c_contiguous, view.dtype) == (True, np.uint8)


def test_views_do_not_depend_on_how_the_image_lies_in_memory():
    image = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    crossed = np.asfortranarray(image)[:]
    for view, other in zip(view_images(image, Views(7)), view_images(crossed, Views(7)), strict=True):
        assert other.flags.c_contiguous
        assert view.tobytes() == other.tobytes()


def images_of_one_size(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    slopes = np.linspace(0.2, 1, 30)[None, :, None] * np.linspace(0.3, 1, 20)[:, None, None]
    return [(rng.integers(60, 256, (20, 30, 3)) * slopes).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("views", [Views(5, 0.5, flips=True), Views(3, 0.7), Views(flips=True), Views(1)])
@pytest.mark.parametrize("spread", [True, False])
def test_score_and_spread_are_those_of_a_view_drawn_at_random(views: Views, spread: bool):
    images = images_of_one_size()
    teacher = MultiView(Red(spread=spread), views)
    output = teacher([teacher.preprocess(image, None) for image in images])
    for image, score, std in zip(images, output.score.tolist(), spread_of(output).tolist(), strict=True):
        means = np.array([view.mean((0, 1)) / 255 for view in view_images(image, views)])
        # Moments of the mixture: E[x^2] = mean of (variance + score^2), and its mean subtracted.
        own = means[:, 1] if spread else 0
        second = np.mean(own**2 + means[:, 0] ** 2)
        assert score == pytest.approx(means[:, 0].mean(), abs=1e-6)
        assert std == pytest.approx(math.sqrt(second - means[:, 0].mean() ** 2), abs=2e-6)
    np.testing.assert_allclose(output.features["corner"], [image[0, 0] / 255 for image in images], atol=1e-6)


def test_a_single_view_is_left_as_the_inner_teacher_gives_it():
    images = images_of_one_size()
    for spread in (True, False):
        inner = Red(spread=spread)
        teacher = MultiView(inner, Views())
        output = teacher([teacher.preprocess(image, None) for image in images])
        alone = inner([inner.preprocess(image, None) for image in images])
        assert torch.equal(output.score, alone.score)
        assert (output.score_std is None) == (alone.score_std is None)
        assert output.score_std is None or torch.equal(output.score_std, spread_of(alone))


def test_an_own_spread_that_is_not_a_number_counts_as_none():
    dark = images_of_one_size(1)[0]
    dark[..., 1] = 0
    spreads = []
    for spread in (True, False):
        teacher = MultiView(Red(spread=spread), Views(5))
        spreads.append(spread_of(teacher([teacher.preprocess(dark, None)])))
    assert torch.equal(*spreads)
    assert float(spreads[0]) > 0


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_in_one_view_is_none(worst: float):
    images = images_of_one_size(3)
    images[1][:10, :15, 0] = 0  # one crop of the four, and not the whole
    teacher = MultiView(Red(worst=worst), Views(4, 0.5))
    output = teacher([teacher.preprocess(image, None) for image in images])
    assert output.score.isfinite().tolist() == [True, False, True]
    checked = check_output(output, 3, teacher.feature_names, "red")
    assert checked.score.isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("give", [lambda x: x, lambda x: (x,), lambda x: (x, x[0])], ids=["bare", "one", "two"])
def test_items_come_back_as_the_inner_teacher_made_them(give: Callable[[Tensor], Any]):
    inner = Red(give)
    teacher = MultiView(inner, Views(2))
    items = [teacher.preprocess(image, None) for image in images_of_one_size(3)]
    assert len({shapes(item) for item in items}) == 1
    assert all(isinstance(tensor, Tensor) for item in items for tensor in item)
    teacher([list(item) for item in items])  # type: ignore[list-item]  # as a loader of torch may hand them on
    # Never more at once than the caller's batch.
    assert inner.calls == [3, 3, 3]


def test_a_score_does_not_depend_on_batch_or_order():
    teacher = MultiView(Red(), Views(6, 0.6, flips=True))
    items = [teacher.preprocess(image, None) for image in images_of_one_size(7)]
    together, backwards = teacher(items), teacher(items[::-1])
    for row, item in enumerate(items):
        alone = teacher([item])
        for output, position in ((together, row), (backwards, 6 - row)):
            assert output.score[position].item() == pytest.approx(alone.score.item(), abs=1e-6)
            assert spread_of(output)[position].item() == pytest.approx(spread_of(alone).item(), abs=1e-6)


def test_it_is_a_teacher_with_the_identity_of_the_inner_one_and_its_views():
    inner = Red()
    teacher = MultiView(inner, Views(5, flips=True))
    assert check_teacher(teacher, "red") is teacher
    assert (teacher.needs_reference, teacher.feature_names) == (False, ("corner",))
    assert teacher.to(torch.device("cpu")) is teacher
    assert inner.device == torch.device("cpu")
    stamp = teacher.stamp
    assert stamp.options == {"spread": True, "views": {"crops": 5, "crop_share": 0.8, "flips": True, "version": 1}}
    assert (stamp.name, stamp.version, stamp.weights, stamp.scale) == ("red", 3, "none", inner.stamp.scale)
    others = [Views(), Views(5), Views(4, flips=True), Views(5, 0.7, flips=True), Views(flips=True)]
    digests = {MultiView(inner, views).stamp.digest for views in others} | {stamp.digest, inner.stamp.digest}
    assert len(digests) == len(others) + 2
    # Without crops their size means nothing.
    assert MultiView(inner, Views(0, 0.5)).stamp == MultiView(inner, Views(0, 0.6)).stamp
    with pytest.raises(PocketiqaError, match="'red' has views among its options already"):
        MultiView(teacher, Views(1))


def test_what_the_inner_teacher_says_wrong_is_told_in_its_name():
    teacher = MultiView(percent(), Views(2))
    with pytest.raises(PocketiqaError, match="'contrast' gave scores from 55 to 55"):
        teacher([teacher.preprocess(images_of_one_size(1)[0], None)])


def test_memory_that_runs_out_halves_the_batch_as_without_views(tmp_path: Path):
    pool = synthetic_pool(tmp_path, images=1, per_image=4, max_side=64)
    said: list[str] = []
    options = {"memory_images": 2, "views": {"crops": 2}}
    store = label(pool.folder, OWN, tmp_path / "labels", shards=1, options=options, device="cpu", warn=said.append)
    assert set(store.labels()["status"].to_pylist()) == {"ok"}
    assert said == ["out of memory with a batch of 5 images: continuing with 2"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return synthetic_pool(tmp_path_factory.mktemp("pool"), images=2, per_image=3, max_side=96)


def test_labels_with_views_have_their_spread_and_weight(pool: Pool, tmp_path: Path):
    views = {"crops": 5, "flips": True}
    store = label(pool.folder, OWN, tmp_path / "views", options={"views": views}, features=True, device="cpu")
    plain = label(pool.folder, OWN, tmp_path / "plain", features=True, device="cpu")
    assert store.spec.stamp.options["views"] == {"crops": 5, "crop_share": 0.8, "flips": True, "version": 1}
    assert store.digest != plain.digest
    teacher = Contrast()
    for ref, row in zip(pool, store.labels().to_pylist(), strict=True):
        cut = view_images(pool.load(ref), read_views(views))
        single = np.array([float(teacher([teacher.preprocess(view, None)]).score[0]) for view in cut])
        assert len(single) == 12
        assert row["score"] == pytest.approx(single.mean(), abs=1e-6)
        assert row["score_std"] == pytest.approx(math.hypot(single.std(), 0.1), abs=1e-6)  # 0.1 is the teacher's own
        assert row["score_std"] > 0.1
        assert row["confidence"] == pytest.approx(1 / (1 + (row["score_std"] / 0.1) ** 2), abs=1e-5)
        assert row["confidence"] < 0.5
    for index in range(store.spec.shards):  # of the whole view, so that they are the same
        np.testing.assert_array_equal(store.shard_features(index)["cells"], plain.shard_features(index)["cells"])


def test_a_teacher_without_spread_of_its_own_gets_one(pool: Pool, tmp_path: Path):
    options = {"variant": "tiny", "pretrained": False}

    def labelled(name: str, **extra: Any) -> LabelStore:
        return label(pool.folder, "sam_iqa", tmp_path / name, options={**options, **extra}, device="cpu", shards=1)

    plain, store = labelled("plain").labels(), labelled("views", views=Views(2, 0.6, flips=True)).labels()
    assert np.isnan(plain["score_std"].to_numpy()).all()
    assert set(plain["confidence"].to_pylist()) == {1.0}
    assert (store["score_std"].to_numpy() > 0).all()
    assert (store["confidence"].to_numpy() < 1).all()


def test_sam_judges_the_views_as_it_would_judge_them_alone():
    inner = build_sam_iqa(variant="tiny", pretrained=False)
    views = Views(4, 0.5, flips=True)
    teacher = MultiView(inner, views)
    image = photograph("cat", 96)
    output = teacher([teacher.preprocess(image, None)] * 2)
    alone = [inner([inner.preprocess(view, None)]) for view in view_images(image, views)]
    scores = np.array([float(predicted.score[0]) for predicted in alone])
    assert scores.std() > 0
    np.testing.assert_allclose(output.score, [scores.mean()] * 2, atol=1e-6)
    np.testing.assert_allclose(spread_of(output), [scores.std()] * 2, atol=1e-6)
    for name in inner.feature_names:
        torch.testing.assert_close(output.features[name][1], alone[0].features[name][0], atol=1e-5, rtol=0)


def test_a_reference_is_cut_and_mirrored_alike():
    clean = photograph("astronaut", 100)
    noise = np.random.default_rng(0).normal(0, 1, clean.shape) * np.linspace(0, 40, clean.shape[1])[None, :, None]
    distorted = (clean + noise).clip(0, 255).astype(np.uint8)  # more and more to the right
    inner, views = build_reference(metrics="gmsd,mdsi"), Views(4, 0.7, flips=True)
    teacher = MultiView(inner, views)
    output = teacher([teacher.preprocess(distorted, clean)])
    pairs = zip(view_images(distorted, views), view_images(clean, views), strict=True)
    alone = [inner([inner.preprocess(*pair)]) for pair in pairs]
    scores = np.array([float(predicted.score[0]) for predicted in alone])
    own = np.array([float(spread_of(predicted)[0]) for predicted in alone])
    left, right = scores[1], scores[2]
    assert left > right + 0.05  # the views see different distortion
    assert float(output.score[0]) == pytest.approx(scores.mean(), abs=1e-6)
    assert float(spread_of(output)[0]) == pytest.approx(math.sqrt(scores.var() + np.mean(own**2)), abs=1e-6)
    # Only where both are cut at the same place are all views equal, which scores 1 exactly.
    same = teacher([teacher.preprocess(clean, clean)])
    assert (same.score.tolist(), spread_of(same).tolist()) == ([1.0], [0.0])


def test_a_crop_that_is_too_small_is_told_as_a_view_and_keeps_its_status():
    photo = photograph("cat", 70)
    reference = MultiView(build_reference(metrics="gmsd"), Views(5))
    with pytest.raises(PocketiqaError, match=r"^a view of the image: 77x51 pixels: the metrics need 64 on each side"):
        reference.preprocess(photo, photo)
    with pytest.raises(PocketiqaError, match=r"^40x40 pixels: the metrics need 64 on each side"):
        reference.preprocess(photo[:40, :40], photo[:40, :40])
    with pytest.raises(PocketiqaError, match=r"^a full-reference teacher needs the clean image"):
        reference.preprocess(photo, None)
    sam = MultiView(build_sam_iqa(variant="tiny", pretrained=False), Views(1, 0.5))
    with pytest.raises(ImageError, match=r"^a view of the image: 48x6 pixels: a patch of SAM has 8x8") as caught:
        sam.preprocess(photo[:12], None)
    assert caught.value.status == Status.TOO_SMALL


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"crops": -1}, "crops is -1: give a whole number from 0 to 64"),
        ({"crops": 65}, "crops is 65"),
        ({"crops": True}, "crops is True"),
        ({"crops": "5"}, "crops is '5'"),
        ({"crop_fraction": 0.0}, "crop_fraction is 0.0: give a number above 0 and below 1"),
        ({"crop_fraction": 1}, "crop_fraction is 1"),
        ({"crop_fraction": math.nan}, "crop_fraction is nan"),
        ({"crop_fraction": "big"}, "crop_fraction is 'big'"),
        ({"flips": 1}, "flips is 1: give true or false"),
        ({"crop": 5, 3: 1}, "unknown crop, 3; choose from crops, crop_fraction, flips"),
        (5, "views 5: give a mapping of crops, crop_fraction, flips, as {crops: 5, flips: true}"),
        (["crops"], r"views \['crops'\]: give a mapping"),
    ],
)
def test_views_that_cannot_be_are_refused(value: Any, named: str):
    with pytest.raises(PocketiqaError, match=named):
        read_views(value)


def test_views_are_read_from_a_mapping():
    assert read_views({}) == Views()
    assert read_views({"crops": 5, "flips": True}) == Views(5, 0.8, True)
    assert read_views(Views(2, 0.5)) == Views(2, 0.5)
