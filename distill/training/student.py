"""Distil a student: labelled pools in, a run folder with checkpoints, history and the finished student out.

Beside what every run holds (``run``), the folder has the finished ``student/`` at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.data.examples import Collected, Examples, Source
from distill.data.pixel_cache import PixelCache
from distill.data.regions import RegionReader
from distill.data.split import Part, Split
from distill.recipe.training import StudentSettings, TrainConfig
from distill.training.adapters import FeatureAdapter, TrainedStudent, teacher_embedding
from distill.training.batches import (
    Batch,
    BatchMaker,
    FeatureReader,
    RegionShower,
    Sampler,
    Size,
    whole_image_batches,
)
from distill.training.checkpoint import Checkpoint, Tensors, load_tensors
from distill.training.distributed import freeze, gather_rows, synchronise
from distill.training.environment import training_environment
from distill.training.live_teacher import LiveTeacher
from distill.training.loop import Warn
from distill.training.losses import LossInputs, RegionErrors, Terms, region_errors, total_loss
from distill.training.optim import Ema, build_optimizer
from distill.training.region_validation import RegionValidation
from distill.training.run import TRACKERS, TrainingRun
from distill.training.validation import Validator
from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.parallel import Progress
from pseudo_labels.records import TeacherStamp
from students.base import Student, freeze_parts
from students.config import PIXELS, RegionHeadConfig, StudentConfig
from students.export import check_trainable
from students.model import EXPORTED
from students.preprocess import Preprocess
from students.registry import build_student, check_start, new_student, student_config
from students.session import open_model
from students.storage import WEIGHTS, save_student
from teachers.fitting import evaluate_frozen

KIND = "run"
STUDENT = "student"
# Crops from which mean and deviation of a live teacher's features are taken: it computes them before the first step.
_SCALE_CROPS = 128
# Finer ones cost most of the time; coarser ones than the student has would cost a deeper backbone.
_REGION_LEVELS = (PIXELS, 4, 8, 16, 32)
_SCORE_PARTS = ("backbone", "neck", "heads")


class StudentLearner:
    """See ``learner.Learner``.

    Args:
        trained: the student with its adapter, on the device.
        ema: averages the student; its model is what is validated and kept.
        batches: makes this process's batches.
        validator: evaluates the averaged student.
        config: config of the run.
        accelerator: wraps model and optimiser.
        live: teacher that scores the crops of each batch; None learns the labels.
    """

    def __init__(
        self, trained: TrainedStudent, ema: Ema[Student], batches: BatchMaker, validator: Validator,
        config: TrainConfig, accelerator: Accelerator, live: LiveTeacher | None,
    ):  # fmt: skip
        self.module, self.ema, self._live = trained, ema, live
        self._batches, self._validator, self._config = batches, validator, config
        self._device = accelerator.device
        self.model, self.optimizer = accelerator.prepare(trained, build_optimizer(trained, config.optimizer))

    cut = None
    """Batch normalisation and most losses look at all images of a batch."""

    def make_batch(self, micro_batch: int) -> Batch:
        """The part of a micro-batch that this process computes."""
        return self._batches.make(micro_batch)

    def begin_step(self) -> None:
        """Go into training mode, but for frozen parts, and for batch normalisation if it is frozen."""
        # This puts every module into training mode; the exceptions follow.
        self.model.train()
        evaluate_frozen(self.module)
        if self._config.freeze_batch_norm:
            freeze(self.model)

    def losses(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Compare scores and features with the labels, or with the live teacher's of the same crops."""
        if self._live is not None:
            batch = self._live.relabel(batch)
        score, error, embedding, pooled = self.model(batch.pixels, batch.valid, batch.feature, batch.regions)
        # PLCC, ranking and distances compare images with each other: over the rows of one process they would be another
        # loss, with another gradient.
        inputs = _over_all_processes(batch, score, error, embedding)
        if pooled is not None and batch.regions is not None:
            errors = region_errors(pooled, batch.regions, self._config.losses)
            inputs = replace(inputs, regions=RegionErrors(*map(gather_rows, errors)))
        return total_loss(inputs, self._config.losses)

    def after_step(self) -> None:
        """Average the new weights."""
        self.ema.update(self.module.student)

    def validate(self) -> dict[str, Any]:
        """Evaluate the averaged student; see ``Validator.validate``."""
        return self._validator.validate(
            lambda pixels: self.ema.model(pixels.to(self._device)).score,
            lambda pixels: self.ema.model(pixels.to(self._device)).region_maps,
        )

    def state(self) -> dict[str, Tensors]:
        """Student, average and adapter."""
        # Of the unwrapped modules: the names are those of a saved student, with one process or several.
        files = {"student": self.module.student.state_dict(), "ema": self.ema.model.state_dict()}
        if self.module.adapter is not None:
            files["adapters"] = self.module.adapter.state_dict()
        return files

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over what ``state`` gave."""
        load_tensors(self.module.student, checkpoint.tensors["student"])
        load_tensors(self.ema.model, checkpoint.tensors["ema"])
        if self.module.adapter is not None:
            load_tensors(self.module.adapter, checkpoint.tensors["adapters"])
        # One update in each step: the count needs no entry of its own.
        self.ema.updates = checkpoint.progress.step


def _over_all_processes(batch: Batch, score: Tensor, error: Tensor | None, embedding: Tensor | None) -> LossInputs:
    feature = None if embedding is None or batch.feature is None else teacher_embedding(batch.feature)

    def gathered(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else gather_rows(rows)

    return LossInputs(
        gather_rows(score),
        gather_rows(batch.target),
        weight=gather_rows(batch.weight),
        feature_error=gathered(error),
        feature_weight=gathered(batch.feature_weight),
        student_embedding=gathered(embedding),
        teacher_embedding=gathered(feature),
        levels=gathered(batch.levels),
    )


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has made.

    Attributes:
        folder: folder of the run.
        student_folder: the finished student, for ``students.storage.load_student``.
        step: step whose averaged weights it has.
        validation: metrics of these weights on the validation part, see ``validation.Validator.validate``.
        skipped: number of images left out, by source and reason.
        notes: what a person should know of this run, such as that an incomplete checkpoint was not used.
    """

    folder: Path
    student_folder: Path
    step: int
    validation: dict[str, Any]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()


