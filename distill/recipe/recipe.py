"""Recipes: one YAML file that says every stage from photographs to report."""

import difflib
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from distill.recipe.load import (
    apply_settings,
    parse_settings,
    parse_yaml,
    read_yaml,
    todays_names,
    todays_tree,
    validated,
)
from distill.recipe.settings import Settings
from distill.recipe.stages import (
    BenchmarkSection,
    DistortSection,
    ExportSection,
    FuseSection,
    LabelSection,
    LevelSection,
    MoreRegionsSection,
    PoolSection,
    RegionSection,
    ScoreSection,
    SourceSection,
    WeightAverageSection,
    expanded,
)
from distill.recipe.training import FitSection, TrainConfig
from pseudo_labels.defaults import SEED
from pseudo_labels.errors import PocketiqaError
from students.shipped import NAMES, model_path
from teachers.embedded import FOLDER as EMBEDDED_FOLDER
from teachers.embedded import NAME as EMBEDDED
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder

Regions = TypeVar("Regions", bound=RegionSection)


class Recipe(Settings):
    """All stages; a section that is left out is a stage that is not walked.

    Attributes:
        name: name of the student; the exported file has it too.
        out: folder of the run; each stage has a subfolder.
        seed: seed of everything random but what has one of its own: trainings (``fit.seed``, ``distill.seed``), their
            splits, and crops.
        fit: teacher that is fitted to ratings, or to regions; it labels the pool unless ``label`` names another.
        teachers: in place of ``fit``, several that are fitted, by names of the recipe's own; all of them label the
            pool, and ``fuse`` joins their labels.
        weight_average: makes one small teacher of some of ``teachers``, the mean of their weights (a "model soup"),
            beside the fused one.
        pool: photographs to start from.
        distort: synthetic distortions of the pool.
        label: teacher that labels the (distorted) pool.
        levels: further distorted copies of the pool, of which the student learns the order of levels alone.
        regions: regions of the pool, copies that are distorted in one region, and labels of regions, which the student
            learns beside its other sources (``losses.region_quality``) and is evaluated on; a teacher of regions that
            is fitted without ``sources`` learns them too.
        more_regions: regions of other photographs, to learn from or to evaluate on.
        fuse: makes one store of the labels of several teachers, and drops the doubtful ones.
        sources: labels that exist already, or ratings of people, to learn from beside the recipe's own labels.
        distill: the student and its training; without it the recipe ends with the fitted teacher, and its labels.
        export: form of the student's file.
        evaluate: benchmarks with ratings of people, for the fitted teacher and for the student.
        score: demonstration of the student with distorted copies.
    """

    RENAMED = {"merge": "weight_average"}

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    out: Path
    seed: int = SEED
    fit: FitSection | None = None
    teachers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]*$")], FitSection] = Field(
        default_factory=dict
    )
    weight_average: WeightAverageSection | None = None
    pool: PoolSection | None = None
    distort: DistortSection | None = None
    label: LabelSection | None = None
    levels: LevelSection | None = None
    regions: RegionSection | None = None
    more_regions: tuple[MoreRegionsSection, ...] = ()
    fuse: FuseSection | None = None
    sources: tuple[SourceSection, ...] = ()
    distill: TrainConfig | None = None
    export: ExportSection = Field(default_factory=ExportSection)
    evaluate: tuple[BenchmarkSection, ...] = ()
    score: ScoreSection | None = None

    @property
    def fits(self) -> dict[str, FitSection]:
        """All teachers that are fitted, by name; the only one of ``fit`` has none."""
        return self.teachers if self.fit is None else {"": self.fit}

    @property
    def fits_own_regions(self) -> bool:
        """Whether a teacher learns from the regions that the recipe makes, which must then be there before."""
        return any(section.of_own_regions for section in self.fits.values())

    @property
    def labellers(self) -> list[str]:
        """Names of those of ``fits`` that label the pool; one without a name where ``label`` names its teacher."""
        if self.label is None:
            return []
        return list(self.fits) if self.label.teacher is None else [""]


def recipe_folders() -> list[Path]:
    """Where recipes that come with pocketiqa lie: of a checkout beside its packages, then as installed data files."""
    beside, installed = Path(__file__).parents[2], Path(sysconfig.get_path("data")) / "share/pocketiqa/configs"
    # Once installed, what lies beside the packages belongs to others.
    return [*([beside / "configs"] if (beside / "pyproject.toml").is_file() else []), installed]


def known_recipes() -> dict[str, Path]:
    """Name and file of each recipe, study and comparison that comes with pocketiqa."""
    return {file.stem: file for folder in reversed(recipe_folders()) for file in sorted(folder.glob("*.yaml"))}


