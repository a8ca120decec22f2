from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.fitting import SolvableTeacher
from teachers.kernel_ridge import KernelRidgeTeacher, build_kernel_ridge
from tests.teachers.qfm_iqm.tiny_qfm import picture

SOLVED = list(range(24))


def tiny(**options: Any) -> KernelRidgeTeacher:
    return build_kernel_ridge(
        **{"backbone": "test_efficientnet", "pretrained": False, "max_side_px": 96, "precision": "fp32"} | options
    )


def items(teacher: KernelRidgeTeacher, seeds: list[int]) -> list[Any]:
    return [teacher.preprocess(picture(seed), None) for seed in seeds]


def contrast(seeds: list[int]) -> np.ndarray:
    """What the pictures differ in, as a score in [0, 1]."""
    return np.array([picture(seed).std() for seed in seeds]) / 90


def solved(teacher: KernelRidgeTeacher) -> np.ndarray:
    groups = [f"scene{seed}" for seed in SOLVED]
    summaries = teacher.summarise(items(teacher, SOLVED))
    return teacher.solve(summaries, contrast(SOLVED), np.ones(len(SOLVED)), groups, seed=0)


@pytest.fixture(scope="module")
def fitted() -> KernelRidgeTeacher:
    teacher = tiny()
    solved(teacher)
    return teacher


def test_the_statistics_are_mean_and_deviation_of_all_depths_at_both_sizes():
    teacher = tiny()
    summary = teacher.summarise(items(teacher, [1]))[0]
    channels = teacher.model.backbone.channels
    assert summary.shape == (2 * 2 * sum(channels),)
    rgb = items(teacher, [1])[0][None].float()
    with torch.no_grad():
        for size, image in enumerate((rgb, torch.nn.functional.avg_pool2d(rgb, 2))):
            first = teacher.model.backbone(image)[0][0].flatten(1)
            start = size * 2 * sum(channels)
            expected = torch.cat((first.mean(1), first.std(1, correction=0)))
            assert summary[start : start + len(expected)] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)


def test_it_learns_what_pictures_differ_in(fitted: KernelRidgeTeacher):
    new = list(range(100, 112))
    scores = fitted(items(fitted, new)).score.numpy()
    assert np.corrcoef(scores, contrast(new))[0, 1] > 0.9
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_scores_of_held_out_scenes_are_worse_than_those_of_learned_ones():
    teacher = tiny()
    unseen = solved(teacher)
    learned = teacher(items(teacher, SOLVED)).score.numpy()
    target = contrast(SOLVED)
    assert unseen.shape == target.shape
    assert np.abs(learned - target).mean() < np.abs(unseen - target).mean() < np.abs(target - target.mean()).mean()


def test_solving_changes_the_identity_and_a_file_brings_it_back(fitted: KernelRidgeTeacher, tmp_path: Path):
    new = tiny()
    before = new.stamp.digest
    solved(new)
    assert new.stamp.digest == fitted.stamp.digest != before
    new.save_trained(tmp_path / "head.safetensors", scale="contrast", licence="none")
    loaded = tiny(head=tmp_path / "head.safetensors")
    assert loaded.stamp.weights == new.stamp.weights
    assert loaded.scale == "contrast"
    assert loaded(items(loaded, [5])).score.tolist() == new(items(new, [5])).score.tolist()
    assert len(loaded.model.support) == len(SOLVED)


def test_statistics_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    teacher = tiny(cache=tmp_path)
    first = teacher.summarise(items(teacher, [1, 2]))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2

    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("looked again")

    monkeypatch.setattr(teacher.model, "_statistics", refuse)
    assert teacher.summarise(items(teacher, [2, 1])).tolist() == first[::-1].tolist()


def test_a_backbone_in_lower_precision_keeps_the_rest_in_full():
    teacher = tiny(precision="bf16")
    unseen = solved(teacher)
    assert teacher.model.support.dtype == torch.float32
    assert np.corrcoef(unseen, contrast(SOLVED))[0, 1] > 0.5


def test_it_is_solved_and_not_trained(fitted: KernelRidgeTeacher):
    assert isinstance(fitted, SolvableTeacher)
    with pytest.raises(PocketiqaError, match=r"solved at once .* `pocketiqa fit-teacher`"):
        fitted.fitting_module()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halvings": 5}, r"halvings 5: choose 0 to 3"),
        ({"max_side_px": 0}, r"max_side_px 0: a whole number"),
        ({"pretrained": None, "head": "new"}, r"kernel_ridge has no weights of test_efficientnet"),
        ({"pretrained": True}, r"kernel_ridge has no head"),
        ({"weights": "w.safetensors"}, r"pretrained is False and weights is 'w\.safetensors'"),
    ],
)
def test_unfit_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        tiny(**options)
