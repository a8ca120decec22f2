"""Fit a teacher to opinion scores: rated pools in, a folder with the fitted teacher out.

Beside what every run holds (``training_run``), the folder has ``teacher/`` at the end, which can be named wherever a
teacher is: it holds the options that it was built with, and what was trained, without the frozen base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from distill.data import Collected, Source
from distill.pixels import PixelCache
from distill.split import Part, Split, read_split
from distill.training.batches import Order
from distill.training.checkpoint import Checkpoint
from distill.training.environment import training_environment
from distill.training.fit_config import FitConfig
from distill.training.teacher_batches import Reader, TeacherBatchMaker, whole_item_batches
from distill.training.teacher_learner import TeacherLearner
from distill.training.trainer import Warn
from distill.training.training_run import TRACKERS, ProgressCallback, TrainingRun
from distill.training.validation import Validator
from pseudo_labels.errors import PocketiqaError
from students.preprocess import Preprocess
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder, read_seen, write_fitted_folder
from teachers.fitting import FittableTeacher, check_fittable
from teachers.registry import TEACHERS, build_teacher, file_options

KIND = "fit"
TEACHER = "teacher"


@dataclass(frozen=True)
class FitResult:
    """What a finished fitting has made.

    Attributes:
        folder: of the run.
        teacher: folder of the fitted teacher, for ``registry.build_teacher``.
        step: whose weights it has.
        validation: metrics of these weights on the validation part, see ``validation.Validator.validate``.
        skipped: number of images left out, by source and reason.
        notes: what a person should know of this run.
    """

    folder: Path
    teacher: Path
    step: int
    validation: dict[str, Any]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()


def fit_teacher(
    config: FitConfig,
    sources: Sequence[Source],
    out: Path,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    cache_progress: ProgressCallback | None = None,
    warn: Warn | None = None,
) -> FitResult:
    """Fit, or go on with a run that was interrupted; a finished run is returned as it is.

    Arguments, processes and exceptions are those of ``train.train``; ``warn`` is told in words when memory ran out and
    the run goes on with smaller parts of its batches (``gradient.Gradient``). Besides:

    Raises:
        PocketiqaError: the teacher cannot be built or fitted, or compares with references that are not there.
    """
    out, config = Path(out), _opened(config)
    teacher = _built(config)
    with training_environment(config, out / TRACKERS) as accelerator:
        run = _TeacherRun(config, teacher, sources, out, accelerator, cache)
        outcome = run.execute(overwrite, progress, cache_progress, warn)
    content = outcome.content
    return FitResult(
        out, out / TEACHER, content["step"], content["validation"], content["skipped"], outcome.notes
    )  # fmt: skip


def _opened(config: FitConfig) -> FitConfig:
    """A fitted teacher's folder as the builder, options and head that it stands for."""
    if not is_fitted_folder(config.teacher):
        return config
    name, options = read_fitted_folder(config.teacher)
    return config.model_copy(update={"teacher": name, "options": {**options, **config.options}})


def _built(config: FitConfig) -> FittableTeacher:
    if "views" in config.options:
        raise PocketiqaError(
            "views are for labelling, fitting shows a teacher one view at a time: drop fit.options.views, and give it "
            "to 'label'"
        )
    # A user's builder may draw first weights without a seed of its own; a resumed run must find the same ones.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return check_fittable(build_teacher(config.teacher, **config.options), config.teacher)


def _settings(config: FitConfig) -> dict[str, Any]:
    """The teacher's options without those that name files or change no result by design."""
    entry = TEACHERS.get(config.teacher)
    left_out = file_options(config.teacher) | set(entry.speed if entry else ())
    return {name: value for name, value in config.options.items() if name not in left_out}


def _placed(config: FitConfig) -> dict[str, Any]:
    """The teacher's options with the files and folders that they name as absolute paths, to be found from anywhere.

    What is no file or folder here, such as the name of a repository, is kept.
    """
    named = {name: value for name, value in config.options.items() if name in file_options(config.teacher)}
    places = {name: Path(value).expanduser() for name, value in named.items() if isinstance(value, str | Path)}
    return config.options | {name: str(place.absolute()) for name, place in places.items() if place.exists()}


class _TeacherRun(TrainingRun):
    """A teacher learns."""

    kind = KIND

    def __init__(
        self, config: FitConfig, teacher: FittableTeacher, sources: Sequence[Source], out: Path,
        accelerator: Accelerator, cache: Path | None,
    ):  # fmt: skip
        self._config, self._teacher = config, teacher
        super().__init__(config, sources, out, accelerator, cache)

    def _determining(self) -> dict[str, Any]:
        # Of the files, before anything is fitted, the stamp says which base and which first weights they hold; options
        # that act on the fitting alone are in no stamp.
        options, stamp = _settings(self._config), self._teacher.stamp
        return {**self._config.determining(), "options": options, "begins_as": stamp.as_dict()}

    def _preprocess(self) -> Preprocess:
        return Preprocess(max_side=self._config.images.max_side)

    def _learner(self, collected: Collected, split: Split, caches: Sequence[PixelCache]) -> TeacherLearner:
        config, teacher = self._config, self._teacher
        examples, held_out = collected.of(split, Part.TRAIN), collected.of(split, Part.VALIDATION)
        teacher.to(self._accelerator.device)
        order = Order(examples, [source.weight for source in self._sources], config.seed)
        reader = Reader(teacher, examples, self._sources, caches)
        batches = TeacherBatchMaker(examples, caches, order, config.images, reader, **self._share)
        whole = whole_item_batches(
            held_out, caches, self._per_process, Reader(teacher, held_out, self._sources, caches)
        )  # fmt: skip
        validator = Validator(held_out, self._sources, whole, self._accelerator.device)
        return TeacherLearner(teacher, batches, validator, config, self._accelerator)

    def _keep(self, learner: TeacherLearner, found: Checkpoint, about: dict[str, Any]) -> dict[str, Any]:
        """Write the fitted teacher's folder."""
        learner.take_result(found)
        config, facts = self._config, [entry["about"] for entry in about["data"]]
        scales = [f"opinions of {entry['name']} ({entry['about'].get('scale', '0 to 1')})" for entry in about["data"]]
        licences = [fact["licence"] for fact in facts if "licence" in fact]
        digest = write_fitted_folder(
            self._out / TEACHER,
            self._teacher,
            name=config.teacher,
            options=_placed(config),
            scale=config.scale or "; ".join([*scales, "mapped to 0 to 1, 1 best"]),
            licence=config.licence or "; ".join([self._teacher.stamp.licence, *licences]),
            seen=self._seen(),
            about=about,
        )
        return {"teacher": digest}

    def _seen(self) -> set[str]:
        """Images of this fitting, and of the one that it goes on from."""
        parts = read_split(self._out).parts
        head = Path(str(self._config.options.get("head", ""))).parent
        before = read_seen(str(head)) if is_fitted_folder(str(head)) else ()
        return {id for id, part in parts.items() if part != Part.TEST} | set(before)
