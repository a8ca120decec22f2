"""``pocketiqa score``, the command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.commands.options import MaxPixels, app, complete_engine, complete_student
from distill.terminal import console
from pseudo_labels.defaults import DOWNLOAD_MB, DOWNLOAD_S, MAX_PIXELS
from students.engines import ONNX_RUNTIME

Format = Literal["table", "csv", "jsonl", "json", "parquet"]


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
            help="An exported .onnx student, or pocket-m, pocket-s, pocket-m-int8 or pocket-s-int8, which come along.  "
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
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into subfolders too.")] = False,
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
    workers: Annotated[int, typer.Option(help="Images scored at a time.")] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="How each image is written.  [default: by the ending of --out, else table]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write: .txt (table), .csv, .jsonl, .json or .parquet.  [default: standard output]"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep rows that --out has of the same model and limits and of unchanged files; continue an "
            "interrupted run.",
        ),
    ] = False,
    excel_safe: Annotated[
        bool, typer.Option("--excel-safe", help="CSV: put ' before cells that a spreadsheet would take for a formula.")
    ] = False,
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
        bool, typer.Option("--overwrite", help="Replace the files that --out, --picture and --map name.")
    ] = False,
) -> None:
    """Score photographs from 0 (worst) to 1 (best) on the CPU. Exit status 1 if any has no score, or there are none."""
    from distill.commands.inputs import Reading
    from distill.commands.regions import source_to_score
    from distill.commands.scored_regions import Drawings
    from distill.commands.scoring import score_paths
    from pseudo_labels.downloads import Downloads
    from pseudo_labels.errors import PocketiqaError

    if region_options and regions is None:
        raise PocketiqaError("--region-option is for a source of regions: name it with --regions")

    downloads = Downloads(round(max_download * 1e6), download_time) if allow_remote else None
    tally = score_paths(
        paths,
        model,
        engine=engine,
        reading=Reading(recursive, null, downloads),
        workers=workers,
        max_pixels=max_pixels,
        file_format=file_format,
        out=out,
        overwrite=overwrite,
        resume=resume,
        excel_safe=excel_safe,
        regions=None if regions is None else source_to_score(regions, region_options or []),
        drawings=Drawings(picture, heat_map, overwrite),
    )
    if tally.scored < tally.rows:
        console.err.print(f"{tally.rows - tally.scored} of {tally.rows} images have no score; see status and reason")
    bad_regions = tally.regions - tally.scored_regions
    if bad_regions:
        console.err.print(f"{bad_regions} of {tally.regions} regions have no quality; see status and reason")
    if tally.scored < tally.rows or tally.empty_folders or bad_regions:
        raise typer.Exit(1)
