from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.pool import build_pool
from pseudo_labels.records import Status, TeacherStamp
from teachers.base import Item, TeacherOutput
from teachers.composite.anchored import AnchoredTeacher, build_anchored
from teachers.label import label
from teachers.reference import build_reference
from teachers.registry import build_teacher
from tests.helpers.training import texture


class Brightness:
    """Says how bright an image is; counts how often it was asked."""

    needs_reference = False
    feature_names = ("mean",)

    def __init__(self, licence: str = "none", spread: float | None = 0.1):
        self.asked, self.spread = 0, spread
        self.stamp = TeacherStamp("brightness", 1, weights="none", options={}, scale="share of white", licence=licence)

    def to(self, device: torch.device) -> "Brightness":
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        assert reference is None
        if image.shape[0] < 68:  # the reference teacher takes 64
            raise ImageError(Status.TOO_SMALL, "a side is below 68 pixels")
        return torch.from_numpy(image.copy())

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        self.asked += len(batch)
        score = torch.stack([item.double().mean() / 255 for item in batch]).float()
        spread = None if self.spread is None else torch.full((len(batch),), self.spread)
        return TeacherOutput(score, spread, {"mean": score[:, None]})


class Comparing(Brightness):
    needs_reference = True


class Swayed(Brightness):
    """Its score hangs on how many it judges at once: by far more than the last bits of a network do."""

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        output = super().__call__(batch)
        return replace(output, score=output.score / len(batch))


class Coarse(Brightness):
    """Takes bfloat16, which numpy does not know."""

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        return torch.from_numpy(image.copy()).bfloat16()


def anchored(base: Any = None, *, exponent: float = 1.0, features: bool = False) -> AnchoredTeacher:
    return AnchoredTeacher(base or Brightness(), build_reference(), exponent=exponent, features=features)


def items(teacher: AnchoredTeacher, noise: tuple[float, ...], scene: int = 0) -> list[Any]:
    clean = texture(scene, 0, (72, 80))
    return [teacher.preprocess(texture(scene, level, (72, 80)), clean) for level in noise]


def test_the_score_is_the_product_and_the_spread_that_of_a_product():
    teacher, clean, copy = anchored(), texture(0, 0, (72, 80)), texture(0, 20, (72, 80))
    reference = build_reference()
    left = reference([reference.preprocess(copy, clean)])
    output = teacher([teacher.preprocess(copy, clean)])
    base, fraction = clean.mean() / 255, float(left.score)
    assert left.score_std is not None
    assert output.score_std is not None
    assert 0 < fraction < 0.95
    assert float(output.score) == pytest.approx(base * fraction, abs=1e-6)
    expected = np.hypot(fraction * 0.1, base * float(left.score_std))
    assert float(output.score_std) == pytest.approx(expected, abs=1e-6)


def test_an_exponent_below_one_makes_damage_cost_less_in_the_same_order():
    plain, mild = anchored(), anchored(exponent=0.25)
    full, less = plain(items(plain, (0, 5, 20, 60))), mild(items(mild, (0, 5, 20, 60)))
    base = float(full.score[0])
    torch.testing.assert_close(less.score.double(), base * (full.score.double() / base) ** 0.25, rtol=1e-6, atol=1e-6)
    assert float(less.score[0]) == base
    assert (less.score[1:] > full.score[1:]).all()
    # Numerically: how the product moves where the comparison moves by its spread.
    assert full.score_std is not None
    assert less.score_std is not None
    fraction = full.score.double()[1:] / base
    share_std = (full.score_std.double()[1:].square() - (fraction * 0.1).square()).sqrt() / base
    step = 1e-4 * share_std
    slope = ((fraction + step) ** 0.25 - (fraction - step) ** 0.25) / (2 * step)
    expected = torch.hypot(fraction**0.25 * 0.1, base * slope * share_std)
    torch.testing.assert_close(less.score_std.double()[1:], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("spread", "expected"), [(0.125, 0.125), (None, 0.0), (float("inf"), 0.0)])
def test_a_clean_photograph_scores_exactly_what_the_base_says(spread: float | None, expected: float):
    base = Brightness(spread=spread)
    output = anchored(base)(items(anchored(base), (0,)))
    said = base([base.preprocess(texture(0, 0, (72, 80)), None)])
    assert torch.equal(output.score, said.score)
    assert output.score_std is not None
    assert float(output.score_std) == expected


def test_a_score_does_not_depend_on_the_batch():
    def scores(size: int) -> torch.Tensor:
        teacher = anchored(Swayed())  # a new one, which remembers nothing
        own = [item for scene in (0, 1) for item in items(teacher, (0, 20), scene)]
        return torch.cat([teacher(own[start : start + size]).score for start in range(0, len(own), size)])

    alone = scores(1)
    assert len(set(alone.tolist())) == 4
    assert all(torch.equal(scores(size), alone) for size in (2, 3, 4))


