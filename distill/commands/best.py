"""``pocketiqa best`` and ``pocketiqa fit-pairs``: the best of similar photographs, and the head that tells them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.commands.options import (
    ExcelSafe,
    ImageFormat,
    MaxPixels,
    NoType,
    OverwriteFile,
    Recursive,
    RowsFile,
    Student,
    app,
)
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS, MOMENT_SECONDS


@app.command()
def best(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, folders and all else that score takes.")
    ],
    model: Student = None,
    recursive: Recursive = False,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths of lists end with NUL instead of a line end.")
    ] = False,
    keep: Annotated[int, typer.Option(metavar="N", help="Photographs that are kept of each group.")] = 1,
    seconds: Annotated[
        float,
        typer.Option(help="Longest time between one photograph of a moment and the next, by the camera's clock."),
    ] = MOMENT_SECONDS,
    look: Annotated[
        Literal["quick", "close"] | None,
        typer.Option(help="As for score: close looks at crops of large photographs too.  [default: that of the file]"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Images in work at a time.")] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    file_format: ImageFormat = None,
    out: RowsFile = None,
    excel_safe: ExcelSafe = False,
    no_type: NoType = False,
    page: Annotated[
        Path | None, typer.Option(metavar="PAGE", help=".html file to write: each group, the best first.")
    ] = None,
    rest: Annotated[
        bool,
        typer.Option("--rest", help="List, copy, move or link those that are not kept, in place of the kept ones."),
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Print the paths alone, one a line, in the place of the table.")
    ] = False,
    copy_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy the kept images.")] = None,
    move_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Move them; pocketiqa undo DIR moves them back.")
    ] = None,
    link_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Make symbolic links to them.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be copied, moved or linked; change nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out and --page name.")] = False,
) -> None:
    """Find photographs of one moment, and keep the best of each: bursts, series, retakes.

    Groups follow from names of bursts, times of the camera and what looks alike. Exit status 1 if any has no score.
    """
    from distill.scoring.answers import Answers
    from distill.scoring.best import best_of
    from distill.scoring.inputs import Reading
    from distill.scoring.shots import summary
    from distill.scoring.transfers import transfer_of

    transfer = transfer_of(copy_to, move_to, link_to)
    found = best_of(
        paths,
        model,
        reading=Reading(recursive, null),
        keep=keep,
        seconds=seconds,
        rest=rest,
        look=look,
        workers=workers,
        max_pixels=max_pixels,
        file_format=file_format,
        out=out,
        overwrite=overwrite,
        excel_safe=excel_safe,
        types=not no_type,
        page=page,
        answers=Answers(listing=listing, null=null, transfer=transfer, dry_run=dry_run),
    )
    console.err.print(summary(found.rows))
    without = sum(row.score is None for row in found.rows)
    if without:
        console.err.print(f"{without} of {len(found.rows)} images have no score; see status and reason")
    if not found.complete:
        raise typer.Exit(1)


@app.command("fit-pairs")
def fit_pairs(
    photographs: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Clean photographs, and folders of them, of which copies are damaged."),
    ],
    ratings: Annotated[
        list[str],
        typer.Option(
            help="Rated set with several photographs of one scene, NAME:FOLDER as for evaluate (its train part); "
            "repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    model: Student = None,
    recursive: Recursive = False,
    overwrite: OverwriteFile = False,
) -> None:
    """Give an exported student a head that says which of two photographs of one moment is better, for best.

    Scores stay as they are, to the bit. Each photograph is shown 46 times: itself, and 5 levels of 9 distortions.
    """
    from distill.stages.pair_fitting import fit_pairs as fit
    from distill.stages.pair_fitting import summary_lines
    from students.paths import find_images

    images = find_images(photographs, recursive=recursive, warn=console.warn)
    with console.progress("fit-pairs") as report:
        fitted = fit(model, ratings, images, out, overwrite=overwrite, progress=report, warn=console.warn)
    for line in summary_lines(fitted.head.fitted):
        console.out.print(line, markup=False)
    console.out.print(f"{out}: model {fitted.digest[:12]}", markup=False)
