"""Ratings of people as labels: a rated benchmark becomes a pool and a table of scores, which teaches like a store."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from distill.data.examples import LabelTable, Source
from distill.data.levels import LevelLists
from distill.data.rating_pool import benchmark_pool, rated_rows
from distill.data.regions import RegionTable
from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, load_benchmark
from distill.evaluation.targets import Targets, targets_from_labels
from distill.recipe.stages import SourceSection, expanded
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.store import LabelStore

Rated = Mapping[str, Sequence[BenchmarkRow]]


class RatingTable(LabelTable):
    """Scores of a benchmark for images of a pool.

    Attributes:
        name: name of the benchmark.
        rated: the rows of the benchmark for each image id; several where files have the same bytes, whose scores are
            averaged.
        about: facts for a report, as JSON values: ``Benchmark.as_dict``, and the split.
    """

    def __init__(self, name: str, rated: Rated, about: dict[str, Any]):
        # fmean adds exactly: the score does not depend on the order of the rows.
        super().__init__(list(rated), [fmean(row.score for row in rows) for rows in rated.values()])
        self.name, self.rated, self.about = name, rated, about


def open_sources(
    sections: Sequence[SourceSection],
    folder: Path,
    seed: int,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> list[Source]:
    """The sources of a recipe, each named by its position and its teacher or benchmark.

    Args:
        sections: sections of the recipe.
        folder: folder of the pools of rated images, a subfolder each.
        seed: draws the images of a section that wants only some.
        progress: called with images measured and in total, for each new pool.
        overwrite: make pools of rated images anew whose images or settings changed.

    Raises:
        PocketiqaError: a store, pool or benchmark is missing or unusable; see ``rating_source``.
    """
    return [
        _open(number, section, folder=folder, seed=seed, progress=progress, overwrite=overwrite)
        for number, section in enumerate(sections)
    ]


def _open(
    number: int, section: SourceSection, folder: Path, seed: int, progress: Progress | None, overwrite: bool
) -> Source:
    if section.drops is not None:
        return _ordered(number, section, Pool.open(Path(expanded(str(section.pool)))))
    if section.ratings is None:
        return _with_regions(_stored(number, section, None), section)
    rated = _rated(
        number, section, ratings=section.ratings, folder=folder, seed=seed, progress=progress, overwrite=overwrite
    )
    # Ratings beside a store only choose the images: the labels of the store are learned.
    if section.labels is None or not isinstance(rated.labels, LabelTable):
        return rated
    return _with_regions(_stored(number, section, frozenset(rated.labels.ids)), section)


def _ordered(number: int, section: SourceSection, pool: Pool) -> Source:
    """A pool of which the order of levels is learned; it has no scores."""
    lists = LevelLists.open(pool, section.drops or ())
    ids = list(dict.fromkeys(pool[row].id for row in lists.rows))
    labels = LabelTable(ids, np.zeros(len(ids)), np.zeros(len(ids)))
    return Source(f"{number}-levels", pool, labels, section.weight, selects=False, levels=lists)


def _with_regions(source: Source, section: SourceSection) -> Source:
    """The source with the labels of its regions; one of regions alone has scores without confidence."""
    if section.regions is None or section.region_labels is None:
        return source
    folders = (Path(expanded(str(folder))) for folder in (section.regions, section.region_labels))
    table = RegionTable.open(source.pool, *folders)
    if section.labels is not None:
        return replace(source, regions=table)
    ids = [source.pool[row].id for row in table.rows]
    labels = LabelTable(ids, np.zeros(len(ids)), np.zeros(len(ids)))
    return replace(source, labels=labels, regions=table)


def _stored(number: int, section: SourceSection, only: frozenset[str] | None) -> Source:
    if section.labels is None:
        pool = Pool.open(Path(expanded(str(section.pool))))
        return Source(f"{number}-regions", pool, LabelTable([], []), section.weight, only=only)
    pool, labels = section.store_folders
    store = LabelStore.open(labels)
    return Source(f"{number}-{store.spec.stamp.name}", Pool.open(pool), store, section.weight, only=only)


def _rated(
    number: int, section: SourceSection, ratings: str, folder: Path, seed: int, progress: Progress | None,
    overwrite: bool,
) -> Source:  # fmt: skip
    spec = expanded(ratings)
    out = folder / f"{number}-{spec.partition(':')[0]}"
    source = rating_source(
        spec, section.split, out,
        weight=section.weight, subsets=section.subsets, images=section.images, without_fold=section.without_fold,
        seed=seed,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip
    features = None if section.features is None else LabelStore.open(Path(expanded(str(section.features))))
    return replace(source, name=f"{number}-{source.name}", features=features)


def rating_source(
    spec: str,
    split: str | None,
    folder: Path,
    *,
    weight: float = 1.0,
    subsets: Sequence[str] | None = None,
    images: int | None = None,
    without_fold: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Source:
    """A benchmark to learn from; a pool that is in ``folder`` already is used if nothing has changed.

    Images that cannot be used are rows with their reason, and have no score. Of several processes the main one makes
    the pool, and the others wait for it.

    Args:
        spec: ``NAME:FOLDER`` or ``csv:FILE``, see ``load_benchmark``.
        split: ``train``, ``validation``, ``test`` or ``all``; None is ``train`` where the benchmark has splits, else
            ``all``. Test images come with ``test`` alone.
        folder: folder of the pool.
        weight: see ``Source``.
        subsets: only these parts of the benchmark, see ``BenchmarkRow.subset``; None for all.
        images: only so many rated images, whole scenes at a time but for the last one; with one seed, fewer are always
            among more.
        without_fold: leave out a fold of the scenes, such as ``2/5``, the second of five; after that draw.
        seed: seed of draw and folds.
        overwrite: replace an earlier pool that was made of other images or settings.
        progress: called with images measured and in total.

    Raises:
        PocketiqaError: no such benchmark, split or subset, fewer images than wanted, or not one that can be used.
        OutputConflictError: ``folder`` holds something else.
    """
    benchmark, split = choose_rated(
        spec, split, subsets=subsets, images=images, without_fold=without_fold, seed=seed
    )  # fmt: skip
    # Only what was asked for: a pool that was made before an option existed still counts as made of the same.
    drawn: dict[str, Any] = {} if images is None else {"images": images, "seed": seed}
    drawn |= {} if subsets is None else {"subsets": sorted(subsets)}
    drawn |= {} if without_fold is None else {"without_fold": without_fold, "seed": seed}
    pool = benchmark_pool(benchmark, Path(folder), {"split": split, **drawn}, overwrite=overwrite, progress=progress)
    table = RatingTable(benchmark.name, rated_rows(benchmark, pool), {**benchmark.as_dict(), "split": split})
    return Source(benchmark.name, pool, table, weight)


def choose_rated(
    spec: str, split: str | None, *, subsets: Sequence[str] | None, images: int | None, without_fold: str | None,
    seed: int,
) -> tuple[Benchmark, str]:  # fmt: skip
    """The rows of a benchmark that are learned from, without a look at its images, and their split.

    Arguments and exceptions are those of ``rating_source``.
    """
    benchmark = load_benchmark(spec)
    split = split or ("train" if any(row.split for row in benchmark.rows) else "all")
    chosen = _without(_drawn(_parts(_chosen(benchmark, split), subsets), images, seed), without_fold, seed)
    return chosen, split


def targets_of(source: Source, ids: Sequence[str]) -> Targets:
    """The targets of a model that learned from a source: the teacher's labels, or the ratings of people.

    Args:
        source: a store, a benchmark, or any table of scores.
        ids: ids of images of its pool; those without a score are left out.

    Raises:
        PocketiqaError: none of them has a score.
    """
    table = source.labels
    if isinstance(table, LabelStore):
        return targets_from_labels(table, source.pool, ids)
    score_of = dict(zip(table.ids, table.scores.tolist(), strict=True))
    wanted = [id for id in ids if id in score_of]
    scores = np.array([score_of[id] for id in wanted], np.float64)
    groups = tuple(source.pool.by_id(id).group for id in wanted)
    # A split keeps groups whole; near duplicates beyond them are detected later and given to ``evaluate``.
    near = (False,) * len(wanted)
    if not isinstance(table, RatingTable):
        return Targets(
            source.name,
            "opinions",
            ids=tuple(wanted),
            scores=scores,
            groups=groups,
            subsets=("",) * len(wanted),
            near_training=near,
        )
    # Rows with the same bytes: the first gives name and subset, the score is the mean of all.
    rows = [table.rated[id][0] for id in wanted]
    subsets, names = tuple(row.subset for row in rows), tuple(row.id for row in rows)
    return Targets(
        table.name,
        "opinions",
        ids=tuple(wanted),
        scores=scores,
        groups=groups,
        subsets=subsets,
        near_training=near,
        about=table.about,
        names=names,
    )


def left_out(sources: Iterable[Source]) -> list[str]:
    """A sentence for each source of ratings that lacks rated images: how many, and an example."""
    return [sentence for source in sources if (sentence := _left_out(source))]


def _left_out(source: Source) -> str:
    if not isinstance(source.labels, RatingTable):
        return ""
    bad = [ref for ref in source.pool if ref.status not in (Status.OK, Status.DUPLICATE)]
    if not bad:
        return ""
    return f"{source.name}: {len(bad)} of {len(source.pool)} images left out, such as {bad[0].uri}: {bad[0].reason}"


def _chosen(benchmark: Benchmark, split: str) -> Benchmark:
    """The rows to learn from; ``all`` never means test images."""
    if split != "all":
        if not any(row.split for row in benchmark.rows):
            raise PocketiqaError(f"benchmark {benchmark.name} has no splits, so no {split!r}: leave the split out")
        return benchmark.select(split)
    tests = sum(row.split == "test" for row in benchmark.rows)
    if tests:
        raise PocketiqaError(
            f"split 'all' of benchmark {benchmark.name} would learn from its {tests} test images: take 'train', and "
            "'validation' as another source; whoever means the test images too names 'test' as a source of its own"
        )
    return benchmark


def _parts(benchmark: Benchmark, subsets: Sequence[str] | None) -> Benchmark:
    if subsets is None:
        return benchmark
    known = sorted({row.subset for row in benchmark.rows} - {""})
    unknown = [subset for subset in subsets if subset not in known]
    if unknown or not subsets:
        shown = ", ".join(known) or "it has none"
        raise PocketiqaError(f"subsets is {list(subsets)}, but those of benchmark {benchmark.name} are: {shown}")
    return replace(benchmark, rows=tuple(row for row in benchmark.rows if row.subset in subsets))


def _drawn(benchmark: Benchmark, images: int | None, seed: int) -> Benchmark:
    """The first ``images`` rows in an order of scenes that follows from the seed alone; then in the file's order."""
    if images is None:
        return benchmark
    if not 1 <= images <= len(benchmark.rows):
        raise PocketiqaError(
            f"images is {images}, but this split of benchmark {benchmark.name} has {len(benchmark.rows)}: lower it"
        )

    def rank(at: int) -> tuple[bytes, str, int]:
        group = benchmark.rows[at].group
        # By hash and not by a generator: the order of the scenes does not depend on how many there are or are wanted.
        return _hashed(f"draw {seed}", group), group, at

    # Back in the order of the file, as the rows of all other pools.
    taken = sorted(sorted(range(len(benchmark.rows)), key=rank)[:images])
    return replace(benchmark, rows=tuple(benchmark.rows[at] for at in taken))


