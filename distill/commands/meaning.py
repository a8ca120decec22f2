"""Commands that say what scores mean: populations, intervals, one's own scale and taste.

All but ``adapt``, which trains, need the base install only.
"""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import (
    MaxPixels,
    OverwriteFile,
    Recursive,
    Settings,
    Split,
    Student,
    app,
    complete_recipe,
    complete_student,
)
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS

Scores = Annotated[
    Path | None,
    typer.Option(help="File that `score --out` wrote (.csv, .json, .jsonl): nothing is scored anew."),
]
Scale = Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Scale of a CSV file of ratings.  [default: 0:1]")]
Workers = Annotated[int, typer.Option(help="Images scored at a time.")]
_RATINGS = "A CSV file with the columns image and mos (and group, subset), or NAME:FOLDER as for evaluate."


@app.command()
def population(
    photographs: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images and folders; or rated sets (NAME:FOLDER, csv:FILE; their train part), for stars as well.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .json file to write.")],
    name: Annotated[str | None, typer.Option(help="What it is called.  [default: the name of --out]")] = None,
    model: Student = None,
    recursive: Recursive = False,
    workers: Workers = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: OverwriteFile = False,
) -> None:
    """Record how a model's scores are distributed over photographs: `score --population FILE` then gives percentiles.

    Without ratings, stars and verdicts are those that come with the model. If it is killed, the same command resumes.
    """
    from distill.scoring.meaning_records import make_population, population_summary

    made = make_population(
        photographs, out, name=name, model=model, recursive=recursive, workers=workers, max_pixels=max_pixels,
        overwrite=overwrite,
    )  # fmt: skip
    for line in population_summary(made):
        console.out.print(line, markup=False)


@app.command()
def intervals(
    ratings: Annotated[list[str], typer.Argument(metavar="RATINGS...", help=_RATINGS)],
    out: Annotated[
        Path, typer.Option("--out", help="The .json file to write; MODEL.intervals.json beside MODEL.onnx is read.")
    ],
    domain: Annotated[
        str,
        typer.Option(
            help="What these photographs are, and why the model has not learned from them; shown with every interval."
        ),
    ],
    model: Student = None,
    scale: Scale = None,
    scores: Scores = None,
    folds: Annotated[
        bool,
        typer.Option(
            "--folds", help="--scores are of models trained as MODEL was, each without the photographs that it scored."
        ),
    ] = False,
    workers: Workers = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: OverwriteFile = False,
) -> None:
    """Make the record for `score --interval`, from rated photographs that the model has NOT learned from.

    Split-conformal: 80 and 95 % of further photographs of the same kind have their rating inside; of other kinds not.
    """
    from distill.scoring.meaning_records import interval_summary, make_intervals

    made = make_intervals(
        ratings, out, domain=domain, model=model, scale=scale, scores=scores, folds=folds, workers=workers,
        max_pixels=max_pixels, overwrite=overwrite,
    )  # fmt: skip
    for line in interval_summary(made):
        console.out.print(line, markup=False)


@app.command("fold-scores")
def fold_scores(
    recipe: Annotated[
        str,
        typer.Argument(help="Recipe whose student learns from ratings alone.", autocompletion=complete_recipe),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .csv file to write, for `intervals --folds`.")],
    runs: Annotated[
        Path | None, typer.Option(help="Folder of the runs, one a fold.  [default: FILE.runs beside --out]")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the scenes.")] = 5,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out, and make runs anew whose settings changed.")
    ] = False,
) -> None:
    """Train the student of a recipe once for each fold, without its scenes, and write what it says of them.

    For intervals of a student that has learned from all rated photographs. If it is killed, the same command resumes.
    """
    from distill.stages.fold_scores import fold_scores as score_folds

    made = score_folds(
        recipe, out, runs or out.with_suffix(".runs"), folds=folds, settings=settings or (), overwrite=overwrite
    )
    without = f", {made.left_out} have no score" if made.left_out else ""
    console.out.print(f"{made.path}: {made.photographs} photographs{without}", markup=False)


@app.command()
def coverage(
    ratings: Annotated[
        str, typer.Argument(metavar="RATINGS", help="NAME:FOLDER or csv:FILE, which nothing was fitted to.")
    ],
    model: Student = None,
    split: Annotated[Split, typer.Option(help="Part of RATINGS, where it has parts.")] = "test",
    interval_from: Annotated[
        Path | None,
        typer.Option(help="Record that `intervals` wrote.  [default: MODEL.intervals.json beside MODEL.onnx]"),
    ] = None,
) -> None:
    """Measure how often a record of intervals holds people's ratings, on photographs that nothing was fitted to.

    Only measures: what it prints of a test part is stated, and nothing is chosen by it.
    """
    from distill.trust.coverage import coverage_lines, measure_coverage

    with console.progress("score") as report:
        rows = measure_coverage(ratings, model=model, split=split, record=interval_from, progress=report)
    for line in coverage_lines(rows):
        console.out.print(line, markup=False)


@app.command()
def calibrate(
    ratings: Annotated[list[str], typer.Argument(metavar="RATINGS...", help=_RATINGS)],
    out: Annotated[Path, typer.Option("--out", help="The .json file to write.")],
    model: Student = None,
    scale: Scale = None,
    scores: Scores = None,
    workers: Workers = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: OverwriteFile = False,
) -> None:
    """Fit a rising curve from scores to your own ratings, for `score --calibration FILE`, and say whether it helps.

    A column score in RATINGS is taken as it is. Scenes (column group) are never divided between fit and judgement.
    """
    from distill.scoring.meaning_records import calibration_summary, make_calibration

    made = make_calibration(
        ratings, out, model=model, scale=scale, scores=scores, workers=workers, max_pixels=max_pixels,
        overwrite=overwrite,
    )  # fmt: skip
    for line in calibration_summary(made):
        console.out.print(line, markup=False)


@app.command()
def adapt(
    ratings: Annotated[
        str,
        typer.Argument(
            metavar="RATINGS",
            help="A CSV file with the columns image and mos (and group), or NAME:FOLDER as for evaluate (its train "
            "part): 50 to 5,000 ratings.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write; its card has the same name with .md.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="An exported .onnx student in float, pocket-m, -s or -l, or a training folder.  [default: pocket-m]",
            autocompletion=complete_student,
        ),
    ] = None,
    scale: Scale = None,
    heads_only: Annotated[
        bool, typer.Option("--heads-only", help="Fit the heads alone: seconds to a minute in the place of minutes.")
    ] = False,
    overwrite: OverwriteFile = False,
) -> None:
    """Adapt a student to your own ratings: its heads first, then its last blocks, judged on folds of whole scenes.

    Nothing is written if it does not rank other photographs better than the student and its calibration do. Needs the
    extra train. If it is killed, the same command goes on.
    """
    from distill.stages.adaptation import summary_lines
    from distill.stages.adapting import adapt as run

    with console.progress("adapt") as report:
        adapted = run(
            model, ratings, out, scale=scale, heads_only=heads_only, overwrite=overwrite, progress=report,
            warn=console.warn,
        )  # fmt: skip
    for line in (*summary_lines(adapted.record), *adapted.dropped):
        console.out.print(line, markup=False)
    console.out.print(f"{out}: model {adapted.report.digest[:12]}; {out.with_suffix('.md')}: its card", markup=False)
