import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from distill.data.labelled_regions import RegionExamples
from distill.recipe.training import FitConfig
from distill.training.loop import InterruptedRunError
from distill.training.region_teacher import (
    FeatureCache,
    RegionBatchMaker,
    RegionValidator,
    fit_regions,
)
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from teachers.registry import build_teacher
from teachers.seagull.build import build_seagull
from teachers.seagull.language import QUALITY
from teachers.seagull.teacher import SeagullTeacher
from teachers.seagull.tuning import AnswerLoss, RegionLabels, instructions
from tests.helpers.fitting import NAME
from tests.helpers.labelled_regions import noisy_quarters

OPTIONS: dict[str, Any] = {
    "variant": "tiny", "pretrained": False, "precision": "fp32", "lora_rank": 8, "most_tokens": 4, "head": "new",
}  # fmt: skip


def config(**changes: Any) -> FitConfig:
    """A fitting of a few seconds."""
    return FitConfig(
        **{
            "teacher": "seagull", "options": OPTIONS, "steps": 4, "batch_size": 4, "device": "cpu", "threads": 1,
            "tracker": "none", "validate_every_steps": 4, "checkpoint_every_steps": 2, "log_every_steps": 2,
            "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2}, "split": {"validation": 0.3},
            **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> RegionExamples:
    return noisy_quarters(4)


@pytest.fixture(scope="module")
def unbroken(examples: RegionExamples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a fitting that nothing has interrupted."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit_regions(config(), examples, out)
    return out


def test_the_fitted_folder_is_a_teacher_that_answers_as_validated(unbroken: Path, examples: RegionExamples):
    result = fit_regions(config(), examples, unbroken)  # it is done: read, not trained again
    fitted = build_teacher(str(result.teacher))
    assert isinstance(fitted, SeagullTeacher)
    assert fitted.stamp.weights != build_seagull(**OPTIONS).stamp.weights
    assert fitted.scale.startswith("ratings of regions (level words")
    assert fitted.licence == "random weights; drawn"
    seen = (unbroken / "teacher" / "seen.txt").read_text().split()
    assert seen == [f"picture-{number}" for number in range(4)]
    assert result.step == 4
    assert set(result.validation["sources"]) == {"quality", "importance"}
    assert result.validation["sources"]["quality"]["n"] == 4
    assert not (unbroken / "features").exists()


def test_an_interrupted_fitting_ends_as_an_unbroken_one(unbroken: Path, examples: RegionExamples, tmp_path: Path):
    def stop(done: int, _steps: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="at step 3 of 4"):
        fit_regions(config(), examples, tmp_path / "run", progress=stop)
    fit_regions(config(), examples, tmp_path / "run")
    for name in ("teacher/fitted.safetensors", "history.jsonl", "split.json"):
        assert (tmp_path / "run" / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_dropout_and_averages_resume_too(examples: RegionExamples, tmp_path: Path):
    averaging = config(ema_decay=0.9, steps=3, checkpoint_every_steps=1, validate_every_steps=3)

    def stop(done: int, _steps: int) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        fit_regions(averaging, examples, tmp_path / "broken", progress=stop)
    folders = [fit_regions(averaging, examples, tmp_path / name).teacher for name in ("broken", "whole")]
    first, second = (load_file(folder / "fitted.safetensors") for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_labels_are_another_run(unbroken: Path, examples: RegionExamples):
    first = replace(examples.regions[0], labels=RegionLabels(quality=0.5))
    with pytest.raises(OutputConflictError, match=r"regions\.digest"):
        fit_regions(config(), replace(examples, regions=[first, *examples.regions[1:]]), unbroken)


def test_only_seagull_learns_from_regions(examples: RegionExamples, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="does not learn from regions: fit seagull"):
        fit_regions(config(teacher=NAME, options={}), examples, tmp_path / "run")
    with pytest.raises(PocketiqaError, match="its trained_state is empty"):
        fit_regions(config(options={**OPTIONS, "lora_rank": 0}), examples, tmp_path / "run")


def test_a_part_without_labels_is_named(examples: RegionExamples, tmp_path: Path):
    bare = [replace(region, labels=RegionLabels()) for region in examples.regions]
    with pytest.raises(PocketiqaError, match="the train part has no region with a label"):
        fit_regions(config(), replace(examples, regions=bare), tmp_path / "run")


@pytest.fixture(scope="module")
def teacher() -> SeagullTeacher:
    return build_seagull(**{**OPTIONS, "lora_dropout": 0.0, "questions": ("quality",)})


def test_feature_maps_are_computed_once_and_mended(teacher: SeagullTeacher, examples: RegionExamples, tmp_path: Path):
    asked: list[str] = []

    def pixels(image: str) -> np.ndarray:
        asked.append(image)
        return examples.pixels(image)

    images = [f"picture-{number}" for number in range(3)]
    cache = FeatureCache(tmp_path / "maps", teacher, pixels)
    cache.fill(images)
    maps = cache.maps("picture-1")
    assert [tuple(level.shape) for level in maps] == list(teacher.model.sizes.extractor.map_shapes)
    assert {level.dtype for level in maps} == {torch.float16}
    files = sorted((tmp_path / "maps").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-10])
    FeatureCache(tmp_path / "maps", teacher, pixels).fill(images)
    assert len(asked) == 4  # three pictures, and the cut-off one once more
    other = build_seagull(**{**OPTIONS, "seed": 1})
    with pytest.raises(PocketiqaError, match="feature maps of a picture at"):
        FeatureCache(tmp_path / "maps", other, pixels).maps("picture-1")


def test_each_pass_shows_every_pair_once(teacher: SeagullTeacher, examples: RegionExamples, tmp_path: Path):
    cache = FeatureCache(tmp_path / "maps", teacher, examples.pixels)
    cache.fill([f"picture-{number}" for number in range(4)])
    asked = teacher.asking.questions
    pairs = sum(len(instructions(region.labels, questions=asked)) for region in examples.regions)
    assert pairs == 16 * 3  # what is asked: the quality, and a true and an untrue statement on it
    whole = RegionBatchMaker(teacher, examples, cache, per_process=16, rank=0, world=1, seed=3)
    shown = [pair for number in range(3) for pair in whole.make(number).pairs]
    assert sorted(pair.question for pair in shown) == sorted(
        pair.question
        for number, region in enumerate(examples.regions)
        for pair in instructions(region.labels, questions=asked, draw=number)
    )
    alone = RegionBatchMaker(teacher, examples, cache, judgements=False, per_process=16, rank=0, world=1, seed=3)
    assert {pair.grade for pair in alone.make(0).pairs} == {"quality"}
    # Two processes show the same, in halves.
    halves = [
        RegionBatchMaker(teacher, examples, cache, per_process=8, rank=rank, world=2, seed=3).make(1) for rank in (0, 1)
    ]
    assert [*halves[0].pairs, *halves[1].pairs] == whole.make(1).pairs
    assert whole.make(3).pairs != whole.make(0).pairs


def test_the_tiny_model_learns_thirty_two_regions(teacher: SeagullTeacher, tmp_path: Path):
    """Eight pictures with four regions each: SRCC at least 0.95 after 45 steps."""
    learned = noisy_quarters(8, seed=5)
    cache = FeatureCache(tmp_path / "maps", teacher, learned.pixels)
    cache.fill([f"picture-{number}" for number in range(8)])
    batches = RegionBatchMaker(teacher, learned, cache, per_process=1, rank=0, world=1, seed=0)
    quality = [(number, instructions(region.labels)[0]) for number, region in enumerate(learned.regions)]
    batch = batches.of(quality)
    loss = AnswerLoss(teacher.model, teacher.tokens).train()
    optimizer = torch.optim.AdamW([value for value in loss.parameters() if value.requires_grad], weight_decay=0.0)
    steps = 45
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1, (step + 1) / 10, 2 * (steps - step) / steps)
        optimizer.zero_grad()
        loss(batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
    validation = RegionValidator(teacher, learned, cache).validate()
    assert validation["score"] >= 0.95
    # The same by the public way, region by region.
    loss.eval()
    given, labels = [], []
    for number, region in enumerate(learned.regions):
        if number % 8 == 0:
            (score,) = teacher.score_regions(learned.pixels(region.image), [region.mask()])
            assert score.answers[QUALITY].startswith("Quality: ")
            given.append(score.quality)
            labels.append(region.labels.quality)
    assert spearmanr(given, labels)[0] == pytest.approx(1)
