"""``pocketiqa study``: all runs of a study, one after another, and their comparison."""

from collections.abc import Sequence
from pathlib import Path

from distill.study.cells import Cell, cells_of, chosen, command_of, study_targets
from distill.study.config import Study, load_study
from distill.study.page import study_page
from distill.study.result import build_result
from distill.study.sharing import SHARED
from distill.study.tables import result_tables, verdict
from distill.study.worker import RunOrder, run_apart
from distill.terminal import console
from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, sha256_file, write_atomic

KIND = "study"
RESULT, PAGE = "study.json", "study.html"


def run_study(
    name: str,
    *,
    out: Path | None = None,
    settings: Sequence[str] = (),
    only: str | None = None,
    overwrite: bool = False,
) -> None:
    """Walk the runs of a study, write ``study.json`` and ``study.html``, and print the result.

    Every run is a process of its own. One that fails is reported and the others continue; those that are done are
    skipped, and one that was interrupted is resumed.

    Args:
        name: name of the study, or its path.
        out: replaces the study's ``out``.
        settings: ``KEY=VALUE`` words laid over the study.
        only: walk the runs whose names fit this shell pattern; the result has all that exist.
        overwrite: redo stages whose settings or inputs changed; without it such a run fails.

    Raises:
        PocketiqaError: the settings of any run are wrong, before the first begins; or, at the end, runs failed.
    """
    study = load_study(name, settings, out)
    cells = cells_of(study)
    targets, wanted = study_targets(cells), chosen(cells, only)
    commands = {cell.name: command_of(name, settings, out, cell.name) for cell in cells}
    commands[""] = command_of(name, settings, out)
    with outputs.exclusively(study.out):
        # The name alone: arms, axes and settings may change between two calls. Each run has a spec of its own, by which
        # its stages are skipped or refused.
        outputs.claim(study.out, KIND, {"name": study.name})
        failures = _walk(study, wanted, commands, overwrite)
        # All runs, not only those of ``only``: the result shows what exists, whichever call made it.
        result = build_result(study, cells, targets, commands)
        write_atomic(study.out / RESULT, checksummed_json(result))
        write_atomic(study.out / PAGE, study_page(result).encode())
        outputs.finish(study.out, {RESULT: sha256_file(study.out / RESULT)})
    for table in result_tables(result):
        console.out.print(table)
    console.out.print(f"{verdict(result)}\nreport: {(study.out / PAGE).resolve()}", markup=False)
    # At the end: a failure must not cost the result of the others, but the exit status has to tell.
    if failures:
        raise PocketiqaError(_summary(failures, len(wanted)))


def _walk(study: Study, cells: Sequence[Cell], commands: dict[str, str], overwrite: bool) -> dict[str, str]:
    """Name of each run that failed, and why."""
    failures = {}
    for number, cell in enumerate(cells, start=1):
        console.out.print(f"[{number}/{len(cells)}] {cell.name}", markup=False, style="bold")
        # Plain JSON values travel to the other process, which checks them again. Without defaults, so that the run's
        # ``recipe.yaml`` holds what the study says and no more.
        recipe = cell.recipe.model_dump(mode="json", exclude_unset=True)
        reason = run_apart(RunOrder(recipe, str(study.out / SHARED), commands[cell.name], overwrite))
        if reason:
            failures[cell.name] = reason
            console.warn(f"{cell.name} failed: {reason}")
    return failures


def _summary(failures: dict[str, str], wanted: int) -> str:
    first, reason = next(iter(failures.items()))
    return (
        f"{len(failures)} of {wanted} runs failed, such as {first}: {reason}. The same command tries these again and "
        "skips what is done"
    )