def test_the_base_looks_once_at_each_clean_photograph():
    base = Brightness()
    teacher = anchored(base)
    together = teacher(items(teacher, (0, 5, 20)))
    assert base.asked == 1
    alone = torch.cat([teacher([item]).score for item in items(teacher, (0, 5, 20))])
    assert base.asked == 1
    torch.testing.assert_close(together.score, alone, rtol=0, atol=0)
    assert together.features == {}


def test_what_the_base_said_is_forgotten_where_it_was_not_needed_for_longest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("teachers.composite.anchored._REMEMBERED", 2)
    base = Brightness()
    teacher = anchored(base)
    asked: list[int] = []
    for scene in (0, 1, 0, 2, 0, 1):
        teacher(items(teacher, (0,), scene))
        asked.append(base.asked)
    assert asked == [1, 2, 2, 3, 3, 4]


def test_on_another_device_the_base_is_asked_again():
    base = Brightness()
    teacher = anchored(base)
    teacher(items(teacher, (0,)))
    teacher.to(torch.device("cpu"))(items(teacher, (0,)))
    assert base.asked == 2


def test_the_base_may_take_any_type_of_tensor():
    base = Coarse()
    teacher = anchored(base)
    assert float(teacher(items(teacher, (0, 5))).score[0]) == pytest.approx(texture(0, 0, (72, 80)).mean() / 255, 1e-2)
    assert base.asked == 1


def test_features_are_those_of_the_copy():
    base = Brightness()
    teacher = anchored(base, features=True)
    assert teacher.feature_names == ("mean",)
    output = teacher(items(teacher, (5, 20)))
    expected = [texture(0, level, (72, 80)).mean() / 255 for level in (5, 20)]
    torch.testing.assert_close(output.features["mean"][:, 0], torch.tensor(expected, dtype=torch.float32))
    assert base.asked == 3


def test_stamps_tell_bases_apart():
    stamps = [anchored(base, features=wanted).stamp for base, wanted in (
        (Brightness(), False), (Brightness("other"), False), (Brightness(), True)
    )]  # fmt: skip
    stamps.append(anchored(exponent=0.5).stamp)
    assert len({stamp.digest for stamp in stamps}) == 4
    assert stamps[0].scale == "share of white"
    assert stamps[0].digest == anchored().stamp.digest


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(PocketiqaError, match="base 'brightness' compares with references itself"):
        anchored(Comparing())
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(PocketiqaError, match=f"exponent is {wrong}, but a number above 0"):
            anchored(exponent=wrong)
    with pytest.raises(PocketiqaError, match="exponent is 'half', but a number above 0"):
        build_anchored(build_teacher, exponent="half")  # type: ignore[arg-type]
    teacher, small = anchored(), texture(0, 0, (40, 80))
    with pytest.raises(PocketiqaError, match="needs the clean image"):
        teacher.preprocess(small, None)
    with pytest.raises(PocketiqaError, match="80x40 pixels"):
        teacher.preprocess(small, small)
    narrow = texture(0, 0, (66, 80))
    with pytest.raises(ImageError, match="below 68 pixels") as refused:
        teacher.preprocess(narrow, narrow)
    assert refused.value.status == Status.TOO_SMALL
    with pytest.raises(PocketiqaError, match="unknown teacher 'brihgtness'"):
        build_anchored(build_teacher, base="brihgtness")


def test_it_labels_a_synthetic_pool(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for scene in range(2):
        Image.fromarray(texture(scene, 0, (96, 112))).save(tmp_path / "photos" / f"{scene}.png")
    pool = build_pool([str(tmp_path / "photos")], tmp_path / "pool")
    synthetic = build_synthetic_pool(pool, tmp_path / "synthetic", per_image=2, names=["white_noise"], seed=0)
    options = {"base": "tests.helpers.own_teacher:build", "features": True}
    # One shard, or there would be one image in each and no batch at all.
    singly, together = (
        label(
            tmp_path / "synthetic", "anchored", tmp_path / f"by {size}", options=options, features=True, shards=1,
            batch_size=size, device="cpu",
        )
        for size in (1, 4)
    )  # fmt: skip
    # The same but for the batch, which rows and the spec record.
    one, other = (store.labels().drop_columns(["batch"]) for store in (singly, together))
    assert one.equals(other)
    features = [store.folder / "shard-00000" / "features.safetensors" for store in (singly, together)]
    assert features[0].read_bytes() == features[1].read_bytes()
    rows = together.labels()
    score = dict(zip(rows["id"].to_pylist(), rows["score"].to_pylist(), strict=True))
    assert len(score) == 6
    for ref in synthetic:
        assert (score[ref.id] < score[ref.ref_id or ref.id]) == bool(ref.distortion)