def train(
    config: TrainConfig,
    sources: Sequence[Source],
    out: Path,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    cache_progress: Progress | None = None,
    warn: Warn | None = None,
) -> TrainResult:
    """Train, or go on with a run that was interrupted; a finished run is returned as it is.

    Start it with ``accelerate launch`` or ``torchrun`` for several processes; all call this alike. On the CPU, the same
    number of processes and threads gives the same bytes, however often the run is killed and started again; where
    ``config.threads`` is None, the number is chosen when the run begins and noted in its folder.

    Args:
        config: the training part of a recipe.
        sources: pools with labels, whose scores and pseudo-labels are learned together.
        out: the run's folder.
        cache: folder for decoded pixels that several runs use, one after the other; None keeps them in ``out`` and
            removes them at the end.
        overwrite: start over.
        progress: called with optimiser steps done and in total.
        cache_progress: called with images decoded and in total, before the first step.
        warn: called with a sentence on the number of threads that was chosen, and on steps that are slow.

    Raises:
        OutputConflictError: ``out`` holds another run, or something else.
        InterruptedRunError: SIGTERM or SIGINT; a checkpoint was written.
        NonFiniteError: the training diverged.
        IntegrityError: a checkpoint or label was altered.
        StorageFullError: the disk is full; the last checkpoint is valid.
        PocketiqaError: settings that do not fit the data or the machine.
    """
    out = Path(out)
    with training_environment(config, out / TRACKERS) as accelerator:
        outcome = _StudentRun(config, sources, out, accelerator, cache).execute(
            overwrite, progress, cache_progress, warn
        )
    content = outcome.content
    return TrainResult(
        out,
        out / STUDENT,
        step=content["step"],
        validation=content["validation"],
        skipped=content["skipped"],
        notes=outcome.notes,
    )


