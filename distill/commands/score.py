"""``pocketiqa score``, the command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.commands.options import (
    ExcelSafe,
    ImageFormat,
    MaxPixels,
    NoType,
    Recursive,
    RowsFile,
    app,
    complete_engine,
    complete_student,
)
from distill.terminal import console
from pseudo_labels.defaults import DOWNLOAD_MB, DOWNLOAD_S, MAX_PIXELS
from students.engines import ONNX_RUNTIME

Existing = Literal["merge", "keep", "refuse"]
Order = Literal["best", "worst", "name"]
Level = Literal["80", "95"]


@app.command()
def score(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders, quoted patterns such as 'trip/**/*.jpg', .tar and .parquet files with images, @FILE "
            "(a list of paths), - (paths on standard input), and addresses with --allow-remote.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="An exported .onnx student, or pocket-m, -s, -l, pocket-m-int8 or pocket-s-int8, which come along.  "
            "[default: pocket-m]",
            autocompletion=complete_student,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="onnxruntime, or openvino where it is installed: the same scores to 0.0001.",
            autocompletion=complete_engine,
        ),
    ] = ONNX_RUNTIME,
    recursive: Recursive = False,
    null: Annotated[
        bool,
        typer.Option("-0", "--null", help="Paths of lists end with NUL instead of a line end, as in find -print0."),
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Fetch images from http:// and https:// addresses.")
    ] = False,
    max_download: Annotated[
        float, typer.Option(metavar="MB", help="Largest image in megabytes that is fetched.")
    ] = DOWNLOAD_MB,
    download_time: Annotated[
        float, typer.Option(metavar="SECONDS", help="Most seconds for fetching one image.")
    ] = DOWNLOAD_S,
    look: Annotated[
        Literal["quick", "close"] | None,
        typer.Option(
            help="quick: one view of each picture; close: also crops of large ones, where the model's file has a "
            "second look.  [default: that of the file]"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Images scored at a time.")] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    file_format: ImageFormat = None,
    out: RowsFile = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep rows that --out has of the same model and limits and of unchanged files; continue an "
            "interrupted run.",
        ),
    ] = False,
    excel_safe: ExcelSafe = False,
    sort: Annotated[
        Order | None,
        typer.Option(help="Order of the rows.  [default: that of the paths; best with --top, worst with --bottom]"),
    ] = None,
    top: Annotated[int | None, typer.Option(metavar="N", help="Only the N best.")] = None,
    bottom: Annotated[
        int | None, typer.Option(metavar="N", help="Only the N worst; with --top, the best and the worst.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Only scores of at least X.")] = None,
    max_score: Annotated[float | None, typer.Option(metavar="X", help="Only scores of at most X.")] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Print the paths alone, one a line, in the place of the table.")
    ] = False,
    copy_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy the images that have a score and were chosen.")
    ] = None,
    move_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Move them; pocketiqa undo DIR moves them back.")
    ] = None,
    link_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Make symbolic links to them.")] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE", help="Page to write: one .html file with everything in it, or a folder with thumbnails."
        ),
    ] = None,
    xmp: Annotated[
        bool,
        typer.Option(
            "--xmp", help="Write stars and score into photo.jpg.xmp beside each photo.jpg, which stays untouched."
        ),
    ] = False,
    xmp_existing: Annotated[
        Existing,
        typer.Option(help="What to do with sidecars that exist: add to them, leave them, or stop before scoring."),
    ] = "merge",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be copied, moved, linked or written beside; change nothing."),
    ] = False,
    population: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Also percentile, stars (1 to 5) and verdict: biq2021, which comes along, or a file of `population`.",
        ),
    ] = None,
    interval: Annotated[
        Level | None,
        typer.Option(help="Also score_low and score_high, which hold so many percent of people's ratings."),
    ] = None,
    interval_from: Annotated[
        Path | None,
        typer.Option(help="Record that `intervals` wrote.  [default: MODEL.intervals.json beside MODEL.onnx]"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Also calibrated, the score on your own scale: a file of `calibrate`.")
    ] = None,
    no_type: NoType = False,
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Also a row for each region, with quality, importance, box and area: a file of boxes or masks (.json, "
            ".jsonl, .csv), a folder of masks, grid:4x3, slic:50, or sam:CHECKPOINT.",
        ),
    ] = None,
    region_options: Annotated[
        list[str] | None,
        typer.Option(
            "--region-option", metavar="KEY=VALUE", help="Option of the source, as for pocketiqa regions; repeatable."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG to draw: the photograph and its quality map, with outlines and numbers of the regions; a folder "
            "for many."
        ),
    ] = None,
    heat_map: Annotated[
        Path | None, typer.Option("--map", help="PNG to draw: the quality map alone; a folder for many.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what --out, --picture, --map and --gallery name.")
    ] = False,
) -> None:
    """Score photographs from 0 (worst) to 1 (best) on the CPU. Exit status 1 if any has no score, or there are none."""
    from distill.commands.regions import source_to_score
    from distill.scoring.answers import Answers
    from distill.scoring.choosing import Choice
    from distill.scoring.galleries import Gallery
    from distill.scoring.inputs import Reading
    from distill.scoring.meaning_columns import Meaning
    from distill.scoring.score_paths import score_paths
    from distill.scoring.scored_regions import Drawings
    from distill.scoring.sidecars import Sidecars
    from distill.scoring.transfers import transfer_of
    from pseudo_labels.downloads import Downloads
    from pseudo_labels.errors import PocketiqaError

    if region_options and regions is None:
        raise PocketiqaError("--region-option is for a source of regions: name it with --regions")

    if not allow_remote and (max_download, download_time) != (DOWNLOAD_MB, DOWNLOAD_S):
        raise PocketiqaError("--max-download and --download-time bound what is fetched: add --allow-remote")
    transfer = transfer_of(copy_to, move_to, link_to)
    if xmp_existing != "merge" and not xmp:
        raise PocketiqaError("--xmp-existing says what --xmp does with sidecars that exist: add --xmp")
    page = None if gallery is None else Gallery(gallery, overwrite)
    sidecars = Sidecars(xmp_existing) if xmp else None
    choice = Choice(sort, top, bottom, min_score, max_score)
    downloads = Downloads(round(max_download * 1e6), download_time) if allow_remote else None
    tally = score_paths(
        paths,
        model,
        engine=engine,
        reading=Reading(recursive, null, downloads),
        workers=workers,
        max_pixels=max_pixels,
        look=look,
        file_format=file_format,
        out=out,
        overwrite=overwrite,
        resume=resume,
        excel_safe=excel_safe,
        regions=None if regions is None else source_to_score(regions, region_options or []),
        drawings=Drawings(picture, heat_map, overwrite),
        answers=Answers(
            choice,
            listing,
            null,
            transfer=transfer,
            sidecars=sidecars,
            gallery=page,
            dry_run=dry_run,
        ),
        meaning=Meaning(population, None if interval is None else int(interval), interval_from, calibration),
        types=not no_type,
    )
    if tally.scored < tally.rows:
        console.err.print(f"{tally.rows - tally.scored} of {tally.rows} images have no score; see status and reason")
    bad_regions = tally.regions - tally.scored_regions
    if bad_regions:
        console.err.print(f"{bad_regions} of {tally.regions} regions have no quality; see status and reason")
    if choice.leaves_out:
        console.err.print(f"{tally.chosen} of {tally.rows} images were chosen")
    if tally.scored < tally.rows or tally.empty_folders or bad_regions or not tally.all_given:
        raise typer.Exit(1)


@app.command()
def undo(
    where: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder that score or best --move-to moved images to, or its undo file."),
    ],
    last: Annotated[bool, typer.Option("--last", help="Only what the last run moved.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved back, and leave all as it is.")
    ] = False,
) -> None:
    """Move images back that --move-to moved. Nothing is replaced. Exit status 1 if any cannot be moved back."""
    from distill.scoring.undoing import undo_moves

    if not undo_moves(where, last=last, dry_run=dry_run):
        raise typer.Exit(1)
