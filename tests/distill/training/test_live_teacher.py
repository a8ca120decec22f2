import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.data.examples import Source
from distill.recipe.training import LiveSettings, LossSettings, TrainConfig
from distill.training.batches import Batch
from distill.training.live_teacher import LiveTeacher
from distill.training.loop import InterruptedRunError
from distill.training.losses import LossInputs, score_loss_of
from distill.training.student import train
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status, TeacherStamp
from pseudo_labels.store import LabelStore
from teachers.base import TeacherOutput
from tests.helpers.training import stop_at, texture_pool, texture_store, tiny_config

ME = "tests.distill.training.test_live_teacher:build"


class Brightness:
    """Mean brightness as score; views of odd height have none; features are the mean colours of a 2x2 grid."""

    needs_reference = False
    feature_names = ("grid",)

    def __init__(self, shift: float, spread: float):
        self.shift, self.spread = shift, spread
        self.stamp = TeacherStamp("brightness", 1, "none", {"shift": shift, "spread": spread})
        self.largest = 0

    def to(self, device: object) -> "Brightness":
        del device
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Tensor:
        assert reference is None
        assert image.dtype == np.uint8
        if min(image.shape[:2]) < 8:
            raise ImageError(Status.TOO_SMALL, "too small")
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        self.largest = max(self.largest, len(batch))
        images = torch.stack(batch)
        score = (images.mean((1, 2, 3)) * 0.5 + self.shift).clamp(0, 1)
        if images.shape[2] % 2:
            score = torch.full_like(score, float("nan"))
        grid = torch.nn.functional.adaptive_avg_pool2d(images, 2)
        return TeacherOutput(score, torch.full_like(score, self.spread), {"grid": grid})


def build(shift: float = 0.0, spread: float = 0.1) -> Brightness:
    return Brightness(shift, spread)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("data")
    pool = texture_pool(folder, scenes=6)
    texture_store(folder / "labels", pool)
    return Source("textures", Pool.open(folder / "pool"), LabelStore.open(folder / "labels"))


def live_teacher(name: str = ME, feature: str | None = None) -> LiveTeacher:
    return LiveTeacher(LiveSettings(teacher=name), feature)


def batch_of(views: list[np.ndarray], live: LiveTeacher) -> Batch:
    side = max(max(view.shape[:2]) for view in views)
    pixels = torch.zeros(len(views), side, side, 3, dtype=torch.uint8)
    ones = torch.ones(len(views))
    return Batch(pixels, ones, ones, torch.ones(len(views), 2), items=[live.prepare(view) for view in views])


def test_labels_are_replaced_view_by_view_whatever_their_shapes():
    live = live_teacher()
    views = [np.full((16, 16, 3), 200, np.uint8), np.full((9, 16, 3), 10, np.uint8), np.full((16, 16, 3), 50, np.uint8)]
    labels = live.relabel(batch_of(views, live))
    assert labels.target[[0, 2]].tolist() == pytest.approx([200 / 510, 50 / 510])
    assert labels.weight.tolist() == pytest.approx([0.5, 0.0, 0.5])  # a spread of 0.1 halves a weight; no answer, none
    assert labels.feature is None


def test_features_are_standardised_over_the_sample_and_judged_in_small_batches():
    live = live_teacher(feature="grid")
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    items = [live.prepare(view) for view in noise]
    assert live.learn_scale(items, batch_size=5) == (3, 2, 2)
    assert live._teacher.largest == 5  # type: ignore[attr-defined]
    feature = live.relabel(batch_of(list(noise), live)).feature
    assert feature is not None
    assert feature.mean((0, 2, 3)).numpy() == pytest.approx(0, abs=1e-4)
    assert feature.std((0, 2, 3), correction=0).numpy() == pytest.approx(1, abs=1e-3)


class HalfBlind(Brightness):
    """Features and score of crops of odd height are NaN, features of dark ones infinite."""

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        output = super().__call__(batch)
        dark = torch.stack(batch).mean((1, 2, 3)) < 0.1
        grid = output.features["grid"] + output.score[:, None, None, None] * 0
        grid[dark] = float("inf")
        return TeacherOutput(output.score, output.score_std, {"grid": grid})


