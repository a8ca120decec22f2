"""Distil a student: labelled pools in, a run folder with checkpoints, history and the finished student out.

The run folder holds ``manifest.json`` (what determines the run), ``split.json``, ``checkpoints/``, ``history.jsonl``
(the same however often the run was interrupted), ``timings.jsonl`` and, at the end, ``student/``.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from distill import sync_norm
from distill.adapters import FeatureAdapter, TrainedStudent
from distill.batches import BatchMaker, Order
from distill.cached_features import FeatureReader
from distill.checkpoint import Checkpoints, load_tensors
from distill.collectives import sum_of_ints
from distill.data import Collected, LabelTable, Source, collect
from distill.ema import Ema
from distill.environment import accelerator_of, random_numbers_of, threads_of
from distill.history import HISTORY, read_history
from distill.pixels import PixelCache, build_pixels
from distill.schedule import build_optimizer
from distill.split import SPLIT, Part, Split, join_groups, split_groups
from distill.train_config import StudentSettings, TrainConfig
from distill.trainer import Parts, Trainer
from distill.validation import Validator
from pseudo_labels import outputs
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, read_json, sha256_file, write_atomic
from students.config import StudentConfig
from students.model import PocketStudent
from students.registry import build_student, student_config
from students.storage import WEIGHTS, save_student

KIND = "run"
STUDENT, CHECKPOINTS, PIXELS, TRACKERS = "student", "checkpoints", "pixels", "trackers"

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has made.

    Attributes:
        folder: of the run.
        student_folder: the finished student, for ``students.storage.load_student``.
        step: whose averaged weights it has.
        validation: metrics of these weights on the validation part, see ``validation.Validator.validate``.
        skipped: number of images left out, by source and reason.
        notes: what a person should know of this run, such as a checkpoint that was passed over.
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
    progress: ProgressCallback | None = None,
    cache_progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train, or go on with a run that was interrupted; a finished run is returned as it is.

    Start it with ``accelerate launch`` or ``torchrun`` for several processes; all call this alike. On the CPU, the same
    number of processes and threads gives the same bytes, however often the run is killed and started again.

    Args:
        config: the training part of a recipe.
        sources: pools with labels, whose scores and pseudo-labels are learned together.
        out: the run's folder.
        cache: folder for decoded pixels that several runs share, one after the other; None keeps them in ``out`` and
            removes them at the end.
        overwrite: start over.
        progress: called with optimiser steps done and in total.
        cache_progress: called with images decoded and in total, before the first step.

    Raises:
        OutputConflictError: ``out`` holds another run, or something else.
        InterruptedRunError: SIGTERM or SIGINT; a checkpoint was written.
        NonFiniteError: the training diverged.
        TamperedError: a checkpoint or label was altered.
        StorageFullError: the disk is full; the last checkpoint is valid.
        PocketiqaError: settings that do not fit the data or the machine.
    """
    out = Path(out)
    with (
        accelerator_of(config, out / TRACKERS) as accelerator,
        threads_of(config, accelerator),
        random_numbers_of(accelerator),
    ):
        run = _Run(config, sources, out, cache, accelerator)
        return run.execute(overwrite, progress, cache_progress)


