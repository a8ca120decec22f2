"""The runs of a study: one for each arm at each combination of values, each with a whole recipe of its own."""

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.targets import Targets, targets_from_benchmark
from distill.recipe.load import apply_settings, todays_names
from distill.recipe.recipe import Recipe, load_recipe, with_paths_expanded
from distill.recipe.stages import BenchmarkSection, expanded
from distill.stages.context import command_line
from distill.study.config import Study
from pseudo_labels.errors import PocketiqaError


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        name: name of the run and of its folder, such as ``pseudo-labels250-seed0``.
        arm: arm that it belongs to.
        values: axis to its value, in the order of the axes.
        recipe: the whole recipe of the run.
    """

    name: str
    arm: str
    values: Mapping[str, str]
    recipe: Recipe


def cells_of(study: Study) -> list[Cell]:
    """All runs, those of one combination of values together: each is checked before the first begins.

    Raises:
        PocketiqaError: settings that give no recipe, or runs that cannot be compared; names the run and the key.
    """
    cells = []
    for values in itertools.product(*study.axes.values()):
        at = dict(zip(study.axes, values, strict=True))
        # Arms innermost: a study that is stopped early has whole combinations, whose arms can be compared.
        for arm in study.arms:
            name = "-".join([arm, *(f"{axis}{value}" for axis, value in at.items())])
            cells.append(Cell(name, arm, at, _recipe(study, name, arm, at)))
    _check_comparable(cells)
    return cells


def chosen(cells: Sequence[Cell], only: str | None) -> list[Cell]:
    """The runs whose names fit a shell pattern; all if it is None.

    Raises:
        PocketiqaError: none does; lists the names.
    """
    wanted = [cell for cell in cells if only is None or fnmatchcase(cell.name, only)]
    if not wanted:
        names = [cell.name for cell in cells]
        shown = ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "")
        raise PocketiqaError(f"no run of the study is called {only!r}: they are {shown}; patterns such as 'arm-*' do")
    return wanted


def study_targets(cells: Sequence[Cell]) -> Targets:
    """The ratings that all runs are evaluated on.

    Raises:
        PocketiqaError: the benchmark is not there or has no such part.
    """
    section = benchmark_of(cells[0].recipe)
    return targets_from_benchmark(load_benchmark(expanded(section.ratings)).select(_part(section)))


def benchmark_of(recipe: Recipe) -> BenchmarkSection:
    """The one section of ``evaluate``."""
    return recipe.evaluate[0]


def command_of(name: str, settings: Sequence[str], out: Path | None, only: str | None = None) -> str:
    """The command line of a study."""
    return command_line("study", name, settings, out, *(["--only", only] if only else []))


def _recipe(study: Study, name: str, arm: str, at: Mapping[str, str]) -> Recipe:
    tree: dict[str, Any] = dict(study.recipe)
    try:
        for axis, value in at.items():
            tree = apply_settings(tree, todays_names(Recipe, study.axes[axis][value]))
        # After the axes: where both set a key, the arm is what the study is about.
        tree = apply_settings(tree, todays_names(Recipe, study.arms[arm]))
        # A section that an arm has removed is left out, as if the recipe had never had it.
        whole = {"name": name, "out": str(study.out / name), **{k: v for k, v in tree.items() if v is not None}}
        return _checked(whole)
    except PocketiqaError as error:
        raise PocketiqaError(f"run {name!r} of the study: {str(error).removeprefix('--set ')}") from error


def _checked(tree: Mapping[str, Any]) -> Recipe:
    """The recipe of a tree, by way of the file that it would be."""
    # A real file, so that a run is checked as the same recipe would be on its own, with the same messages.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe_text(tree), encoding="utf-8")
        try:
            # The path of the file means nothing to the user, who never wrote it: it is cut out of the message.
            return load_recipe(str(path))
        except PocketiqaError as error:
            raise PocketiqaError(str(error).replace(f"{path}: ", "")) from error


def recipe_text(tree: Mapping[str, Any]) -> str:
    """A recipe as YAML."""
    return yaml.safe_dump(dict(tree), sort_keys=False, width=110, allow_unicode=True)


def _check_comparable(cells: Sequence[Cell]) -> None:
    for cell in cells:
        if len(cell.recipe.evaluate) != 1:
            raise PocketiqaError(
                f"run {cell.name!r} of the study: 'evaluate' has {len(cell.recipe.evaluate)} benchmarks, but runs are "
                "compared by exactly one: name it in the recipe"
            )
        if cell.recipe.evaluate != cells[0].recipe.evaluate:
            raise PocketiqaError(
                f"runs {cells[0].name!r} and {cell.name!r} of the study are evaluated on different benchmarks "
                "and cannot be compared: take 'evaluate' out of axes and arms"
            )
        # For its error alone: a variable that is not set would otherwise stop the study hours later.
        with_paths_expanded(cell.recipe)
    _part(benchmark_of(cells[0].recipe))
    sections = [source for cell in cells for source in _sources(cell.recipe)]
    # For its errors alone, each benchmark once: most runs have the same one.
    for ratings in sorted({source.ratings for source in sections if source.ratings}):
        load_benchmark(expanded(ratings))


def _sources(recipe: Recipe) -> list[Any]:
    return [*recipe.sources, *(source for section in recipe.fits.values() for source in section.sources)]


def _part(section: BenchmarkSection) -> str:
    if section.split in (None, "test"):
        raise PocketiqaError(
            f"evaluate.split is {section.split or 'not given'}: what a study compares on the test part is chosen on "
            "it; name validation, which ?validation=0.15 behind the benchmark carves out of the train part"
        )
    return str(section.split)
