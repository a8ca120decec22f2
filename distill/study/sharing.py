"""One run of a study: its teacher and labels lie in folders that other runs with the same settings use as well."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.ratings import RatingTable, open_sources, rating_source
from distill.evaluation.benchmarks import names_benchmark
from distill.recipe.stages import PoolSection, expanded
from distill.stages.context import Run, Stage
from distill.stages.data import data_stages
from distill.terminal.summaries import pool_line
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool, write_pool

SHARED = "shared"
# Digits of a digest in names of folders: 48 bits, so that no two settings meet by chance, and still readable.
_DIGITS = 12


@dataclass(frozen=True)
class CellRun(Run):
    """A run that uses fittings and labels together with other runs.

    Runs with equal settings of a fitting (and of the seed, which draws the rated images) have one fitting. Those with
    equal pool and label settings and the same teacher have one pool and one label store. Training, export and
    evaluation belong to the run alone.

    Attributes:
        shared: folder of the outputs that several runs use.
    """

    shared: Path

    def _home(self, kind: str, sections: set[str], **others: Any) -> Path:
        """Folder of an output that depends on some sections of the recipe, and on the seed."""
        # Stored names: folders that were made before a key was renamed are found again. The seed belongs to each, as it
        # draws rated images, distortions and splits.
        part = {**self.recipe.stored(include={"seed", *sections}), **others}
        return self.shared / f"{kind}-{digest_of(part)[:_DIGITS]}"

    def _fit(self, name: str) -> dict[str, Any] | None:
        return self.recipe.fits[name].stored() if name in self.recipe.fits else None

    def fitting_of(self, name: str) -> Path:
        """Checkpoints and history of the fitting of one teacher."""
        return self._home("fit", set(), fit=self._fit(name)) / "fit"

    @property
    def pool_home(self) -> Path:
        """Folder of the pools; the images that ``sources`` have ratings of are left out."""
        # ``sources`` belongs here, as rated images are left out: another set of ratings makes another pool.
        return self._home("pool", {"pool", "distort", "sources"})

    def labels_of(self, name: str) -> Path:
        """The label store of one teacher."""
        # The settings of the fitting stand for the teacher, so the folder has its name before the teacher exists.
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
        """Label store that the student learns from."""
        if self.recipe.fuse is None:
            return self.labels_of(next(iter(self.recipe.labellers), ""))
        sections = {"pool", "distort", "sources", "label", "fuse"}
        return self._home("fused", sections, fits=[self._fit(name) for name in self.recipe.labellers]) / "labels"

    @property
    def evaluation(self) -> Path:
        """Scores of the benchmark's images, and their agreement with people."""
        # The name that the first version gave this folder.
        return self.out / "judged"


def pool_stages(run: CellRun) -> list[Stage]:
    """Pool, distort and label; a source of the pool may be a benchmark, as for ``pocketiqa evaluate --on``.

    The train part of a benchmark is pooled (all of one without splits), without its scores, and without the images
    that the recipe's ``sources`` have ratings of: these need no teacher.
    """
    section, stages = run.recipe.pool, data_stages(run)
    rated = [] if section is None else [source for source in section.sources if names_benchmark(source)]
    if section is None or not rated:
        return stages
    if len(section.sources) > 1:
        raise PocketiqaError(
            f"the pool of {run.recipe.name!r} has {len(section.sources)} sources and one is the benchmark {rated[0]!r}:"
            " name the benchmark alone"
        )
    stage = Stage("pool", run.pool, partial(_make, run, section))
    # Only the making of the clean pool is replaced; distorting and labelling read it like any other pool.
    return [stage if one.folder == run.pool else one for one in stages]


def _make(run: CellRun, section: PoolSection, overwrite: bool, report: Progress) -> str:
    whole = _whole(run, section.sources[0], overwrite, report)
    rated = _rated(run, overwrite)
    left_out = sorted(ref.id for ref in whole if ref.id in rated)
    made = write_pool(
        run.pool,
        [ref for ref in whole if ref.id not in rated],
        # Digest and number of what is left out, not the list: a manifest should stay readable.
        spec={"benchmark": whole.manifest.spec, "without": digest_of(left_out), "left_out": len(left_out)},
        overwrite=overwrite,
    )
    if not made.ok():
        raise PocketiqaError(
            f"the ratings of {run.recipe.name!r} cover all of {section.sources[0]}: nothing is left to be labelled; "
            "take fewer images, or leave pool and label out"
        )
    return pool_line(made)


def _whole(run: CellRun, source: str, overwrite: bool, report: Progress) -> Pool:
    """All of the part, measured once for all runs."""
    # Apart from the pools of the runs: measuring all images takes minutes, and each run leaves out a few of them.
    folder = run.shared / f"part-{digest_of(source)[:12]}"
    return rating_source(expanded(source), None, folder, overwrite=overwrite, progress=report).pool


def _rated(run: CellRun, overwrite: bool) -> set[str]:
    sources = open_sources(run.recipe.sources, run.pool_home / "rated", run.recipe.seed, overwrite=overwrite)
    return {id for source in sources if isinstance(source.labels, RatingTable) for id in source.labels.ids}
