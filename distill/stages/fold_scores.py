"""``pocketiqa fold-scores``: what students say of rated photographs that they have not learned from.

A student that learned from all rated photographs says nothing of its error on new ones. So the student of a recipe is
trained several times, each time without a fold of the scenes, and each scores the fold that it lacks. The errors stand
for those of the student that learned from all of them, if it errs as they do (cross-conformal prediction: Vovk,
"Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.data.ratings import choose_rated
from distill.evaluation.benchmarks import BenchmarkRow
from distill.recipe.recipe import Recipe
from distill.recipe.stages import SourceSection, expanded
from distill.stages.check import check_student
from distill.stages.context import Run, open_run, walk
from distill.stages.student import student_stages
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import csv_line, utf8_path
from pseudo_labels.outputs import new_file
from pseudo_labels.records import Status
from students.runtime import Scorer


@dataclass(frozen=True)
class FoldScores:
    """What was written.

    Attributes:
        path: the file.
        photographs: number of photographs with a score.
        left_out: number of those without one.
    """

    path: Path
    photographs: int
    left_out: int


def fold_scores(
    recipe: str,
    out: Path,
    runs: Path,
    *,
    folds: int = 5,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> FoldScores:
    """Train a student without each fold, and write what it says of that fold: a CSV file with path, score and fold.

    Killed, the same command goes on where it was.

    Args:
        recipe: name or path of a recipe whose student learns from ratings alone.
        out: .csv file to write.
        runs: folder of the runs, one for each fold.
        folds: number of folds of scenes.
        settings: ``KEY=VALUE`` words laid over the recipe.
        overwrite: replace an existing file, and make runs anew whose settings changed.

    Raises:
        PocketiqaError: the recipe learns from something that may have seen the photographs of a fold.
        OutputConflictError: ``out`` exists.
    """
    if folds < 2:
        raise PocketiqaError(f"--folds is {folds}: 2 or more are needed, so that there is something to learn from")
    with new_file(out, overwrite=overwrite) as file:
        names, scores, left_out = set[str](), 0, 0
        file.write(csv_line(("path", "score", "fold")).encode())
        for number in range(1, folds + 1):
            run = _without(open_run(recipe, runs / f"fold-{number}", settings), f"{number}/{folds}")
            check_student(run)
            for stage in student_stages(run):
                walk(stage, overwrite=overwrite)
            scorer = Scorer(run.model, look="quick")
            rows = [row for row in held_out_rows(run.recipe) if row.path not in names]
            names.update(row.path for row in rows)
            with console.progress(f"fold {number}") as report:
                for row in scorer.score_many([Path(row.path) for row in rows], progress=report):
                    if row.status != Status.OK or row.score is None:
                        console.warn(f"{row.path} is left out: {row.reason}")
                        left_out += 1
                        continue
                    scores += 1
                    file.write(csv_line((utf8_path(row.path), f"{row.score:.6f}", str(number))).encode())
    return FoldScores(out, scores, left_out)


def _without(run: Run, fold: str) -> Run:
    """The run with sources that lack a fold of the scenes."""
    recipe = run.recipe
    check_sources(recipe)
    sources = [source.model_copy(update={"without_fold": fold}) for source in recipe.sources]
    return replace(run, recipe=recipe.model_copy(update={"sources": type(recipe.sources)(sources)}))


def check_sources(recipe: Recipe) -> None:
    """Refuse a recipe whose student learns from what may have seen the photographs of a fold.

    Raises:
        PocketiqaError: naming what that is.
    """
    own = [name for name in ("label", "levels") if getattr(recipe, name) is not None]
    others = [source for source in recipe.sources if source.ratings is None or source.labels is not None]
    drawn = [source for source in recipe.sources if source.without_fold is not None]
    if recipe.distill is None or not recipe.sources:
        raise PocketiqaError(f"recipe {recipe.name!r} has no student that learns from ratings: name another")
    if own or others or drawn:
        what = ", ".join([*own, *(["labels of a teacher"] if others else []), *(["without_fold"] if drawn else [])])
        raise PocketiqaError(
            f"recipe {recipe.name!r} has {what} among what its student learns from: a teacher may have learned from "
            "the photographs of a fold, so the scores there would say too little of its errors; name a recipe of "
            "ratings alone, such as biq2021_labels_alone"
        )
    init = recipe.distill.student.init
    if init is not None and Path(str(init)).suffix != ".safetensors":
        raise PocketiqaError(
            f"recipe {recipe.name!r} begins from {init}, which may have learned from the photographs of a fold: begin "
            "from weights that have seen no ratings (a .safetensors file), such as those of ImageNet"
        )


def held_out_rows(recipe: Recipe) -> list[BenchmarkRow]:
    """The rated photographs that no source of a recipe learns from although its data set has them, each once.

    Args:
        recipe: whose sources lack a fold.
    """
    every: dict[str, BenchmarkRow] = {}
    learned: set[str] = set()
    for source in recipe.sources:
        every |= {row.path: row for row in _rows(source, None, recipe.seed)}
        learned |= {row.path for row in _rows(source, source.without_fold, recipe.seed)}
    return [row for path, row in every.items() if path not in learned]


def _rows(source: SourceSection, fold: str | None, seed: int) -> Sequence[BenchmarkRow]:
    assert source.ratings is not None, "checked before"
    chosen, _ = choose_rated(
        expanded(source.ratings), source.split, subsets=source.subsets, images=source.images, without_fold=fold,
        seed=seed,
    )  # fmt: skip
    return chosen.rows
