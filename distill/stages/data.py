"""Photographs to labels: the pool, its distorted copies, and the teacher's scores of them."""

from functools import partial
from pathlib import Path

from distill.evaluation.benchmarks import load_benchmark, names_benchmark
from distill.recipe.stages import (
    DistortSection,
    LabelSection,
    LevelSection,
    MoreRegionsSection,
    PoolSection,
    RegionSection,
    SourceSection,
    expanded,
)
from distill.stages.context import Run, Stage
from distill.stages.fusing import fusing_stages
from distill.terminal.console import warn
from distill.terminal.summaries import pool_line, store_line
from pseudo_labels.crops import RandomCrops
from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.files import digest_of
from pseudo_labels.parallel import Progress, usable_cores
from pseudo_labels.photos import export_photographs
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.regions.make import Limits, build_regions
from pseudo_labels.regions.readers import source_named
from pseudo_labels.regions.store import RegionSet
from students.paths import find_images
from teachers.label import label
from teachers.regions import label_regions

BUNDLED = "bundled:photographs"
Folders = tuple[Path, Path]
"""A pool, and the labels of it."""


def data_stages(run: Run) -> list[Stage]:
    """The stages pool, distort, label, levels, those of regions, and fuse, as far as the recipe has them."""
    return [*pool_stages(run), *label_stages(run), *region_stages(run), *fusing_stages(run)]


def pool_stages(run: Run) -> list[Stage]:
    """The stages pool, distort and levels, as far as the recipe has them."""
    recipe, stages = run.recipe, []
    if recipe.pool is not None:
        stages.append(Stage("pool", run.pool, partial(_pool, run, recipe.pool, run.pool)))
    if recipe.distort is not None:
        stages.append(Stage("distort", run.synthetic, partial(_distort, run, recipe.distort, run.synthetic)))
    if recipe.levels is not None:
        stages.append(Stage("levels", run.levels, partial(_distort, run, recipe.levels, run.levels)))
    return stages


def label_stages(run: Run) -> list[Stage]:
    """Labels of the pool by the recipe's teachers and their average; none if the recipe labels nothing."""
    recipe, section = run.recipe, run.recipe.label
    if section is None:
        return []
    teachers = {name: section.teacher or str(run.teacher_of(name)) for name in recipe.labellers}
    stages = [
        _label_stage(run, f"label-{name}" if name else "label", section, teacher, out=run.labels_of(name))
        for name, teacher in teachers.items()
    ]
    # Stores of crops are beside the labels that are fused, not among them: students name them as sources of their own.
    # Numbered from 1 by position: recipes of students name these folders, so a new entry belongs at the end.
    stages += [
        _label_stage(run, out.name, section, teacher, out=out, crops=crop.crops)
        for number, crop in enumerate(section.crops, 1)
        for name, teacher in teachers.items()
        for out in (run.crop_labels_of(name, number),)
    ]
    if (average := recipe.weight_average) is not None:
        # Its labels are for students that learn them together with ratings of the same images. It has seen most of
        # these, so leaving them out would leave little to learn.
        section = section.model_copy(update={"unseen": False, "features": True})
        stores = [("label-merged", run.averaged_labels, None)] if average.label else []
        stores += [
            (f"label-crop{number}", run.averaged_crop(number), crop.crops)
            for number, crop in enumerate(average.crops, 1)
        ]
        stages += [
            _label_stage(run, name, section, str(run.averaged_teacher), out=out, crops=crops)
            for name, out, crops in stores
        ]
    return stages


def region_stages(run: Run) -> list[Stage]:
    """Regions of the pool, distorted copies of them and their labels; none if the recipe has no regions."""
    section = run.recipe.regions
    if section is None:
        return []
    clean, regions = run.pool, run.regions
    stages = [Stage("regions", regions, partial(_regions, section, clean, regions))]
    if run.recipe.distort is not None:
        # Without distorted copies all regions of the pool are clean, and none is better than another.
        folders = run.labelled_pool, run.region_labels
        stages.append(Stage("label-regions", folders[1], partial(_label_regions, section, regions, folders)))
    if section.per_image:
        copies, labels = run.region_copies, run.region_copy_labels
        made = partial(_region_copies, section, (clean, regions, copies), run.recipe.seed)
        stages.append(Stage("distort-regions", copies, made))
        stages.append(Stage("label-copies", labels, partial(_label_regions, section, regions, (copies, labels))))
    for more in run.recipe.more_regions:
        stages += _more_region_stages(run, more)
    return stages


def _more_region_stages(run: Run, section: MoreRegionsSection) -> list[Stage]:
    pool, regions, copies, labels = (
        run.more_regions(section.name, part) for part in ("pool", "regions", "copies", "labels")
    )
    works = (
        ("pool", pool, partial(_pool, run, PoolSection(sources=section.sources), pool, images=section.images)),
        ("regions", regions, partial(_regions, section, pool, regions)),
        ("distort", copies, partial(_region_copies, section, (pool, regions, copies), run.recipe.seed)),
        ("label", labels, partial(_label_regions, section, regions, (copies, labels))),
    )
    return [Stage(f"{section.name}-{what}", folder, work) for what, folder, work in works]


