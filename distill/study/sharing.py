"""One run of a study as a ``Run`` whose teacher and labels lie where other runs with the same settings find them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.stages.context import Run
from pseudo_labels.files import digest_of

SHARED = "shared"
_DIGITS = 12  # of a digest, in the names of folders


@dataclass(frozen=True)
class CellRun(Run):
    """A run whose fittings and labels are shared.

    Runs with equal settings of a fitting (and of the seed, which draws the opinions) have one fitting, and those that
    pool and label alike with the same teacher have one pool and one label store. Training, export and judgement are
    the run's own.

    Attributes:
        shared: folder of what is shared.
    """

    shared: Path

    def _home(self, kind: str, sections: set[str], **others: Any) -> Path:
        """Folder of what depends on some sections of the recipe, and on the seed."""
        part = {**self.recipe.model_dump(mode="json", include={"seed", *sections}), **others}
        return self.shared / f"{kind}-{digest_of(part)[:_DIGITS]}"

    def _fit(self, name: str) -> dict[str, Any] | None:
        return self.recipe.fits[name].model_dump(mode="json") if name in self.recipe.fits else None

    def fitting_of(self, name: str) -> Path:
        """Checkpoints and history of the fitting of one teacher."""
        return self._home("fit", set(), fit=self._fit(name)) / "fit"

    @property
    def pool_home(self) -> Path:
        """Folder of the pools; the opinions of ``sources`` are left out of them."""
        return self._home("pool", {"pool", "distort", "sources"})

    def labels_of(self, name: str) -> Path:
        """The label store of one teacher."""
        return self._home("labels", {"pool", "distort", "sources", "label"}, fit=self._fit(name)) / "labels"

    @property
    def photographs(self) -> Path:
        """Copies of the bundled photographs."""
        return self.pool_home / "photographs"

    @property
    def pool(self) -> Path:
        """The clean pool."""
        return self.pool_home / "pool"

    @property
    def synthetic(self) -> Path:
        """The distorted pool."""
        return self.pool_home / "synthetic"

    @property
    def labels(self) -> Path:
        """The label store that is learned from."""
        if self.recipe.fuse is None:
            return self.labels_of(next(iter(self.recipe.labellers), ""))
        sections = {"pool", "distort", "sources", "label", "fuse"}
        return self._home("fused", sections, fits=[self._fit(name) for name in self.recipe.labellers]) / "labels"

    @property
    def judgement(self) -> Path:
        """Scores of the benchmark's images, and how well they agree with people."""
        return self.out / "judged"