class _Run:
    """One call of ``train`` in one process."""

    def __init__(
        self, config: TrainConfig, sources: Sequence[Source], out: Path, cache: Path | None, accelerator: Accelerator
    ):
        self._config, self._sources, self._out = config, sources, out
        self._accelerator = accelerator
        self._cache = cache
        self._main = accelerator.is_main_process
        self._student = _student_config(config.student)
        self._spec = self._determining()
        self._per_process = self._share_of_batch()

    def _determining(self) -> dict[str, Any]:
        init = self._config.student.init
        if init is not None and not init.is_file():
            raise PocketiqaError(f"no backbone weights at {init}: check student.init")
        return {
            **self._config.determining(),
            "architecture": self._student.as_dict(),
            "init": None if init is None else sha256_file(init),
            "sources": [source.describe() for source in self._sources],
        }

    def _share_of_batch(self) -> int:
        config, world = self._config, self._accelerator.num_processes
        parts = world * config.accumulation_steps
        if config.batch_size % parts:
            raise PocketiqaError(
                f"batch_size {config.batch_size} cannot be shared equally by {world} processes times "
                f"{config.accumulation_steps} accumulation_steps: choose a multiple of {parts}"
            )
        crop, side = config.images.crop_size, self._student.preprocess.max_side
        if crop is not None and crop > side:
            raise PocketiqaError(f"crop_size {crop} is above the student's max_side {side}: lower it or raise max_side")
        return config.batch_size // parts

    def execute(
        self, overwrite: bool, progress: ProgressCallback | None, cache_progress: ProgressCallback | None
    ) -> TrainResult:
        """Claim the folder, prepare, train, finish."""
        claim = self._claim(overwrite)
        if claim == outputs.Claim.DONE:
            if self._main:
                self._drop_pixels()  # killed right after it was done
            return self._result()
        caches = self._pixels(cache_progress if self._main else None, retry_failed=claim == outputs.Claim.NEW)
        feature = self._config.losses.feature_name if self._config.losses.needs_features else None
        collected = collect(self._sources, caches, feature)
        split = self._split(collected)
        checkpoints = Checkpoints(self._out / CHECKPOINTS, digest_of(self._spec))
        found, notes = checkpoints.latest()
        self._accelerator.wait_for_everyone()
        if self._main:
            checkpoints.clean(found.progress.step if found else 0)
            for leftover in self._out.glob(".*.tmp"):  # of a writer that was killed
                leftover.unlink()
        parts = self._parts(collected, split, caches, checkpoints)
        trainer = Trainer(parts, self._config, found)
        self._start_trackers()
        trainer.run(progress if self._main else None)
        if self._main:
            best = self._config.keep == "best" and trainer.progress.best_step
            self._finish(best or self._config.steps, parts, collected.skipped)
        self._accelerator.wait_for_everyone()
        return self._result(tuple(notes))

    def _claim(self, overwrite: bool) -> outputs.Claim:
        """The main process claims; every process hears how it went, so that none waits in vain."""
        claims, error, number = list(outputs.Claim), None, 0
        if self._main:
            try:
                number = 1 + claims.index(outputs.claim(self._out, KIND, self._spec, overwrite=overwrite))
            except PocketiqaError as refused:
                error = refused
        number = sum_of_ints(number, self._accelerator.device)
        if number == 0:
            raise error or PocketiqaError(f"the main process could not take {self._out}: see its message")
        return claims[number - 1]

    def _pixels(self, progress: ProgressCallback | None, *, retry_failed: bool) -> list[PixelCache]:
        """One cache for each pool; sources of one pool share it."""
        caches: dict[str, PixelCache] = {}
        for source in self._sources:
            if source.pool.digest not in caches:
                caches[source.pool.digest] = build_pixels(
                    source.pool,
                    self._student.preprocess,
                    self._cache or self._out / PIXELS,
                    rank=self._accelerator.process_index,
                    world=self._accelerator.num_processes,
                    barrier=self._accelerator.wait_for_everyone,
                    retry_failed=retry_failed,
                    progress=progress,
                )
        return [caches[source.pool.digest] for source in self._sources]

    def _split(self, collected: Collected) -> Split:
        """Draw the split, or check that it is still the one that the run began with."""
        split = split_groups(join_groups(collected.refs), self._config.split)
        path = self._out / SPLIT
        if path.exists() and read_json(path, what="split") != split.as_dict():
            raise OutputConflictError(
                f"the usable images are no longer those that {self._out} began with (skipped now: "
                f"{collected.skipped or 'none'}): restore the images, or add --overwrite to start over"
            )
        if self._main and not path.exists():
            write_atomic(path, canonical_json(split.as_dict()))
        return split

    def _parts(
        self, collected: Collected, split: Split, caches: Sequence[PixelCache], checkpoints: Checkpoints
    ) -> Parts:
        config, accelerator = self._config, self._accelerator
        examples = collected.of(split, Part.TRAIN)
        features = None
        if config.losses.needs_features:
            features = FeatureReader(self._sources, str(config.losses.feature_name), examples, config.seed)
        trained, ema = self._models(None if features is None else features.shape)
        model, optimizer = self._prepared(trained)
        batches = BatchMaker(
            examples, caches, Order(examples, [source.weight for source in self._sources], config.seed), config.images,
            per_process=self._per_process, rank=accelerator.process_index, world=accelerator.num_processes,
            seed=config.seed, features=features,
        )  # fmt: skip
        validator = Validator(
            collected.of(split, Part.VALIDATION), self._sources, caches,
            batch_size=self._per_process, device=accelerator.device,
        )  # fmt: skip
        return Parts(accelerator, model, trained, optimizer, ema, batches, validator, checkpoints, self._out)

    def _models(self, feature_shape: tuple[int, ...] | None) -> tuple[TrainedStudent, Ema[PocketStudent]]:
        config = self._config
        settings = config.student
        student = build_student(self._student, init=settings.init, pretrained=settings.pretrained, seed=config.seed)
        student = student.to(self._accelerator.device)
        # Copied before its norms are synchronised: the average is the plain student.
        ema = Ema(student, config.ema_decay)
        if self._accelerator.num_processes > 1:
            sync_norm.synchronise(student, self._accelerator.device)
        adapter = None
        if config.losses.feature > 0 and feature_shape is not None:
            torch.manual_seed(config.seed)
            adapter = FeatureAdapter(self._student.head_width, feature_shape)
        return TrainedStudent(student, adapter, embeds=config.losses.relational > 0), ema

    def _prepared(self, trained: TrainedStudent) -> tuple[Any, Any]:
        settings = self._config.optimizer
        optimizer = build_optimizer(
            trained, peak=settings.learning_rate, weight_decay=settings.weight_decay, betas=settings.betas
        )
        return self._accelerator.prepare(trained, optimizer)

    def _start_trackers(self) -> None:
        if self._config.tracker != "none":
            (self._out / TRACKERS).mkdir(exist_ok=True)
            self._accelerator.init_trackers("pocketiqa")

    def _finish(self, step: int, parts: Parts, skipped: dict[str, int]) -> None:
        """Save the averaged weights of ``step`` as the student and mark the run as complete."""
        student = parts.ema.model
        load_tensors(student, parts.checkpoints.load(step).tensors["ema"])
        records = (r for r in read_history(self._out / HISTORY) if r["kind"] == "validation" and r["step"] == step)
        validation = next({"score": record["score"], "sources": record["sources"]} for record in records)
        save_student(student, self._out / STUDENT, about=self._about(step, validation))
        digest = sha256_file(self._out / STUDENT / WEIGHTS)
        outputs.finish(self._out, {"step": step, "validation": validation, "skipped": skipped, "student": digest})
        self._drop_pixels()

    def _drop_pixels(self) -> None:
        if self._cache is None:
            shutil.rmtree(self._out / PIXELS, ignore_errors=True)

    def _result(self, notes: tuple[str, ...] = ()) -> TrainResult:
        content = outputs.read_manifest(self._out, KIND).content
        return TrainResult(
            self._out, self._out / STUDENT, content["step"], content["validation"], content["skipped"], notes
        )

    def _about(self, step: int, validation: dict[str, Any]) -> dict[str, Any]:
        """What is kept with the student: teachers, data and how it did."""
        stores = [source.labels for source in self._sources if not isinstance(source.labels, LabelTable)]
        return {
            "teachers": [store.spec.stamp.as_dict() for store in stores],
            "data": [source.describe() for source in self._sources],
            "run": digest_of(self._spec),
            "step": step,
            "validation": validation,
        }


def _student_config(settings: StudentSettings) -> StudentConfig:
    """The preset's or backbone's configuration with the recipe's changes."""
    config = student_config(settings.name)
    names = ("levels", "grid", "head_width", "mean", "std", "pad_type")
    changes = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if settings.max_side is not None:
        changes["preprocess"] = replace(config.preprocess, max_side=settings.max_side)
    return replace(config, **changes)
