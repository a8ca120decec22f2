"""The stages of one run of a study, in order."""

import time
from pathlib import Path

import yaml

from distill.recipe.recipe import Recipe, with_paths_expanded
from distill.stages.context import Stage, is_complete, walk
from distill.stages.fitting import fitting_stages
from distill.stages.student import student_stages
from distill.study.evaluate import evaluation_stage
from distill.study.sharing import CellRun, pool_stages, record_cost
from pseudo_labels.files import write_atomic
from pseudo_labels.outputs import MANIFEST, read_manifest

RECIPE = "recipe.yaml"


def walk_run(recipe: Recipe, shared: Path, command: str, *, overwrite: bool) -> None:
    """Fit, label, train, export and evaluate, as far as the recipe says; unchanged stages are skipped.

    Args:
        recipe: recipe of the run.
        shared: folder of the outputs that several runs use.
        command: command line that repeats the run.
        overwrite: redo stages whose settings or inputs changed; without it they are refused.

    Raises:
        PocketiqaError: a stage failed; what was finished before stays.
    """
    run = CellRun(with_paths_expanded(recipe), recipe.out, command, shared)
    run.out.mkdir(parents=True, exist_ok=True)
    tree = recipe.model_dump(mode="json", exclude_unset=True)
    write_atomic(run.out / RECIPE, f"# {command}\n\n{yaml.safe_dump(tree, sort_keys=False)}".encode())
    student = student_stages(run) if recipe.distill else []
    for stage in [*fitting_stages(run), *pool_stages(run), *student, evaluation_stage(run)]:
        _walk(stage, overwrite=overwrite)


def _walk(stage: Stage, *, overwrite: bool) -> None:
    """Walk a stage and write down beside its folder what it cost, unless it was done before."""
    before = _digest(stage.folder)
    resumed = before is None and (stage.folder / MANIFEST).is_file()
    started = time.monotonic()
    walk(stage, overwrite=overwrite)
    if _digest(stage.folder) != before:
        # Each of several teachers has a folder of its own, which only runs with this teacher use.
        record_cost(stage.folder.parent, stage.name.partition("-")[0], time.monotonic() - started, resumed=resumed)


def _digest(folder: Path) -> str | None:
    return read_manifest(folder).digest if is_complete(folder) else None
