"""One call of a training command in one process, whatever learns: claim, prepare, train, finish.

The run's folder holds ``manifest.json`` (what determines the run), ``split.json``, ``checkpoints/``, ``history.jsonl``
(the same however often the run was interrupted), ``timings.jsonl`` and, at the end, what was trained. Where memory ran
out, the history has a record; killed before its next checkpoint, such a run may have enough memory when it resumes, and
then is the same up to rounding only.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from distill.data.examples import Collected, LabelTable, Source, collect, teachers_of
from distill.data.pixel_cache import PixelCache, build_pixels
from distill.data.split import SPLIT, Split, join_groups, split_groups
from distill.recipe.training import LoopSettings
from distill.training.checkpoint import Checkpoint, Checkpoints
from distill.training.distributed import sum_of_ints
from distill.training.environment import choose_threads
from distill.training.history import HISTORY, read_history
from distill.training.learner import Learner
from distill.training.loop import RunParts, Trainer, Warn
from pseudo_labels import outputs
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import checksummed_json, digest_of, read_record, remove_leftovers, write_atomic
from pseudo_labels.parallel import Progress
from pseudo_labels.records import TeacherStamp
from students.preprocess import Preprocess

CHECKPOINTS, PIXELS, TRACKERS = "checkpoints", "pixels", "trackers"
THREADS = "threads"
"""Note in the manifest of a run that chose its number of CPU threads itself; a resumed run takes the same."""


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        content: content of its manifest.
        notes: sentences that a person should know, such as that an incomplete checkpoint was not used.
    """

    content: dict[str, Any]
    notes: tuple[str, ...] = ()