def region_sources(run: Run) -> list[SourceSection]:
    """Sources of the regions that the recipe makes and labels."""
    recipe, sources = run.recipe, []
    if recipe.regions is None:
        return []
    # Without distorted copies, nothing is known of the regions of the pool.
    if recipe.distort is not None:
        sources.append(SourceSection(pool=run.labelled_pool, regions=run.regions, region_labels=run.region_labels))
    if recipe.regions.per_image:
        sources.append(
            SourceSection(
                pool=run.region_copies, regions=run.regions, region_labels=run.region_copy_labels,
                weight=recipe.regions.weight,
            )
        )  # fmt: skip
    more = (section for section in recipe.more_regions if not section.test)
    sources += [
        SourceSection(
            pool=run.more_regions(section.name, "copies"), regions=run.more_regions(section.name, "regions"),
            region_labels=run.more_regions(section.name, "labels"), weight=section.weight,
        )
        for section in more
    ]  # fmt: skip
    return sources


def _regions(section: RegionSection, pool: Path, out: Path, overwrite: bool, report: Progress) -> str:
    made = build_regions(
        Pool.open(pool),
        source_named(section.by, options=section.options),
        out,
        limits=Limits(section.min_area, section.max_area, section.max_overlap, section.max_regions),
        workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
        warn=warn,
    )
    return f"{made.manifest.content['regions']} regions of {made.manifest.content['images']} images"


def _region_copies(
    section: RegionSection, folders: tuple[Path, Path, Path], seed: int, overwrite: bool, report: Progress
) -> str:
    pool, regions, out = folders
    made = build_synthetic_pool(
        Pool.open(pool),
        out,
        per_image=section.per_image,
        names=section.names,
        seed=seed,
        regions=RegionSet.open(regions),
        regions_per_copy=section.regions_per_copy,
        feather_px=section.feather_px,
        workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
    )
    return pool_line(made)


def _label_regions(section: RegionSection, regions: Path, folders: Folders, overwrite: bool, report: Progress) -> str:
    pool, out = folders
    store = label_regions(
        pool,
        regions,
        section.teacher,
        out,
        options=section.teacher_options,
        patch=section.patch,
        decode_workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
        warn=warn,
    )
    return f"{store.manifest.content['labelled']} regions by {section.teacher}"


def _pool(
    run: Run, section: PoolSection, out: Path, overwrite: bool, report: Progress, images: int | None = None
) -> str:
    if BUNDLED in section.sources:
        # Copies in the run's folder: a pool refers to files by path, and an update of their package could change them.
        export_photographs(run.photographs)
    made = build_pool(
        _drawn([file for source in section.sources for file in _files(run, source)], images, run.recipe.seed),
        out,
        near_duplicate_distance=section.near_duplicate_distance,
        max_bad_fraction=section.max_bad_fraction,
        workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
        warn=warn,
    )
    return pool_line(made)


def _drawn(files: list[str], images: int | None, seed: int) -> list[str]:
    """Some of the photographs, by seed and name: those of a smaller number are part of those of a larger one."""
    if images is None:
        return files
    photographs = [file for one in files for file in (find_images([Path(one)]) if Path(one).is_dir() else [Path(one)])]
    order = sorted(photographs, key=lambda file: digest_of([seed, file.name]))
    return sorted(map(str, order[:images]))


def _files(run: Run, source: str) -> list[str]:
    """Paths that ``build_pool`` reads for a source; of a benchmark the train part, or all of one without splits."""
    if source == BUNDLED:
        return [str(run.photographs)]
    if not names_benchmark(source):
        return [expanded(source)]
    # Never test images: labels of a teacher would teach the student what they show, even without their ratings.
    return [row.path for row in load_benchmark(expanded(source)).usual("train").rows]


def _distort(run: Run, section: DistortSection | LevelSection, out: Path, overwrite: bool, report: Progress) -> str:
    made = build_synthetic_pool(
        Pool.open(run.pool),
        out,
        per_image=section.per_image,
        names=section.names,
        seed=run.recipe.seed,
        max_side=section.max_side,
        workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
    )
    return pool_line(made)


def _label_stage(
    run: Run, name: str, section: LabelSection, teacher: str, *, out: Path, crops: RandomCrops | None = None
) -> Stage:
    """Labels of the pool, or of random crops of its images, by one teacher."""
    return Stage(name, out, partial(_label, run.labelled_pool, section, teacher, out=out, crops=crops))


def _label(
    pool: Path,
    section: LabelSection,
    teacher: str,
    overwrite: bool,
    report: Progress,
    *,
    out: Path,
    crops: RandomCrops | None,
) -> str:
    store = label(
        pool,
        teacher,
        out,
        shards=section.shards,
        features=section.features,
        options=section.options,
        unseen=section.unseen,
        crops=crops,
        batch_size=section.batch_size,
        threads=section.threads,
        # As many as there are, for rows are taken in order: unlike ``threads``, this changes no byte of the labels.
        decode_workers=usable_cores(),
        overwrite=overwrite,
        progress=report,
        warn=warn,
    )
    return store_line(store)