def _without(benchmark: Benchmark, fold: str | None, seed: int) -> Benchmark:
    """The rows outside a fold, such as ``2/5``: scenes fall into folds by their hash."""
    if fold is None:
        return benchmark
    number, folds = map(int, fold.split("/"))
    if not 1 <= number <= folds or folds < 2:
        raise PocketiqaError(
            f"without_fold is {fold!r}: give one of 1/{max(folds, 2)} to {max(folds, 2)}/{max(folds, 2)}"
        )

    def left_out(group: str) -> bool:
        # Another text than for the draw: the fold of a scene says nothing about when it is drawn.
        return int.from_bytes(_hashed(f"fold {seed}", group)) % folds == number - 1

    kept = tuple(row for row in benchmark.rows if not left_out(row.group))
    if not 0 < len(kept) < len(benchmark.rows):
        raise PocketiqaError(
            f"without_fold {fold!r} leaves {len(kept)} of the {len(benchmark.rows)} images of benchmark "
            f"{benchmark.name}: it has too few scenes for {folds} folds"
        )
    return replace(benchmark, rows=kept)


def _hashed(purpose: str, group: str) -> bytes:
    # Names of scenes may come from file names, whose bytes may not be UTF-8.
    return hashlib.sha256(f"{purpose}\n{group}".encode("utf-8", "surrogatepass")).digest()