class TrainingRun(ABC):
    """One call in one process; a subclass defines what learns.

    Args:
        config: settings of the loop.
        sources: pools with labels to learn from.
        out: folder of the run.
        accelerator: accelerator of this run.
        cache: folder for decoded pixels that several runs use; None keeps them in ``out`` and removes them at the
            end.
    """

    kind: str
    """Kind in the manifest."""

    def __init__(
        self, config: LoopSettings, sources: Sequence[Source], out: Path, accelerator: Accelerator, cache: Path | None
    ):
        self._loop, self._sources, self._out = config, sources, out
        self._accelerator, self._cache = accelerator, cache
        self._main = accelerator.is_main_process
        # Before the folder is touched: missing first weights are refused while an earlier run is still there.
        self._spec = {**self._determining(), "sources": [source.describe() for source in sources]}
        self._per_process = self._fraction_of_batch()

    @abstractmethod
    def _determining(self) -> dict[str, Any]:
        """What determines the result beside the sources, as JSON values."""

    @abstractmethod
    def _preprocess(self) -> Preprocess:
        """The resize of the pixels that are cached."""

    @abstractmethod
    def _learner(self, collected: Collected, split: Split, caches: Sequence[PixelCache]) -> Learner:
        """What is trained, with its data."""

    @abstractmethod
    def _keep(self, learner: Any, checkpoint: Checkpoint, about: dict[str, Any]) -> dict[str, Any]:
        """Write what a checkpoint holds as the result; returns what the manifest should say of it."""

    def _feature(self) -> str | None:
        """Name of the cached teacher feature that takes part."""
        return None

    def _fraction_of_batch(self) -> int:
        config, world = self._loop, self._accelerator.num_processes
        parts = world * config.accumulation_steps
        if config.batch_size % parts:
            raise PocketiqaError(
                f"batch_size {config.batch_size} cannot be divided equally among {world} processes times "
                f"{config.accumulation_steps} accumulation_steps: choose a multiple of {parts}"
            )
        return config.batch_size // parts

    @property
    def _fraction(self) -> dict[str, int]:
        """This process's part in each micro-batch, for ``batches.CropSampler``."""
        return {
            "per_process": self._per_process,
            "rank": self._accelerator.process_index,
            "world": self._accelerator.num_processes,
            "seed": self._loop.seed,
        }

    def execute(
        self,
        overwrite: bool,
        progress: Progress | None,
        cache_progress: Progress | None,
        warn: Warn | None = None,
    ) -> Outcome:
        """Claim the folder, prepare, train, finish; a finished run is returned as it is."""
        with ExitStack() as held:
            return self._execute(self._claim(overwrite, held), progress, cache_progress, warn)

    def _execute(
        self,
        claim: outputs.Claim,
        progress: Progress | None,
        cache_progress: Progress | None,
        warn: Warn | None,
    ) -> Outcome:
        if claim == outputs.Claim.DONE:
            if self._main:
                self._drop_pixels()  # killed right after it was done
            return self._outcome()
        self._choose_threads(warn)
        make_learner, skipped = self._prepared(claim, cache_progress if self._main else None)
        notes = self._train(make_learner, skipped, progress if self._main else None, warn)
        self._accelerator.wait_for_everyone()
        return self._outcome(notes)

    def _train(
        self, make_learner: Callable[[], Any], skipped: dict[str, int], progress: Progress | None, warn: Warn | None
    ) -> tuple[str, ...]:
        """Train from the latest checkpoint on, and keep what was learned; returns notes for a person."""
        checkpoints = Checkpoints(self._out / CHECKPOINTS, digest_of(self._spec))
        checkpoint, notes = checkpoints.latest()
        # All have read their checkpoint now; before, the main process must not remove any.
        self._accelerator.wait_for_everyone()
        if self._main:
            self._clean(checkpoints, checkpoint)
        learner = make_learner()
        trainer = Trainer(RunParts(self._accelerator, learner, checkpoints, self._out), self._loop, checkpoint, warn)
        self._start_trackers()
        trainer.run(progress)
        if self._main:
            # The result comes from the checkpoint on disk, which is the same however often the run was interrupted.
            best = self._loop.keep == "best" and trainer.progress.best_step
            self._finish(learner, checkpoints.load(best or trainer.progress.step), skipped)
        return tuple(notes)

    def _prepared(
        self, claim: outputs.Claim, progress: Progress | None
    ) -> tuple[Callable[[], Learner], dict[str, int]]:
        """Read what is learned from: how the learner is made of it, and what was skipped, by source and reason."""
        # A resumed run does not try again what could not be read: with another set of images, the split would be
        # another.
        caches = self._pixels(progress, retry_failed=claim == outputs.Claim.NEW)
        collected = collect(self._sources, caches, self._feature())
        split = self._split(join_groups(collected.refs), collected.skipped)
        return lambda: self._learner(collected, split, caches), collected.skipped

    def _claim(self, overwrite: bool, held: ExitStack) -> outputs.Claim:
        """The main process claims, and holds the folder's lock; all learn the result, so that none waits for ever."""
        # 0 stands for a refusal, and for the other processes: the sum is what the main one says.
        claims, error, number = list(outputs.Claim), None, 0
        if self._main:
            try:
                held.enter_context(outputs.exclusively(self._out))
                number = 1 + claims.index(outputs.claim(self._out, self.kind, self._spec, overwrite=overwrite))
            except PocketiqaError as refused:
                error = refused
        number = sum_of_ints(number, self._accelerator.device)
        if number == 0:
            # The main process says why, the others that it did: none begins to train alone.
            raise error or PocketiqaError(f"the main process could not take {self._out}: see its message")
        return claims[number - 1]

    def _choose_threads(self, warn: Warn | None) -> None:
        """Measure how many threads are worth having, unless that is settled; for a resumed run it is."""
        manifest = outputs.read_manifest(self._out)
        choice = choose_threads(self._loop, self._accelerator, manifest.notes.get(THREADS))
        self._accelerator.wait_for_everyone()  # all have read the manifest
        if choice is None or not self._main:
            return
        if warn is not None:
            warn(choice.words)
        if THREADS not in manifest.notes:
            notes = {**manifest.notes, THREADS: choice.number}
            outputs.write_manifest(self._out, replace(manifest, notes=notes))

    def _pixels(self, progress: Progress | None, *, retry_failed: bool) -> list[PixelCache]:
        """One cache for each pool; sources of one pool use the same."""
        caches: dict[str, PixelCache] = {}
        for source in self._sources:
            if source.pool.digest not in caches:
                caches[source.pool.digest] = build_pixels(
                    source.pool,
                    self._preprocess(),
                    self._cache or self._out / PIXELS,
                    rank=self._accelerator.process_index,
                    world=self._accelerator.num_processes,
                    barrier=self._accelerator.wait_for_everyone,
                    retry_failed=retry_failed,
                    progress=progress,
                )
        return [caches[source.pool.digest] for source in self._sources]

    def _split(self, groups: Mapping[str, str], skipped: Mapping[str, int]) -> Split:
        """Draw the split of images by their groups, or check that it is still the one that the run began with."""
        # The same in every process: it follows from the images and the seed. If a file can no longer be read, or can
        # again, groups may change parts, and validation would show images that were trained on.
        split = split_groups(groups, self._loop.split)
        path = self._out / SPLIT
        if path.exists() and read_record(path, what="split") != split.as_dict():
            raise OutputConflictError(
                f"the usable images are no longer those that {self._out} began with (skipped now: "
                f"{skipped or 'none'}): restore the images, or add --overwrite to start over"
            )
        if self._main and not path.exists():
            write_atomic(path, checksummed_json(split.as_dict()))
        return split

    def _clean(self, checkpoints: Checkpoints, checkpoint: Checkpoint | None) -> None:
        """Remove what a killed process left behind."""
        # 0: no checkpoint is whole, so incomplete ones go and training begins anew.
        checkpoints.clean(checkpoint.progress.step if checkpoint else 0)
        remove_leftovers(self._out)

    def _start_trackers(self) -> None:
        if self._loop.tracker != "none":
            (self._out / TRACKERS).mkdir(exist_ok=True)
            self._accelerator.init_trackers("pocketiqa")

    def _finish(self, learner: Learner, checkpoint: Checkpoint, skipped: dict[str, int]) -> None:
        """Keep the weights of a checkpoint and mark the run as complete."""
        step = checkpoint.progress.step
        # The step of a checkpoint that is kept was validated: it is the best one, or the last.
        records = (r for r in read_history(self._out / HISTORY) if r["kind"] == "validation" and r["step"] == step)
        kinds = ("score", "sources", "regions")
        validation = next({kind: record[kind] for kind in kinds if kind in record} for record in records)
        kept = self._keep(learner, checkpoint, self._about(step, validation))
        # Last: a run that is killed before is finished again from the same checkpoint, to the same files.
        outputs.finish(self._out, {"step": step, "validation": validation, "skipped": skipped, **kept})
        self._drop_pixels()

    def _about(self, step: int, validation: dict[str, Any]) -> dict[str, Any]:
        """What is kept with the result: teachers, data and how it did."""
        tables = [source.labels if isinstance(source.labels, LabelTable) else None for source in self._sources]
        of_regions = [source.regions.teacher.as_dict() for source in self._sources if source.regions is not None]
        return {
            "teachers": [stamp.as_dict() for stamp in self._teachers()],
            **({"region_teachers": of_regions} if of_regions else {}),
            "data": [
                {**source.describe(), "about": table.about if table else {}}
                for source, table in zip(self._sources, tables, strict=True)
            ],
            "run": digest_of(self._spec),
            "step": step,
            "validation": validation,
        }

    def _teachers(self) -> list[TeacherStamp]:
        """Stamps of the teachers whose labels or features are learned."""
        return teachers_of(self._sources)

    def _drop_pixels(self) -> None:
        # Pixels of a folder that the caller named may serve further runs.
        if self._cache is None:
            shutil.rmtree(self._out / PIXELS, ignore_errors=True)

    def _outcome(self, notes: tuple[str, ...] = ()) -> Outcome:
        return Outcome(outputs.read_manifest(self._out, self.kind).content, notes)
