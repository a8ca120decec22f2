"""What every stage of a run gets: the recipe, the folders, and how an output is made only once."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.recipe.recipe import Recipe, load_recipe, with_paths_expanded
from distill.terminal import console
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.outputs import MANIFEST, Claim, Manifest, claim, exclusively, finish, read_manifest
from pseudo_labels.parallel import Progress

REGION_RESULTS = "regions.json"
"""File in ``Run.region_evaluation``."""


@dataclass(frozen=True)
class Run:
    """One run of a recipe.

    Attributes:
        recipe: the stages and their settings.
        out: folder of the run; each stage has a subfolder.
        command: command line that repeats the run, for the report.
    """

    recipe: Recipe
    out: Path
    command: str

    def fitting_of(self, name: str) -> Path:
        """Checkpoints and history of the fitting of one of ``recipe.fits``."""
        return self.out / (f"fit-{name}" if name else "fit")

    def teacher_of(self, name: str) -> Path:
        """Folder of one fitted teacher."""
        return self.fitting_of(name) / "teacher"

    def exports_of(self, name: str) -> Path:
        """Further forms of one fitted teacher."""
        return self.out / f"{self.fitting_of(name).name}-export"

    @property
    def fitting(self) -> Path:
        """Checkpoints and history of the first fitting."""
        return self.fitting_of(next(iter(self.recipe.fits)))

    @property
    def fitted_teacher(self) -> Path:
        """Folder of the fitted teacher, or of several as one."""
        fits = self.recipe.fits
        # Beside the store of the fused labels: runs of a study that use this store use the teacher too.
        return self.labels.parent / "teacher" if len(fits) > 1 else self.teacher_of(next(iter(fits)))

    @property
    def averaged_teacher(self) -> Path:
        """Folder of the weight average; its teacher is in the subfolder ``teacher``."""
        return self.out / "merged"

    @property
    def averaged_labels(self) -> Path:
        """Label store of the weight average, for whole images of the pool."""
        return self.out / "merged-labels"

    def averaged_crop(self, number: int) -> Path:
        """Its label store of random crops; ``number`` is the position in ``weight_average.crops``, from 1."""
        return self.out / f"merged-crop{number}"

    @property
    def photographs(self) -> Path:
        """Copies of the bundled photographs."""
        return self.out / "photographs"

    @property
    def pool(self) -> Path:
        """The clean pool."""
        return self.out / "pool"

    @property
    def synthetic(self) -> Path:
        """The distorted pool."""
        return self.out / "synthetic"

    @property
    def levels(self) -> Path:
        """The distorted pool of which the order of levels is learned."""
        return self.out / "levels"

    def labels_of(self, name: str) -> Path:
        """The label store of one of ``recipe.fits``; without a name that of the only teacher, fitted or not."""
        # Without a fusion there is one labeller, and its store is the one that the student learns from.
        if self.recipe.fuse is None:
            return self.labels
        return self.out / f"labels-{name or 'teacher'}"

    @property
    def labels(self) -> Path:
        """Label store that the student learns from."""
        return self.out / "labels"

    def crop_labels_of(self, name: str, number: int) -> Path:
        """The label store of random crops of one of ``recipe.fits``; ``number`` is that of ``crop_labels``."""
        return self.crop_labels(number) if self.recipe.fuse is None else Path(f"{self.labels_of(name)}-crop{number}")

    def crop_labels(self, number: int) -> Path:
        """Label store of random crops; ``number`` is the position in ``label.crops``, from 1."""
        return Path(f"{self.labels}-crop{number}")

    @property
    def regions(self) -> Path:
        """Region manifest of the clean pool."""
        return self.out / "regions"

    @property
    def region_copies(self) -> Path:
        """Pool of copies that are distorted in one region only."""
        return self.out / "region-copies"

    @property
    def region_labels(self) -> Path:
        """Labels of the regions of the labelled pool."""
        return self.out / "region-labels"

    @property
    def region_copy_labels(self) -> Path:
        """Labels of the regions of ``region_copies``."""
        return self.out / "region-copy-labels"

    def more_regions(self, name: str, part: str) -> Path:
        """Pool, regions, copies or labels of one of ``recipe.more_regions``."""
        return self.out / "more-regions" / name / part

    @property
    def region_evaluation(self) -> Path:
        """How well the student knows the regions of held-out scenes."""
        return self.out / "region-evaluation"

    @property
    def training(self) -> Path:
        """Checkpoints, history and the student."""
        return self.out / "training"

    @property
    def evaluation(self) -> Path:
        """Predictions and metrics."""
        return self.out / "evaluation"

    @property
    def model(self) -> Path:
        """The exported student."""
        return self.out / "export" / f"{self.recipe.name}.onnx"

    @property
    def demonstration(self) -> Path:
        """Distorted copies and their scores."""
        return self.out / "demonstration"

    @property
    def report(self) -> Path:
        """Report page, its JSON twin and the model card."""
        return self.out / "report"

    @property
    def labelled_pool(self) -> Path:
        """The pool that is labelled: the synthetic one if there is one."""
        return self.pool if self.recipe.distort is None else self.synthetic


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: name on the progress bar.
        folder: folder of its output.
        make: does the work, or returns at once if it is done; called with (overwrite, progress), returns one line of
            summary.
    """

    name: str
    folder: Path
    make: Callable[[bool, Progress], str]