class _StudentRun(TrainingRun):
    """A student learns."""

    kind = KIND

    def __init__(
        self, config: TrainConfig, sources: Sequence[Source], out: Path, accelerator: Accelerator, cache: Path | None
    ):
        self._config = config
        self._student = configured_student(config.student)
        live, feature = config.live, config.losses.feature_name if config.losses.needs_features else None
        # Before super().__init__, which asks what determines the run: the stamp of a live teacher does.
        self._live = None if live is None else LiveTeacher(live, feature)
        self._cached_feature = feature if live is None else None
        super().__init__(config, sources, out, accelerator, cache)
        check_crop(config, self._student)
        check_levels(config, any(source.levels is not None for source in sources))

    def _determining(self) -> dict[str, Any]:
        init = self._config.student.init
        if init is not None and not init.is_file():
            raise PocketiqaError(f"no backbone weights at {init}: check student.init")
        # Refused here, and not after all images were decoded.
        check_start(self._student, init=init, pretrained=self._config.student.pretrained)
        if not self._is_begun():
            check_trainable(self._student)
        return {
            **self._config.determining(),
            "architecture": self._student.as_dict(),
            "init": None if init is None else sha256_file(init),
            "live": None if self._live is None else self._live.stamp.as_dict(),
        }

    def _is_begun(self) -> bool:
        """Whether this run's folder holds a run of the same architecture, which was tried when that began."""
        if not (self._out / outputs.MANIFEST).is_file():
            return False
        return outputs.read_manifest(self._out).spec.get("architecture") == self._student.as_dict()

    def _preprocess(self) -> Preprocess:
        return self._student.preprocess

    def _feature(self) -> str | None:
        return self._cached_feature

    def _teachers(self) -> list[TeacherStamp]:
        return super()._teachers() if self._live is None else [self._live.stamp]

    def _learner(self, collected: Collected, split: Split, caches: Sequence[PixelCache]) -> StudentLearner:
        config, live = self._config, self._live
        examples, held_out = collected.of(split, Part.TRAIN), collected.of(split, Part.VALIDATION)
        order = Sampler(
            examples, [source.weight for source in self._sources], config.seed,
            batch=config.batch_size // config.accumulation_steps,
        )  # fmt: skip
        if live is not None:
            live.to(self._accelerator.device)
        features = self._feature_reader(examples)
        prepare = None if live is None else live.prepare
        shower = self._region_shower(examples)
        batches = BatchMaker(
            examples, caches, order, config.images, features=features, prepare=prepare, regions=shower, **self._fraction
        )
        shape = None if features is None else features.shape
        if live is not None and config.losses.needs_features:
            shape = live.learn_scale(batches.sample_items(_SCALE_CROPS), self._per_process)
        trained, ema = self._models(shape)
        # Images that are learned from by their regions alone have no score; of others the order of levels is known.
        scored = held_out.take((held_out.weight > 0) | (held_out.levels[:, 0] >= 0))
        whole = whole_image_batches(scored, caches, self._per_process)
        regions = None if shower is None else RegionValidation(held_out, caches, shower, self._per_process)
        validator = Validator(scored, self._sources, whole, self._accelerator.device, regions)
        return StudentLearner(
            trained, ema, batches=batches, validator=validator, config=config, accelerator=self._accelerator, live=live
        )

    def _region_shower(self, examples: Examples) -> RegionShower | None:
        if not self._config.losses.needs_regions:
            return None
        rows = list(zip(examples.source.tolist(), examples.row.tolist(), strict=True))
        reader = RegionReader([source.regions for source in self._sources], rows)
        return RegionShower(reader, self._student.region_stride, partial(region_map_size, self._student))

    def _feature_reader(self, examples: Examples) -> FeatureReader | None:
        name = self._cached_feature
        return None if name is None else FeatureReader(self._sources, name, examples, self._config.seed)

    def _models(self, feature_shape: tuple[int, ...] | None) -> tuple[TrainedStudent, Ema[Student]]:
        config = self._config
        settings = config.student
        student = build_student(self._student, init=settings.init, pretrained=settings.pretrained, seed=config.seed)
        # Before the optimiser is built: it takes only parameters that are trained.
        freeze_parts(student, settings.freeze)
        student = student.to(self._accelerator.device)
        # Copied before its norms are synchronised: the average is the plain student.
        ema = Ema(student, config.ema_decay)
        if self._accelerator.num_processes > 1:
            synchronise(student, self._accelerator.device)
        adapter = None
        if config.losses.feature > 0 and feature_shape is not None:
            # Not from wherever torch's generator stands by now: equal runs begin with equal adapters.
            torch.manual_seed(config.seed)
            adapter = FeatureAdapter(self._student.head_width, feature_shape)
        return TrainedStudent(student, adapter, embeds=config.losses.relational > 0), ema

    def _keep(self, learner: StudentLearner, checkpoint: Checkpoint, about: dict[str, Any]) -> dict[str, Any]:
        """Save the averaged weights as the student."""
        student = learner.ema.model
        # The checkpoint that is kept may be an earlier one than what the model holds now.
        load_tensors(student, checkpoint.tensors["ema"])
        about |= scores_of(self._config.student, self._student)
        save_student(student, self._out / STUDENT, about=about)
        return {"student": sha256_file(self._out / STUDENT / WEIGHTS)}