def half_blind() -> HalfBlind:
    return HalfBlind(0.0, 0.1)


def test_a_crop_without_a_finite_answer_takes_no_part_and_makes_no_loss_nan():
    live = live_teacher("tests.distill.training.test_live_teacher:half_blind", "grid")
    noise = np.random.default_rng(0)
    crops = [noise.integers(0, 256, (height, 16, 3), dtype=np.uint8) for height in (16, 9, 16, 16)]
    crops[2] //= 16
    live.learn_scale([live.prepare(crop) for crop in crops], batch_size=2)
    labels = live.relabel(batch_of(crops, live))
    assert labels.weight.tolist() == pytest.approx([0.5, 0.0, 0.0, 0.5])
    assert labels.feature is not None
    assert labels.feature.isfinite().all()
    assert labels.feature[[1, 2]].abs().sum() == 0
    assert labels.feature[[0, 3]].abs().sum() > 0
    with pytest.raises(PocketiqaError, match="gave no finite feature 'grid' for 2 crops"):
        live.learn_scale([live.prepare(crop) for crop in crops[1:3]], batch_size=2)


def test_the_score_loss_is_in_proportion_to_the_confidence_and_the_correlation_is_not():
    crops = [np.full((16, 16, 3), value, np.uint8) for value in (200, 90, 50)]
    totals = []
    for spread in (0.0, 0.1):  # confidence 1 and a half
        live = LiveTeacher(LiveSettings(teacher=ME, options={"spread": spread}), None)
        labels = live.relabel(batch_of(crops, live))
        rows = LossInputs(torch.tensor([0.2, 0.3, 0.9]), labels.target, labels.weight)
        totals.append(score_loss_of(rows, LossSettings(score=1.0, plcc=1.0))[1])
    assert totals[1]["score"].item() == pytest.approx(totals[0]["score"].item() / 2)
    assert totals[1]["plcc"].item() == pytest.approx(totals[0]["plcc"].item())


def test_what_cannot_judge_views_is_refused():
    with pytest.raises(PocketiqaError, match="'reference' compares with references"):
        live_teacher("reference")
    with pytest.raises(PocketiqaError, match="no feature 'map': its features are grid"):
        live_teacher(feature="map")
    with pytest.raises(PocketiqaError, match=r"refuses a crop of 7x64 pixels \(too small\): raise images.crop_size"):
        live_teacher().prepare(np.zeros((64, 7, 3), np.uint8))


def live_config(shift: float = 0.0, **changes: object) -> TrainConfig:
    return tiny_config(live={"teacher": ME, "options": {"shift": shift}}, **changes)


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [record["score"] for record in records if record["kind"] == "train"]


def test_a_student_learns_what_the_teacher_says_of_crops_and_not_the_labels(source: Source, tmp_path: Path):
    """The teacher's scores are far from the labels: learning them, the mean prediction goes to the teacher's."""
    config = live_config(shift=0.5, steps=60, losses={"score": 1.0, "plcc": 0.0}, keep="last")
    train(config, [source], tmp_path / "run")
    losses_made = losses(tmp_path / "run")
    assert losses_made[-1] < 0.5 * losses_made[0]


def test_crops_may_be_compared_by_feature_and_a_resumed_run_gives_the_same_bytes(source: Source, tmp_path: Path):

    config = live_config(losses={"feature": 1.0, "relational": 0.5, "feature_name": "grid"})
    whole = train(config, [source], tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(config, [source], tmp_path / "broken", progress=stop_at(3))
    again = train(config, [source], tmp_path / "broken")
    for name in ("student/student.safetensors", "history.jsonl"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert all(value > 0 for value in losses(whole.folder))


def test_another_teacher_is_another_run(source: Source, tmp_path: Path):
    train(live_config(steps=4), [source], tmp_path / "run")
    with pytest.raises(PocketiqaError, match="shift"):
        train(live_config(shift=0.1, steps=4), [source], tmp_path / "run")
