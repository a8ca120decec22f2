"""Commands that say what scores mean: populations, intervals, one's own scale. Base install only."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import MaxPixels, OverwriteFile, app, complete_student
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS

Model = Annotated[
    str | None,
    typer.Option(
        help="An exported .onnx student, or pocket-m or pocket-s.  [default: pocket-m, which comes along]",
        autocompletion=complete_student,
    ),
]
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
    model: Model = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into subfolders too.")] = False,
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
    model: Model = None,
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


@app.command()
def calibrate(
    ratings: Annotated[list[str], typer.Argument(metavar="RATINGS...", help=_RATINGS)],
    out: Annotated[Path, typer.Option("--out", help="The .json file to write.")],
    model: Model = None,
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
