"""The stages of one run of a study, in order, and what they cost: kept beside what the stage made."""

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distill.recipe.recipe import Recipe, with_paths_expanded
from distill.stages.check import check_run
from distill.stages.context import Stage, is_complete, walk
from distill.stages.fitting import averaging_stages, fitting_stages
from distill.stages.student import student_stages
from distill.study.evaluate import evaluation_stage
from distill.study.sharing import CellRun, pool_stages
from pseudo_labels.files import checksummed_json, read_record, write_atomic
from pseudo_labels.outputs import MANIFEST, read_manifest

RECIPE = "recipe.yaml"
COSTS = "costs.json"


def walk_run(recipe: Recipe, shared: Path, command: str, *, overwrite: bool) -> None:
    """Fit, average, label, train, export and evaluate, as far as the recipe says; unchanged stages are skipped.

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
    # Before the first stage: a run that fails can be looked at, and walked on its own, by its recipe.
    tree = recipe.model_dump(mode="json", exclude_unset=True)
    write_atomic(run.out / RECIPE, f"# {command}\n\n{yaml.safe_dump(tree, sort_keys=False)}".encode())
    check_run(run)
    student = student_stages(run) if recipe.distill else []
    # In the order of ``stages.pipeline``: the average needs the fitted teachers, and may label the pool.
    for stage in [*fitting_stages(run), *averaging_stages(run), *pool_stages(run), *student, evaluation_stage(run)]:
        _walk(stage, overwrite=overwrite)


def _walk(stage: Stage, *, overwrite: bool) -> None:
    """Walk a stage and write down beside its folder what it cost, unless it was done before."""
    before = _digest(stage.folder)
    # An unfinished manifest is what an earlier process left, whose time is not known here.
    resumed = before is None and (stage.folder / MANIFEST).is_file()
    started = time.monotonic()
    walk(stage, overwrite=overwrite)
    # A stage that was skipped keeps the record of what it cost when it was made.
    if _digest(stage.folder) != before:
        # Each of several teachers has a folder of its own, which only runs with this teacher use.
        record_cost(stage.folder.parent, stage.name.partition("-")[0], time.monotonic() - started, resumed=resumed)


def _digest(folder: Path) -> str | None:
    return read_manifest(folder).digest if is_complete(folder) else None


def record_cost(home: Path, stage: str, seconds: float, *, resumed: bool) -> None:
    """Write down what a stage has just cost in this process.

    Args:
        home: folder with the record: that of the run, or of an output that several runs use.
        stage: name of the stage.
        seconds: seconds since it was begun.
        resumed: whether it continued the work of an earlier process.
    """
    cost = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(), "resumed": resumed}
    write_atomic(home / COSTS, checksummed_json({**read_costs(home), stage: cost}))


def read_costs(home: Path) -> dict[str, Mapping[str, Any]]:
    """For each stage ``seconds``, ``peak_memory_bytes`` and ``resumed``: what came before the last start is missing."""
    path = home / COSTS
    return read_record(path, what="record of costs") if path.is_file() else {}


def peak_memory_bytes() -> int:
    """Most resident memory so far of this process, or of the largest process that it has started and seen end."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if sys.platform == "linux":
        # A new program inherits the figure of getrusage from the one that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        own = 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