def is_complete(folder: Path) -> bool:
    """Whether a stage was finished in ``folder``."""
    return (folder / MANIFEST).is_file() and read_manifest(folder).complete


def make_once(
    folder: Path, kind: str, spec: dict[str, Any], make: Callable[[Path], dict[str, Any]], *, overwrite: bool
) -> Manifest:
    """Let ``make`` fill ``folder`` unless the same was done before; it returns the content record of the manifest.

    Unfinished work is done again from the start: such stages take seconds.

    Raises:
        OutputConflictError: another process works in ``folder``, or it holds something else.
    """
    with exclusively(folder):
        state = claim(folder, kind, spec, overwrite=overwrite)
        if state is Claim.DONE:
            return read_manifest(folder, kind)
        # Complete only now: a process that is killed inside ``make`` leaves an unfinished folder, which is made again.
        return finish(folder, make(folder))


def open_run(name: str, out: Path | None, settings: Sequence[str]) -> Run:
    """Read a recipe and prepare the folders of its run; arguments as for ``pipeline.run_recipe``."""
    # Variables are replaced after reading, so a recipe can also be read where they are not set.
    recipe = with_paths_expanded(load_recipe(name, settings, out))
    return Run(recipe, recipe.out, command_line("run", name, settings, out))


def command_line(command: str, name: str, settings: Sequence[str], out: Path | None, *more: str) -> str:
    """The words of a command as one line that a shell takes apart again.

    Args:
        command: name of the command, such as ``run``.
        name: name of its file.
        settings: ``KEY=VALUE`` words laid over the file.
        out: replaces the file's.
        more: further words.
    """
    words = ["pocketiqa", command, name, *(part for word in settings for part in ("--set", word))]
    return shlex.join([*words, *(["--out", str(out)] if out else []), *more])


def walk(stage: Stage, *, overwrite: bool) -> None:
    """Do one stage under a progress bar, unless it was done before with the same settings and inputs."""
    # Read before the work: afterwards every stage is complete, skipped or not.
    done_before = is_complete(stage.folder)
    started = time.monotonic()
    with console.progress(f"{stage.name:<9}", visible=console.is_main_process()) as report:
        try:
            # Without overwriting first: --overwrite redoes only stages whose settings or inputs changed, and an
            # interrupted stage is resumed, not started over.
            summary = stage.make(False, report)
        except OutputConflictError as conflict:
            if not overwrite:
                raise
            console.warn(f"{stage.name} is made anew: {conflict}")
            done_before = False
            summary = stage.make(True, report)
    if console.is_main_process():
        state = "unchanged, skipped" if done_before else f"{time.monotonic() - started:.0f} s"
        console.out.print(f"{stage.name:<9} {summary} ({state})", markup=False)
