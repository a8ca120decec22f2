"""Fit a teacher that is solved at once (``teachers.fitting.SolvableTeacher``): one look at each image, no steps.

The folder is that of any fitting, without checkpoints and history. A run that was killed begins anew; what costs time,
the look at the images, is kept by the teacher's own option ``cache``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.examples import Collected, Examples, Source
from distill.data.pixel_cache import PixelCache
from distill.data.split import Part, Split, join_groups
from distill.recipe.training import FitConfig
from distill.training.environment import training_environment
from distill.training.loop import Warn
from distill.training.run import TRACKERS
from distill.training.teacher import FitResult, TeacherRun, built, fit_result, opened
from distill.training.teacher_batches import Reader, whole_item_batches
from distill.training.validation import correlations
from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import remove_leftovers
from pseudo_labels.parallel import Progress
from teachers.fitting import SolvableTeacher
from teachers.registry import TEACHERS

_STEP = 1  # a solved teacher has no steps; its folder says the first


def is_solved(config: FitConfig) -> bool:
    """Whether this config names a teacher that is solved at once."""
    entry = TEACHERS.get(opened(config).teacher)
    return entry is not None and entry.solved


def fit_solved(
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
    """Solve, or return a finished run as it is; arguments and exceptions as of ``teacher.fit_teacher``.

    Raises:
        PocketiqaError: besides, a setting of training in steps was given.
    """
    out, config = Path(out), opened(config)
    _refuse_steps(config)
    teacher = built(config)
    with training_environment(config, out / TRACKERS) as accelerator:
        run = SolvedTeacherRun(config, teacher, sources=sources, out=out, accelerator=accelerator, cache=cache)
        return fit_result(out, run.execute(overwrite, progress, cache_progress, warn))


def _refuse_steps(config: FitConfig) -> None:
    used = {"teacher", "options", "sources", "images", "seed", "device", "threads", "batch_size", "scale", "licence"}
    idle = sorted(config.model_fields_set - used - {"tracker"})
    if config.images.crop_size is not None or config.images.crop_fraction < 1:
        idle.append("images.crop_size or images.crop_fraction")
    if idle:
        raise PocketiqaError(
            f"{config.teacher} is solved at once, not trained in steps: leave out {', '.join(idle)}, which would do "
            "nothing"
        )


class SolvedTeacherRun(TeacherRun):
    """A teacher is solved."""

    def _learner(self, collected: Collected, split: Split, caches: Sequence[PixelCache]) -> Any:
        if not isinstance(self._teacher, SolvableTeacher):
            raise PocketiqaError(f"{self._config.teacher} has no closed form: see teachers.fitting.SolvableTeacher")
        self._teacher.to(self._accelerator.device)
        used = np.array([split.parts[ref.id] != Part.TEST for ref in collected.refs])
        examples = collected.examples.take(used)
        ids = [ref.id for ref, kept in zip(collected.refs, used, strict=True) if kept]
        groups = join_groups(collected.refs)
        reader = Reader(self._teacher, examples, self._sources, caches)
        batches = whole_item_batches(examples, caches, self._per_process, reader)
        return _Task(examples, ids, groups, batches, [source.weight for source in self._sources])

    def _train(
        self, make_learner: Callable[[], Any], skipped: dict[str, int], progress: Progress | None, warn: Warn | None
    ) -> tuple[str, ...]:
        # One process: the system of equations is a single one. The others wait for it.
        if not self._main:
            return ()
        task: _Task = make_learner()
        remove_leftovers(self._out)
        validation = self._solve(task, progress)
        about = self._about(_STEP, validation)
        outputs.finish(
            self._out, {"step": _STEP, "validation": validation, "skipped": skipped, **self._write_teacher(about)}
        )
        self._drop_pixels()
        return ()

    def _solve(self, task: "_Task", progress: Progress | None) -> dict[str, Any]:
        """Solve; returns how well scores of scenes that were held out agree, in the form of ``Validator.validate``."""
        teacher: Any = self._teacher
        summaries = task.summaries(teacher, progress)
        images = task.images()
        unseen = teacher.solve(
            summaries[images.first], images.target, images.weight, images.groups, self._config.seed
        )  # fmt: skip
        predictions, examples = unseen[images.number], task.examples
        metrics = {
            source.name: correlations(predictions[mine], examples.target[mine])
            for at, source in enumerate(self._sources)
            if (mine := examples.source == at).any()
        }
        chosen = [metrics[source.name]["srcc"] or 0.0 for source in self._sources if source.name in metrics]
        return {"score": float(np.mean(chosen)), "sources": metrics}


@dataclass(frozen=True)
class _Images:
    """Each image once, whatever number of sources it is in.

    Attributes:
        first: an example of each image, [N].
        number: the image of each example, [examples].
        target: mean rating of each image, [N].
        weight: its weight: confidences times the weights of the sources, summed, [N].
        groups: its scene.
    """

    first: np.ndarray
    number: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    groups: list[str]


@dataclass(frozen=True)
class _Task:
    """Examples that a teacher is solved on, and how to read them."""

    examples: Examples
    ids: list[str]
    groups: dict[str, str]
    batches: Sequence[Any]
    source_weights: list[float]

    def summaries(self, teacher: SolvableTeacher, progress: Progress | None) -> np.ndarray:
        """Summaries [examples, D]; of an image that comes again, those of its first example are enough."""
        _, first = np.unique(self.ids, return_index=True)
        wanted = set(first.tolist())
        parts: dict[int, np.ndarray] = {}
        for indices, load in self.batches:
            if wanted.isdisjoint(indices.tolist()):
                continue
            parts.update(zip(indices.tolist(), teacher.summarise(load()), strict=True))
            if progress is not None:
                progress(len(wanted & parts.keys()), len(wanted))
        size = len(next(iter(parts.values())))
        values = np.zeros((len(self.ids), size), np.float32)
        for index, value in parts.items():
            values[index] = value
        return values

    def images(self) -> _Images:
        """Each image once, with its weight over all sources."""
        _, first, number = np.unique(self.ids, return_index=True, return_inverse=True)
        each = self.examples.weight * np.asarray(self.source_weights)[self.examples.source]
        weight = np.bincount(number, each)
        target = np.bincount(number, each * self.examples.target) / np.maximum(weight, np.finfo(np.float64).tiny)
        return _Images(first, number, target, weight, [self.groups[self.ids[at]] for at in first])
