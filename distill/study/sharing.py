"""One run of a study as a ``Run`` whose teacher and labels lie where other runs with the same settings find them."""

from dataclasses import dataclass
from pathlib import Path

from distill.stages.context import Run
from pseudo_labels.files import digest_of

SHARED = "shared"
_DIGITS = 12  # of a digest, in the names of folders


@dataclass(frozen=True)
class CellRun(Run):
    """A run whose fitting and labelling are shared.

    Runs with equal settings of the section ``fit`` (and of the seed, which draws the opinions) have one fitting, and
    those that pool and label alike with the same teacher have one pool and one label store. Training, export and
    judgement are the run's own.

    Attributes:
        shared: folder of what is shared.
    """

    shared: Path

    @property
    def fit_run(self) -> Run:
        """The run that fits the teacher, in a folder of its own."""
        recipe = self.recipe
        part = {"seed": recipe.seed, "fit": None if recipe.fit is None else recipe.fit.model_dump(mode="json")}
        return Run(recipe, self.shared / f"fit-{digest_of(part)[:_DIGITS]}", self.command)

    @property
    def label_home(self) -> Path:
        """Folder of pool and labels."""
        names = {"seed", "fit", "pool", "distort", "label", "sources"}
        part = self.recipe.model_dump(mode="json", include=names)
        return self.shared / f"labels-{digest_of(part)[:_DIGITS]}"

    @property
    def fitting(self) -> Path:
        """Checkpoints and history of the teacher's fitting."""
        return self.fit_run.fitting

    @property
    def photographs(self) -> Path:
        """Copies of the bundled photographs."""
        return self.label_home / "photographs"

    @property
    def pool(self) -> Path:
        """The clean pool."""
        return self.label_home / "pool"

    @property
    def synthetic(self) -> Path:
        """The distorted pool."""
        return self.label_home / "synthetic"

    @property
    def labels(self) -> Path:
        """The label store."""
        return self.label_home / "labels"

    @property
    def judgement(self) -> Path:
        """Scores of the benchmark's images, and how well they agree with people."""
        return self.out / "judged"
