"""Commands on photographs before and after a change, and on the frames of a video."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.commands.options import ExcelSafe, Format, MaxPixels, Overwrite, Recursive, RowsFile, Student, app
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS


@app.command("compare-folders")
def compare_folders(
    before: Annotated[Path, typer.Argument(help="Folder of the photographs as they were.")],
    after: Annotated[Path, typer.Argument(help="Folder of what was made of them, with the same names.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="CSV with two columns, names below BEFORE and AFTER (or absolute), and a third one for the scene; in "
            "place of pairs by name."
        ),
    ] = None,
    model: Student = None,
    recursive: Recursive = False,
    workers: Annotated[int, typer.Option(help="Images scored at a time.")] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="How each pair is written.  [default: by the ending of --out, else table]"),
    ] = None,
    out: RowsFile = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Page to write (.html): figures, plots, the worst changes as pictures.")
    ] = None,
    worst: Annotated[int, typer.Option(help="Worst changes that the page shows as pictures.")] = 12,
    excel_safe: ExcelSafe = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files that --out and --gallery name.")
    ] = False,
) -> None:
    """Say whether photographs became better: mean change with interval, sign test, the worst changes.

    Exit status 1 if any pair has no change or any file no partner.
    """
    from distill.scoring.before_after import compare_folders as compare
    from distill.scoring.before_after import summary_lines

    comparison = compare(
        before,
        after,
        model,
        pairs=pairs,
        recursive=recursive,
        workers=workers,
        max_pixels=max_pixels,
        out=out,
        file_format=file_format,
        gallery=gallery,
        worst=worst,
        overwrite=overwrite,
        excel_safe=excel_safe,
    )
    for line in summary_lines(comparison.summary, comparison.rows):
        console.err.print(line)
    if any(row.score is None for row in comparison.rows):
        raise typer.Exit(1)


@app.command()
def frames(
    video: Annotated[Path, typer.Argument(help="Video file.")],
    every: Annotated[
        str, typer.Option(help="How far apart frames are scored: 1s, 500ms, 2min, or 10f for every tenth frame.")
    ] = "1s",
    top: Annotated[
        int, typer.Option(help="Best frames that are written as PNG files, at most 100; 0 writes none.")
    ] = 5,
    by: Annotated[Literal["score", "sharpness"], typer.Option(help="Which frames are best.")] = "score",
    model: Student = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write.  [default: NAME-frames in this folder]")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score the frames of a video, and write the best of them as pictures. Needs the extra `video` (PyAV).

    Exit status 1 if the video was not read to its end, or a frame has no score.
    """
    from distill.scoring.frames import score_frames

    made = score_frames(video, model, every=every, top=top, by=by, out=out, overwrite=overwrite)
    for one in made["best"]:
        console.out.print(
            f"{one['time_s']:.3f} s  score {one['score']:.3f}  sharpness {one['sharpness']:.2f}  "
            f"{Path(made['folder']) / one['file']}"
        )
    console.err.print(f"{made['folder']}: {made['frames']} frames scored of {made['decoded']}")
    if made["reason"]:
        console.warn(f"{video} {made['reason']}; what was read is scored")
    if made["without"]:
        console.err.print(f"{made['without']} frames have no score; see status and reason in frames.csv")
    if made["reason"] or made["without"]:
        raise typer.Exit(1)