def recipe_that_makes(path: str | Path) -> str:
    """Name of a recipe that comes with pocketiqa and writes into the folder that a path leads into; empty if none."""
    for name, file in known_recipes().items():
        out = parse_yaml(file.read_text(encoding="utf-8")).get("out")
        if out is not None and Path(str(out)) in (Path(path), *Path(path).parents):
            return name
    return ""


def find_recipe(name: str) -> Path:
    """The file of a recipe that is named by path, or by the bare name of one that comes with pocketiqa.

    Of the same name, a recipe of the checkout wins: an installed copy may be older than the code that runs.

    Raises:
        PocketiqaError: neither exists; the message lists the names there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = known_recipes()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise PocketiqaError(f"no recipe {name!r}: no such file, and the names are {', '.join(sorted(known))}{hint}")


def load_recipe(name: str, settings: Sequence[str] = (), out: Path | None = None) -> Recipe:
    """Read a recipe and lay ``KEY=VALUE`` settings over it.

    Raises:
        PocketiqaError: no such recipe, not YAML, an unknown key or a value that does not fit; names the key.
    """
    path = find_recipe(name)
    tree = read_yaml(path, "recipe")
    # Before the check against the model, which would only say that the key is unknown.
    if "arms" in tree:
        raise PocketiqaError(f"{path} is a study of many runs: walk it with 'pocketiqa study {name}'")
    if "rows" in tree:
        raise PocketiqaError(f"{path} is a comparison of many models: make it with 'pocketiqa compare {name}'")
    tree = apply_settings(todays_tree(Recipe, tree), todays_names(Recipe, parse_settings(settings)))
    if out is not None:
        tree["out"] = str(out)
    # Settings are laid over before the check: they may supply what the file lacks, such as ``out``.
    recipe = validated(Recipe, tree, path)
    _check_chain(recipe, path)
    return recipe


def _check_chain(recipe: Recipe, path: Path) -> None:
    needs = (
        ("distort", recipe.distort, "pool", recipe.pool),
        ("label", recipe.label, "pool", recipe.pool),
        ("fuse", recipe.fuse, "label", recipe.label),
        ("levels", recipe.levels, "pool", recipe.pool),
        ("levels", recipe.levels, "distill", recipe.distill),
        ("regions", recipe.regions, "pool", recipe.pool),
        ("regions", recipe.regions, "distill", recipe.distill or recipe.fits_own_regions or None),
        ("regions", recipe.regions, "label", recipe.label or recipe.distill is None or None),
        ("more_regions", recipe.more_regions or None, "regions", recipe.regions),
        ("score", recipe.score, "distill", recipe.distill),
    )
    for stage, present, needed, there in needs:
        if present is not None and there is None:
            raise PocketiqaError(f"{path}: {stage!r} needs the section {needed!r}")
    if recipe.regions is not None and recipe.distort is not None and recipe.distort.max_side is not None:
        raise PocketiqaError(
            f"{path}: distort.max_side would not fit the masks of 'regions': leave it out, and make the pool of "
            "smaller images"
        )
    names = [section.name for section in recipe.more_regions]
    if len(set(names)) < len(names):
        raise PocketiqaError(f"{path}: more_regions has the names {names}: give each a name of its own")
    if recipe.regions is not None and recipe.distort is None and not recipe.regions.per_image:
        raise PocketiqaError(f"{path}: 'regions' has nothing distorted: add 'distort', or raise regions.per_image")
    _check_region_fits(recipe, path)
    unknown = [] if recipe.weight_average is None else sorted(set(recipe.weight_average.names) - set(recipe.teachers))
    if unknown:
        raise PocketiqaError(
            f"{path}: weight_average names {unknown[0]!r}: choose from {', '.join(recipe.teachers) or 'none'}"
        )
    if recipe.teachers:
        _check_teachers(recipe, path)
    if recipe.label is not None and recipe.label.teacher is None and not recipe.fits:
        raise PocketiqaError(f"{path}: 'label' names no teacher: add label.teacher, or a section 'fit' that makes one")
    if recipe.distill is None and not recipe.fits:
        raise PocketiqaError(f"{path}: nothing learns: add 'distill' for a student, or 'fit' for a teacher")
    if recipe.distill is not None and recipe.label is None and not recipe.sources:
        raise PocketiqaError(
            f"{path}: nothing to learn from: add 'label' (with 'pool'), or 'sources' with ready labels or ratings"
        )


def _check_region_fits(recipe: Recipe, path: Path) -> None:
    for name, section in recipe.fits.items():
        key = f"teachers.{name}" if name else "fit"
        if section.of_own_regions and recipe.regions is None:
            raise PocketiqaError(
                f"{path}: {key!r} has nothing to learn from: give it 'sources', or the recipe a section 'regions' "
                "(with 'pool'), which a teacher of regions learns from"
            )
        own = [part for part in ("exports", "judgements") if part in section.model_fields_set]
        if own and not section.of_regions:
            raise PocketiqaError(f"{path}: {key}.{own[0]} is of teachers that learn from regions: leave it out")
        if not section.of_regions and any(source.regions is not None for source in section.sources):
            raise PocketiqaError(
                f"{path}: {key}.sources mixes regions with labels of whole images: fit to one of them, and give the "
                "fitted folder as the teacher of a second fitting"
            )
        if section.of_regions and any(source.weight != 1 for source in section.sources):
            raise PocketiqaError(
                f"{path}: {key}.sources has a weight, but each label of a region is learned once in a pass: leave it "
                "out"
            )
        unused = [part for part in ("losses", "images") if part in section.model_fields_set]
        if section.of_regions and unused:
            raise PocketiqaError(
                f"{path}: {key}.{unused[0]} is of ratings, but {key} learns the answers on regions: leave it out"
            )
    if recipe.evaluate and recipe.distill is None and any(section.of_regions for section in recipe.fits.values()):
        raise PocketiqaError(
            f"{path}: 'evaluate' is of models of whole images, but 'fit' learns from regions: leave it out, and give "
            "the fitted folder to 'pocketiqa evaluate' afterwards"
        )


def _check_teachers(recipe: Recipe, path: Path) -> None:
    if recipe.fit is not None:
        raise PocketiqaError(f"{path}: both 'fit' and 'teachers': name the teacher of 'fit' among 'teachers'")
    if len(recipe.teachers) == 1:
        raise PocketiqaError(f"{path}: 'teachers' has one, {next(iter(recipe.teachers))!r}: call the section 'fit'")
    if recipe.fuse is None:
        raise PocketiqaError(f"{path}: 'teachers' needs the section 'fuse' (with 'pool' and 'label') to make them one")
    if recipe.label is not None and recipe.label.teacher is not None:
        raise PocketiqaError(f"{path}: label.teacher = {recipe.label.teacher!r}, but all of 'teachers' label: drop it")


def with_paths_expanded(recipe: Recipe) -> Recipe:
    """The recipe with ``$VARIABLES`` in the options of its teachers and in the student's first weights replaced.

    Raises:
        PocketiqaError: a variable is not set.
    """
    # Sources and benchmarks are missing here: they are expanded where they are opened.
    changes: dict[str, Any] = {}
    if recipe.fit is not None:
        changes["fit"] = _fit_expanded(recipe.fit)
    changes["teachers"] = {name: _fit_expanded(section) for name, section in recipe.teachers.items()}
    if recipe.label is not None:
        teacher = recipe.label.teacher
        named = {"teacher": teacher and expanded(teacher), "options": with_variables(recipe.label.options)}
        changes["label"] = recipe.label.model_copy(update=named)
    if recipe.regions is not None:
        changes["regions"] = _regions_expanded(recipe.regions)
    changes["more_regions"] = tuple(map(_regions_expanded, recipe.more_regions))
    if recipe.distill is not None and recipe.distill.student.init is not None:
        student = recipe.distill.student
        student = student.model_copy(update={"init": Path(expanded(str(student.init)))})
        changes["distill"] = recipe.distill.model_copy(update={"student": student})
    return recipe.model_copy(update=changes)


def _regions_expanded(section: Regions) -> Regions:
    named: dict[str, Any] = {"by": expanded(section.by), "options": with_variables(section.options)}
    named["teacher_options"] = with_variables(section.teacher_options)
    return section.model_copy(update=named)


def first_weights(init: str) -> Path:
    """The file with the first weights of a student; call it when the file exists.

    Args:
        init: that file, the name of a student that comes with pocketiqa, or a teacher that holds its backbone in a file
            of its own: ``embedded``, or the folder of a weight average.
    """
    if init in NAMES:
        return model_path(init)
    folder = str(EMBEDDED_FOLDER) if init == EMBEDDED else init
    if not is_fitted_folder(folder):
        return Path(init)
    weights = read_fitted_folder(folder)[1].get("weights")
    if weights is None:
        raise PocketiqaError(
            f"student.init is {init!r}, a teacher without a file of its backbone: average its weights first"
        )
    return Path(weights)


def _fit_expanded(section: FitSection) -> FitSection:
    return section.model_copy(update={"options": with_variables(section.options)})


def with_variables(value: Any) -> Any:
    """The same JSON values with ``$VARIABLE`` and ``~`` replaced where a text begins so.

    Raises:
        PocketiqaError: a variable is not set.
    """
    if isinstance(value, dict):
        return {key: with_variables(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_variables(inner) for inner in value]
    # Only at the beginning: an option may hold a text with a dollar sign that is no path.
    return expanded(value) if isinstance(value, str) and value.startswith(("$", "~")) else value