def scores_of(settings: StudentSettings, config: StudentConfig) -> dict[str, Any]:
    """``scores_of``: contract and digest of the exported student whose scores this one still gives; else nothing.

    That is so where training went on from the file, and trained nothing that makes the score.
    """
    if settings.init is None or settings.init.suffix != EXPORTED or not set(_SCORE_PARTS) <= set(settings.freeze):
        return {}
    opened = open_model(settings.init)
    architecture = {name: value for name, value in opened.contract.student.items() if name != "regions"}
    if architecture != replace(config, regions=None).as_dict():
        return {}
    return {"scores_of": {"contract": opened.contract.as_dict(), "digest": opened.digest}}


def configured_student(settings: StudentSettings) -> StudentConfig:
    """The preset's or backbone's configuration with the recipe's changes.

    Raises:
        PocketiqaError: an unknown name, or a value out of range.
    """
    config = student_config(settings.name)
    names = ("levels", "map_stride", "head_width", "mean", "std", "pad_type", "last_stage")
    changes = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if settings.max_side is not None:
        changes["preprocess"] = replace(config.preprocess, max_side=settings.max_side)
    config = replace(config, **changes)
    head = settings.regions
    if head is None:
        return config
    levels = head.levels or tuple(level for level in _REGION_LEVELS if level <= max(config.levels))
    return replace(config, regions=RegionHeadConfig(levels, head.map_stride, head.width))


@lru_cache
def region_map_size(config: StudentConfig, size: Size) -> Size:
    """Rows and columns of the maps that regions are read from, of an image of some height and width."""
    # Asked of the network, without arithmetic: how odd sizes are rounded depends on the backbone.
    with torch.device("meta"):
        student = new_student(config)
        maps = student(torch.zeros(1, *size, 3, dtype=torch.uint8)).region_maps[0]
    return int(maps.shape[1]), int(maps.shape[2])


def check_levels(config: TrainConfig, has_lists: bool) -> None:
    """Refuse an order of levels that no loss looks at, and a loss that has none.

    Args:
        config: settings of the run.
        has_lists: whether a source has ``drops``.

    Raises:
        PocketiqaError: names what to add.
    """
    weight = config.losses.level_ranking
    if has_lists and not weight:
        raise PocketiqaError(
            "there is an order of levels, but no loss looks at it: give losses.level_ranking a weight, such as 1"
        )
    if weight and not has_lists:
        raise PocketiqaError(
            f"losses.level_ranking is {weight}, but no source has an order of levels: add the section 'levels', or a "
            "source with pool and drops"
        )
    if has_lists and config.live is not None:
        raise PocketiqaError(
            "a live teacher would score the copies whose order alone is learned: leave out live, or the sources with "
            "drops"
        )


def check_crop(config: TrainConfig, student: StudentConfig) -> None:
    """Refuse crops that are larger than what the student sees.

    Raises:
        PocketiqaError: names both sizes.
    """
    crop, side = config.images.crop_size, student.preprocess.max_side
    if crop is not None and crop > side:
        raise PocketiqaError(f"crop_size {crop} is above the student's max_side {side}: lower it or raise max_side")
