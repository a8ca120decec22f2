"""Fit a teacher to ratings: rated pools in, a folder with the fitted teacher out.

Beside what every run holds (``run``), the folder has ``teacher/`` at the end, which can be named wherever a
teacher is: it holds the options that it was built with, and what was trained, without the frozen base.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.data.examples import Collected, Source
from distill.data.pixel_cache import PixelCache
from distill.data.split import Part, Split, read_split
from distill.recipe.training import FitConfig
from distill.training.batches import Sampler
from distill.training.checkpoint import Checkpoint, Tensors
from distill.training.distributed import gather_rows
from distill.training.environment import training_environment
from distill.training.learner import Cut, MovableBatch
from distill.training.loop import Warn
from distill.training.losses import LossInputs, score_loss_of
from distill.training.optim import Average, build_optimizer
from distill.training.run import TRACKERS, Outcome, TrainingRun
from distill.training.teacher_batches import Reader, TeacherBatch, TeacherBatchMaker, whole_item_batches
from distill.training.validation import Validator
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.parallel import Progress
from students.preprocess import Preprocess
from teachers.fitted_folder import RECORD, is_fitted_folder, read_fitted_folder, read_seen, write_fitted_folder
from teachers.fitting import FittableTeacher, PlainFit, check_fittable, head_file
from teachers.launch import is_out_of_memory, release_memory
from teachers.registry import TEACHERS, build_teacher, file_options

KIND = "fit"
TEACHER = "teacher"


class TeacherLearner:
    """See ``learner.Learner``. A checkpoint holds what is trained and nothing of the frozen base.

    Args:
        teacher: on the device.
        batches: makes this process's batches, such as a ``TeacherBatchMaker``.
        validator: evaluates the teacher as it is used, in full precision: a ``Validator``.
        config: config of the fitting.
        accelerator: wraps model and optimiser.
        module: what is trained around the teacher's model; None means its ``fitting_module``.
    """

    def __init__(
        self, teacher: FittableTeacher, batches: Any, validator: Any, config: FitConfig,
        accelerator: Accelerator, *, module: nn.Module | None = None,
    ):  # fmt: skip
        self._teacher, self._batches, self._validator, self._config = teacher, batches, validator, config
        self._processes = accelerator.num_processes
        # Once: each call builds another module around the same parameters, and this one's buffers are in checkpoints.
        self.module = (teacher.fitting_module() if module is None else module).to(accelerator.device)
        # The parameters of the model and not of the module around it: multipliers of the learning rate go by names that
        # the user knows.
        self.model, self.optimizer = accelerator.prepare(self.module, build_optimizer(teacher.model, config.optimizer))
        self._average = None
        if config.ema_decay > 0:
            # Clones, as ``trained_state`` gives the model's own tensors; the first update replaces their values.
            first = {name: value.detach().clone() for name, value in teacher.trained_state().items()}
            self._average = Average(first, config.ema_decay)

    def make_batch(self, micro_batch: int) -> TeacherBatch:
        """The part of a micro-batch that this process computes."""
        return self._batches.make(micro_batch)

    @property
    def cut(self) -> Cut | None:
        """How a batch is cut, if the loss is of the score alone and of one image at a time; see ``learner.Learner``."""
        losses, module = self._config.losses, self.module
        compared = losses.plcc > 0 or losses.ranking > 0
        # Exactly this class: another module may add terms that compare images. Batch norms that are frozen are in
        # evaluation mode and compare none.
        divisible = not compared and type(module) is PlainFit and not any(map(_looks_at_the_batch, module.modules()))
        return _cut if divisible else None

    def begin_step(self) -> None:
        """Go into training mode; what is frozen stays in evaluation mode by the teacher's own doing."""
        self.model.train()

    def losses(self, batch: TeacherBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compare scores with ratings, and add the teacher's own terms."""
        score, extra = self.model(batch.inputs, batch.target, batch.weight)
        rows = LossInputs(gather_rows(score), gather_rows(batch.target), gather_rows(batch.weight))
        total, terms = score_loss_of(rows, self._config.losses)
        # The teacher computes its own terms from the rows of one process; their mean is that of all rows.
        means = {name: gather_rows(term.reshape(1)).mean() for name, term in extra.items()}
        for term in means.values():
            total = total + term
        return total, {**terms, **means}

    def after_step(self) -> None:
        """Average the new weights."""
        if self._processes > 1:
            self._share_buffers()
        if self._average is not None:
            self._average.take(self._teacher.trained_state())

    def _share_buffers(self) -> None:
        """Give all processes the buffers of the main one, which are those that a checkpoint keeps."""
        parameters = dict(self._teacher.model.named_parameters())
        trained = (value for name, value in self._teacher.trained_state().items() if name not in parameters)
        # Each process has other images, so other running statistics. In place: these are the model's own tensors.
        for value in (*trained, *self._beside().values()):
            distributed.broadcast(value, src=0)

    def validate(self) -> dict[str, Any]:
        """Score whole images with the averaged weights; see ``Validator.validate``."""
        self.model.eval()
        with self._averaged():
            return self._validator.validate(self._scores)

    def _scores(self, items: list[Any]) -> Tensor:
        """Scores of items, in halves where memory does not suffice: no score depends on the others."""
        try:
            return self._teacher(items).score
        except (RuntimeError, MemoryError) as error:
            if len(items) == 1 or not is_out_of_memory(error):
                raise
        # Outside of the except block: until its end, the error holds on to the tensors of the call that failed.
        release_memory()
        middle = len(items) // 2
        return torch.cat([self._scores(items[:middle]), self._scores(items[middle:])])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Use the average as the weights for a while."""
        if self._average is None:
            yield
            return
        # In place, and back afterwards: the optimiser holds these very tensors.
        present = self._teacher.trained_state()
        saved = {name: value.detach().clone() for name, value in present.items()}
        _copy(self._average.tensors, present)
        try:
            yield
        finally:
            _copy(saved, present)

    def state(self) -> dict[str, Tensors]:
        """Trained part, average, and what fitting keeps beside the model."""
        files = {"teacher": dict(self._teacher.trained_state())}
        if self._average is not None:
            files["average"] = dict(self._average.tensors)
        if self._beside():
            files["beside"] = self._beside()
        return files

    def _beside(self) -> Tensors:
        # By identity: the module around the model shares its buffers under other names.
        own = {id(value) for value in self._teacher.model.buffers()}
        return {name: value for name, value in self.module.named_buffers() if id(value) not in own}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over what ``state`` gave."""
        for name, tensors in self.state().items():
            _copy(checkpoint.tensors.get(name, {}), tensors)
        if self._average is not None:
            self._average.updates = checkpoint.progress.step

    def take_result(self, checkpoint: Checkpoint) -> None:
        """Give the teacher the weights of a checkpoint that are to be kept."""
        _copy(checkpoint.tensors["teacher" if self._average is None else "average"], self._teacher.trained_state())


def _cut(batch: TeacherBatch, most: int) -> list[tuple[float, MovableBatch]]:
    return [(len(part.target) / len(batch.target), part) for part in batch.cut(most)]


def _looks_at_the_batch(module: nn.Module) -> bool:
    return module.training and isinstance(module, _BatchNorm)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    # The same names, none more or less: a tensor that is missing would keep the value it has, unnoticed.
    if {name: value.shape for name, value in source.items()} != {name: value.shape for name, value in target.items()}:
        raise IntegrityError("the checkpoint does not fit the teacher it was made for: fit again with --overwrite")
    for name, value in target.items():
        value.copy_(source[name])


@dataclass(frozen=True)
class FitResult:
    """What a finished fitting has made.

    Attributes:
        folder: folder of the run.
        teacher: folder of the fitted teacher, for ``registry.build_teacher``.
        step: step whose weights it has.
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
    progress: Progress | None = None,
    cache_progress: Progress | None = None,
    warn: Warn | None = None,
) -> FitResult:
    """Fit, or resume a run that was interrupted; a finished run is returned as it is.

    Arguments, processes and exceptions are those of ``student.train``; ``warn`` is also called with a sentence when
    memory ran out and the run continues with smaller parts of its batches (``loop.Gradient``). Besides:

    Raises:
        PocketiqaError: the teacher cannot be built or fitted, or compares with references that are not there.
    """
    out, config = Path(out), opened(config)
    teacher = built(config)
    with training_environment(config, out / TRACKERS) as accelerator:
        run = TeacherRun(config, teacher, sources=sources, out=out, accelerator=accelerator, cache=cache)
        return fit_result(out, run.execute(overwrite, progress, cache_progress, warn))


def fit_result(out: Path, outcome: Outcome) -> FitResult:
    """What a finished run in this folder has made."""
    content = outcome.content
    return FitResult(
        out,
        out / TEACHER,
        step=content["step"],
        validation=content["validation"],
        skipped=content["skipped"],
        notes=outcome.notes,
    )


def opened(config: FitConfig) -> FitConfig:
    """A fitted teacher's folder as the builder, options and head that it stands for."""
    if not is_fitted_folder(config.teacher):
        return config
    name, options = read_fitted_folder(config.teacher)
    return config.model_copy(update={"teacher": name, "options": {**options, **config.options}})


def built(config: FitConfig) -> FittableTeacher:
    """The teacher that a config names, with first weights that follow from its seed.

    Raises:
        PocketiqaError: it cannot be built or fitted.
    """
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
    """The teacher's options with absolute paths for the files and folders that they name, valid from any folder.

    What is no file or folder here, such as the name of a repository, is kept.
    """
    named = {name: value for name, value in config.options.items() if name in file_options(config.teacher)}
    paths = {name: Path(value).expanduser() for name, value in named.items() if isinstance(value, str | Path)}
    return config.options | {name: str(path.absolute()) for name, path in paths.items() if path.exists()}


class TeacherRun(TrainingRun):
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
        order = Sampler(examples, [source.weight for source in self._sources], config.seed)
        reader = Reader(teacher, examples, self._sources, caches)
        batches = TeacherBatchMaker(examples, caches, order, config.images, reader, **self._fraction)
        whole = whole_item_batches(
            held_out, caches, self._per_process, Reader(teacher, held_out, self._sources, caches)
        )  # fmt: skip
        validator = Validator(held_out, self._sources, whole, self._accelerator.device)
        return TeacherLearner(teacher, batches, validator, config, self._accelerator)

    def _keep(self, learner: TeacherLearner, checkpoint: Checkpoint, about: dict[str, Any]) -> dict[str, Any]:
        """Write the fitted teacher's folder."""
        learner.take_result(checkpoint)
        return self._write_teacher(about)

    def _write_teacher(self, about: dict[str, Any]) -> dict[str, Any]:
        config, facts = self._config, [entry["about"] for entry in about["data"]]
        scales = [f"ratings of {entry['name']} ({entry['about'].get('scale', '0 to 1')})" for entry in about["data"]]
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
        """Images of this fitting, and of the earlier one that it continues."""
        parts = read_split(self._out).parts
        head = head_file(self._config.options.get("head"))
        # A file on its own does not say what it was fitted to, nor does a head that names no file.
        before = read_seen(str(head.parent)) if head is not None and (head.parent / RECORD).is_file() else ()
        # Images of the validation part as well: they chose the step that is kept.
        return {id for id, part in parts.items() if part != Part.TEST} | set(before)
