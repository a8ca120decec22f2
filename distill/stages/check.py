"""A recipe is checked whole before its first stage runs: what is wrong with the last one is not found after hours.

Nothing is written, no image is opened and no weights are read, so that it takes seconds.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill.data.levels import LevelLists, drops_by_name
from distill.data.ratings import choose_rated
from distill.evaluation.benchmarks import load_benchmark, names_benchmark
from distill.recipe.recipe import first_weights, recipe_that_makes
from distill.recipe.stages import RegionSection, SourceSection, expanded
from distill.recipe.training import FitSection, LoopSettings, TrainConfig
from distill.stages.context import Run, is_complete
from distill.stages.data import BUNDLED
from distill.stages.fusing import calibration_part
from distill.training.adapters import TrainedStudent
from distill.training.environment import check_machine
from distill.training.optim import build_optimizer
from distill.training.student import check_crop, check_levels, configured_student
from pseudo_labels.distort.catalogue import groups, select
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import refuse_address
from pseudo_labels.pool import Pool
from pseudo_labels.regions.make import Limits
from pseudo_labels.regions.readers import source_named
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from pseudo_labels.store import LabelStore
from students.base import freeze_parts
from students.export import check_trainable
from students.registry import check_start, new_student
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder, read_seen
from teachers.region_labellers import ANNOTATED, CROP
from teachers.registry import check_teacher_options

Value = TypeVar("Value")


def check_run(run: Run) -> None:
    """Check every stage of a recipe: teachers, student, options, paths, benchmarks, devices.

    Raises:
        PocketiqaError: names every fault that was noticed, each with its key.
    """
    check = _Check(run)
    check.out()
    check.fits()
    check.data()
    check.student()
    check.evaluation()
    check.finish()


def check_fits(run: Run) -> None:
    """Check the teachers that a recipe fits, and no other stage; as ``check_run``."""
    check = _Check(run)
    check.out()
    check.fits()
    check.finish()


def check_student(run: Run) -> None:
    """Check the student of a recipe and what it learns from, and no other stage; as ``check_run``."""
    check = _Check(run)
    check.out()
    check.student()
    check.finish()


class _Check:
    """Collects the faults of a recipe in the order of its stages."""

    def __init__(self, run: Run):
        self._run, self._recipe = run, run.recipe
        self._keys_of: dict[str, list[str]] = {}
        self._makers: list[str] = []

    def finish(self) -> None:
        """Raise what was collected."""
        faults = [f"{', '.join(keys)}: {words}" for words, keys in self._keys_of.items()]
        if not faults:
            return
        commands = " and ".join(f"pocketiqa run {name}" for name in dict.fromkeys(self._makers))
        hint = f" (what is missing is made by: {commands})" if commands else ""
        if len(faults) == 1:
            raise PocketiqaError(f"recipe {self._recipe.name!r}: {faults[0]}{hint}")
        listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, 1))
        raise PocketiqaError(f"recipe {self._recipe.name!r} has {len(faults)} faults: {listed}{hint}")

    def _fault(self, key: str, words: str) -> None:
        self._keys_of.setdefault(words, []).append(key)

    def _try(self, key: str, function: Callable[..., Value], *args: Any, **options: Any) -> Value | None:
        """What the function returns; None after noting what it refuses."""
        try:
            return function(*args, **options)
        except PocketiqaError as error:
            self._fault(key, str(error))
            return None

    def out(self) -> None:
        """The folder of the run can be written."""
        try:
            refuse_address(self._run.out)
        except PocketiqaError as error:
            self._fault("out", str(error))
            return
        folder = self._run.out.absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            self._fault("out", f"{there} is a file, but a folder is needed: choose another --out")
        elif not os.access(there, os.W_OK | os.X_OK):
            self._fault("out", f"{there} cannot be written into: choose another --out, or change its permissions")

    def fits(self) -> None:
        """Teachers that are fitted."""
        for name, section in self._recipe.fits.items():
            key = f"teachers.{name}" if name else "fit"
            self._fit(key, section)

    def _fit(self, key: str, section: FitSection) -> None:
        made = self._teacher(key, section.teacher, section.options)
        if made is not None and not hasattr(made, "save_trained") and hasattr(made, "needs_reference"):
            self._fault(
                f"{key}.teacher",
                f"teacher {section.teacher!r} cannot be fitted: choose dp_iqa, sam_iqa, qfm_iqm, seagull",
            )
        elif made is not None and section.of_regions:
            self._region_fit(key, section, made)
        self._sources(f"{key}.sources", section.sources)
        self._machine(key, section)

    def _region_fit(self, key: str, section: FitSection, made: type) -> None:
        if not hasattr(made, "score_regions"):
            self._fault(
                f"{key}.teacher",
                f"teacher {section.teacher!r} does not learn from regions: fit seagull, or give it ratings or labels "
                "of whole images",
            )
            return
        kept = read_fitted_folder(section.teacher)[1] if is_fitted_folder(section.teacher) else {}
        if not {**kept, **section.options}.get("lora_rank"):
            self._fault(
                f"{key}.options.lora_rank", "0, by which nothing learns: give the rank of the adapters, such as 128"
            )

    def _machine(self, key: str, config: LoopSettings) -> None:
        self._try(key, check_machine, config)

    def _teacher(self, key: str, name: str, options: Mapping[str, Any]) -> type | None:
        if self._is_made_here(name) or any(self._is_made_here(value) for value in options.values()):
            return None
        try:
            return check_teacher_options(name, options)
        except PocketiqaError as error:
            self._note_maker(*(value for value in (name, *options.values()) if isinstance(value, str | Path)))
            self._fault(f"{key}.teacher", str(error))
            return None

    def _is_made_here(self, path: Any) -> bool:
        """Whether a stage of this run makes it."""
        if not isinstance(path, str | Path):
            return False
        return self._run.out.absolute() in Path(path).absolute().parents

    def _note_maker(self, *paths: str | Path) -> None:
        """Note the recipe that makes a missing folder, if one that comes with pocketiqa does."""
        missing = [path for path in paths if not Path(path).exists()]
        self._makers += [name for path in missing if (name := recipe_that_makes(path))]

    def _sources(self, key: str, sections: Sequence[SourceSection]) -> list[LabelStore | None]:
        """Ratings and labels are there; returns each section's store with features, None where that is not known."""
        return [self._source(f"{key}[{number}]", section) for number, section in enumerate(sections)]

    def _ordered(self, key: str, section: SourceSection) -> None:
        """The order of levels: distortions are known, and the pool holds copies under them."""
        drops = section.drops or ()
        if self._try(f"{key}.drops", drops_by_name, drops) is None or section.pool is None:
            return
        pool = self._folder(f"{key}.pool", section.pool, Pool.open)
        if pool is not None:
            self._try(f"{key}.pool", LevelLists.open, pool, drops)

    def _source(self, key: str, section: SourceSection) -> LabelStore | None:
        if section.drops is not None:
            self._ordered(key, section)
            return None
        if section.ratings is not None:
            spec = self._try(key, expanded, section.ratings)
            if spec is not None:
                self._try(
                    key, choose_rated, spec, section.split,
                    subsets=section.subsets, images=section.images, without_fold=section.without_fold,
                    seed=self._recipe.seed,
                )  # fmt: skip
        store = None
        if section.pool is not None:
            self._folder(f"{key}.pool", section.pool, Pool.open)
        if section.labels is not None:
            store = self._folder(f"{key}.labels", section.labels, LabelStore.open)
        if section.regions is not None and section.region_labels is not None:
            self._folder(f"{key}.regions", section.regions, RegionSet.open)
            self._folder(f"{key}.region_labels", section.region_labels, RegionLabelStore.open)
        return store if section.features is None else self._folder(f"{key}.features", section.features, LabelStore.open)

    def _folder(self, key: str, folder: Path, read: Callable[[Path], Value]) -> Value | None:
        """What a finished stage of another run wrote."""
        path = self._try(key, expanded, str(folder))
        if path is None or self._is_made_here(path):
            return None
        try:
            return read(Path(path))
        except PocketiqaError as error:
            self._note_maker(path)
            self._fault(key, str(error))
            return None

    def data(self) -> None:
        """Pool, distortions, labels, fusion."""
        recipe = self._recipe
        for number, source in enumerate(recipe.pool.sources if recipe.pool else ()):
            self._pool_source(f"pool.sources[{number}]", source)
        if recipe.distort is not None:
            self._try("distort.names", select, recipe.distort.names)
        if recipe.levels is not None:
            names = self._try("levels.names", select, recipe.levels.names)
            asked = self._try("levels.drops", drops_by_name, recipe.levels.drops)
            if names is not None and asked is not None and not set(names) & set(asked):
                self._fault("levels.drops", f"none of the distortions {', '.join(names)} is named: add one")
            # Dealt evenly: with fewer, each photograph has some distortions once, and others not at all.
            if names is not None and recipe.levels.per_image < 2 * len(names):
                self._fault(
                    "levels.per_image",
                    f"{recipe.levels.per_image} copies of each photograph are fewer than two of each of "
                    f"{len(names)} distortions, which have no order: raise it to {2 * len(names)} or more",
                )
        if recipe.label is not None:
            self._labels()
            for number, crops in enumerate(recipe.label.crops):
                self._try(f"label.crops[{number}]", lambda crops=crops: crops.crops)
        if recipe.regions is not None:
            self._regions("regions", recipe.regions)
        for place, section in enumerate(recipe.more_regions):
            self._regions(f"more_regions[{place}]", section)
            for number, source in enumerate(section.sources):
                self._pool_source(f"more_regions[{place}].sources[{number}]", source)
        if recipe.weight_average is not None:
            for number, crops in enumerate(recipe.weight_average.crops):
                self._try(f"weight_average.crops[{number}]", lambda crops=crops: crops.crops)
        if recipe.fuse is not None:
            fuse = recipe.fuse
            self._try("fuse", lambda: fuse.rule)
            if fuse.ratings is not None:
                ratings = fuse.ratings
                self._try("fuse.ratings", lambda: calibration_part(load_benchmark(expanded(ratings)), fuse.split))

    def _regions(self, key: str, section: RegionSection) -> None:
        limits = section.min_area, section.max_area, section.max_overlap, section.max_regions
        self._try(key, lambda: Limits(*limits))
        self._try(f"{key}.by", source_named, section.by, options=section.options)
        self._try(f"{key}.names", select, section.names)
        if section.teacher != ANNOTATED:
            self._teacher(key, section.teacher.removeprefix(CROP), section.teacher_options)

    def _pool_source(self, key: str, source: str) -> None:
        if source == BUNDLED:
            return
        path = self._try(key, expanded, source)
        if path is None:
            return
        if names_benchmark(path):
            self._try(key, lambda: load_benchmark(path).usual("train"))
        elif "://" not in path and not os.path.lexists(path):
            self._note_maker(path)
            self._fault(key, f"there is no file or folder {path!r}: check the path")

    def _labels(self) -> None:
        recipe, label = self._recipe, self._recipe.label
        assert label is not None
        named = [(label.teacher, label.options)] if label.teacher is not None else []
        # A fitted teacher is built as it was fitted, with the options of the labels laid over.
        own = recipe.fits.values() if label.teacher is None else ()
        named += [(section.teacher, {**section.options, **label.options}) for section in own]
        for teacher, options in named:
            made = self._teacher("label", teacher, options)
            if getattr(made, "needs_reference", False) is True and recipe.distort is None:
                self._fault(
                    "label.teacher",
                    f"teacher {teacher!r} compares images with their clean originals, but the pool is not distorted: "
                    "add the section 'distort'",
                )
            names = getattr(made, "feature_names", None)
            if label.features and isinstance(names, tuple) and not names:
                self._fault("label.features", f"teacher {teacher!r} has no feature maps: set label.features to false")
        if label.unseen and label.teacher is not None and not self._is_made_here(label.teacher):
            self._try("label.unseen", read_seen, label.teacher)

    def student(self) -> None:
        """The student, its first weights, and what it learns from."""
        recipe, config = self._recipe, self._recipe.distill
        if config is None:
            return
        stores = self._sources("sources", recipe.sources)
        self._machine("distill", config)
        if config.live is not None and config.live.teacher is not None:
            self._teacher("distill.live", config.live.teacher, config.live.options)
        self._features(config, stores)
        has_lists = recipe.levels is not None or any(source.drops is not None for source in recipe.sources)
        self._try("distill", check_levels, config, has_lists)
        if not is_complete(self._run.training):  # else all of this was tried before
            self._architecture(config)

    def _architecture(self, config: TrainConfig) -> None:
        settings, key = config.student, "distill.student"
        student = self._try(key, configured_student, settings)
        if settings.init is not None and not self._is_made_here(settings.init):
            weights = self._try(f"{key}.init", first_weights, str(settings.init))
            if weights is not None and not weights.is_file():
                self._note_maker(weights)
                self._fault(f"{key}.init", f"there is no file {weights}: check the path")
        if student is None:
            return
        self._try("distill.images", check_crop, config, student)
        self._try(key, check_start, student, init=settings.init, pretrained=settings.pretrained)
        self._try(key, check_trainable, student)
        built = None if any(key in keys for keys in self._keys_of.values()) else self._try(key, new_student, student)
        if built is not None:
            self._try(f"{key}.freeze", freeze_parts, built, settings.freeze)
            self._try("distill", build_optimizer, TrainedStudent(built), config.optimizer)

    def _features(self, config: TrainConfig, stores: Sequence[LabelStore | None]) -> None:
        """Features that a loss compares with are in one of the stores, as far as these are there."""
        recipe, name = self._recipe, config.losses.feature_name
        if not config.losses.needs_features or config.live is not None:
            return
        known, unknown = set[str](), False
        for section, store in zip(recipe.sources, stores, strict=True):
            if store is not None:
                known.update(store.spec.features)
            # Not there, which is a fault of its own, or not yet, as a stage of this run makes it.
            unknown = unknown or (store is None and (section.labels or section.features) is not None)
        labelled = recipe.label is not None and (recipe.label.features or recipe.fuse is not None)
        if not unknown and not labelled and name not in known:
            stored = ", ".join(sorted(known)) or "none at all"
            self._fault(
                "distill.losses.feature_name",
                f"no source has the feature {name!r}, the stored ones are: {stored}; set label.features to true, or "
                "name a source whose labels hold it",
            )

    def evaluation(self) -> None:
        """Benchmarks, and the demonstration."""
        for number, section in enumerate(self._recipe.evaluate):
            key = f"evaluate[{number}]"
            spec = self._try(key, expanded, section.ratings)
            benchmark = None if spec is None else self._try(key, load_benchmark, spec)
            if benchmark is not None:
                split = section.split or ("all" if benchmark.split_origin == "none" else "test")
                self._try(key, benchmark.select, None if split == "all" else split)
        for name in self._recipe.score.distortions if self._recipe.score else ():
            if name in groups():
                self._fault("score.distortions", f"{name!r} is a group: name single distortions")
            else:
                self._try("score.distortions", select, [name])
